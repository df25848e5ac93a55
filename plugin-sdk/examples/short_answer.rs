//! A reward with a configuration: 1.0 up to `characters`, falling to 0.0 at twice as many.
use fthost_plugin_sdk::{Group, Reward, Score, export, plugin_config};

#[plugin_config]
struct ShortAnswer {
    /// Characters up to which an answer is short.
    #[default = 80]
    characters: usize,
}

impl Reward for ShortAnswer {
    fn score(&self, group: &Group) -> Vec<Score> {
        let over = |text: &str| text.chars().count() as f64 / self.characters as f64 - 1.0;
        group.completions.iter().map(|it| Score::from(1.0 - over(&it.text).clamp(0.0, 1.0))).collect()
    }
}

export!(reward: ShortAnswer from ShortAnswer);
