//! A reward with a configuration: 1.0 up to `characters`, falling to 0.0 at twice as many.
use fthost_plugin_sdk::{Group, Reward, Score, export, schemars, serde};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, crate = "fthost_plugin_sdk::serde")]
#[schemars(crate = "fthost_plugin_sdk::schemars")]
struct ShortAnswer {
    characters: usize,
}

impl Reward for ShortAnswer {
    fn score(&self, group: &Group) -> Vec<Score> {
        let over = |text: &str| text.chars().count() as f64 / self.characters as f64 - 1.0;
        group.completions.iter().map(|it| Score::from(1.0 - over(&it.text).clamp(0.0, 1.0))).collect()
    }
}

export!(reward: ShortAnswer from ShortAnswer);
