//! 1 for an answer of the wanted length, falling in a straight line outside of it; and DAPO's soft punishment of overlong
//! answers, <https://arxiv.org/abs/2503.14476>, eq. 13.

use fthost_plugin_sdk::{Completion, ConfigProblem, Group, Reward, Score, export};

/// `[plugins.length-band.config]`: a band (`min`, `max`), `overlong`, or both, whose scores are added.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// What is counted.
    unit: Unit,
    /// The shortest length that scores 1.
    min: Option<u32>,
    /// The longest length that scores 1.
    max: Option<u32>,
    /// How far outside of the band the score reaches 0; with 0 it does at once.
    falloff: u32,
    /// DAPO's punishment, from 0 to -1.
    overlong: Option<Overlong>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unit {
    /// Tokens that the model generated.
    Tokens,
    /// Words; each Han or kana character is one.
    Words,
    /// Characters, spaces included.
    Characters,
}

#[derive(Debug, Clone, Copy, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Overlong {
    /// From here on the punishment is -1: `L_max`. Without it, the length at which a completion is cut off.
    max: Option<u32>,
    /// The punishment begins so far below `max`: `L_cache`.
    cache: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { unit: Unit::Tokens, min: None, max: None, falloff: 0, overlong: None }
    }
}

impl Overlong {
    /// `None` where nothing bounds the length.
    fn punishment(self, length: f64, max_tokens: u32) -> Option<f64> {
        let max = self.max.or((max_tokens > 0).then_some(max_tokens))?;
        let (max, cache) = (f64::from(max), f64::from(self.cache));
        Some(if length <= max - cache {
            0.0
        } else if length <= max {
            (max - cache - length) / cache
        } else {
            -1.0
        })
    }
}

struct LengthBand(Config);

impl TryFrom<Config> for LengthBand {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.min.is_none() && config.max.is_none() && config.overlong.is_none() {
            return Err(ConfigProblem::new("min", "one of `min`, `max` and `overlong` must be given"));
        }
        if let (Some(min), Some(max)) = (config.min, config.max)
            && min > max
        {
            return Err(ConfigProblem::new("min", format!("must be at most `max`, got `{min}` and `{max}`")));
        }
        if let Some(Overlong { max: None, .. }) = config.overlong
            && config.unit != Unit::Tokens
        {
            let message = "must be given where no tokens are counted: only they are bounded by the run";
            return Err(ConfigProblem::new("overlong.max", message));
        }
        if let Some(Overlong { max: Some(max), cache }) = config.overlong
            && cache > max
        {
            let message = format!("must be at most `overlong.max`, got `{cache}` and `{max}`");
            return Err(ConfigProblem::new("overlong.cache", message));
        }
        Ok(Self(config))
    }
}

impl LengthBand {
    fn length(&self, completion: &Completion) -> f64 {
        match self.0.unit {
            Unit::Tokens => f64::from(completion.token_count),
            Unit::Words => text_tools::word_count(&completion.text) as f64,
            Unit::Characters => completion.text.chars().count() as f64,
        }
    }

    fn band(&self, length: f64) -> f64 {
        let below = self.0.min.map_or(0.0, |it| f64::from(it) - length);
        let above = self.0.max.map_or(0.0, |it| length - f64::from(it));
        let outside = below.max(above).max(0.0);
        if outside == 0.0 {
            1.0
        } else if outside >= f64::from(self.0.falloff) {
            0.0
        } else {
            1.0 - outside / f64::from(self.0.falloff)
        }
    }

    fn judge(&self, completion: &Completion, max_tokens: u32) -> Score {
        let length = self.length(completion);
        let has_band = self.0.min.is_some() || self.0.max.is_some();
        let band = has_band.then(|| self.band(length));
        let overlong = match self.0.overlong.map(|it| it.punishment(length, max_tokens)) {
            Some(None) => return Score::abstain("`overlong.max` is not set, and nothing bounds the length"),
            Some(punishment) => punishment,
            None => None,
        };
        let mut score = Score::new(band.unwrap_or(0.0) + overlong.unwrap_or(0.0)).with("length", length);
        for (name, part) in [("band", band), ("overlong", overlong)] {
            score = part.map_or(score.clone(), |part| score.with(name, part));
        }
        score
    }
}

impl Reward for LengthBand {
    fn score(&self, group: &Group) -> Vec<Score> {
        group.completions.iter().map(|it| self.judge(it, group.max_tokens)).collect()
    }
}

export!(reward: LengthBand from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::{completion, group};
    use serde_json::{Value, json};

    fn made(config: Value) -> Result<LengthBand, ConfigProblem> {
        LengthBand::try_from(serde_json::from_value::<Config>(config).unwrap())
    }

    fn values(config: Value, answers: &[&str]) -> Vec<f64> {
        made(config).unwrap().score(&group(json!({}), answers)).iter().map(|it| it.value().unwrap()).collect()
    }

    #[test]
    fn the_score_falls_in_a_straight_line_outside_of_the_band() {
        let config = json!({"unit": "characters", "min": 3, "max": 4, "falloff": 4});
        assert_eq!(
            values(config, &["", "ab", "abc", "abcd", "abcdef", "abcdefgh"]),
            [0.25, 0.75, 1.0, 1.0, 0.5, 0.0]
        );
        assert_eq!(values(json!({"unit": "words", "max": 2}), &["a b", "a b c"]), [1.0, 0.0]);
    }

    #[test]
    fn words_are_counted_in_scripts_without_spaces() {
        let config = json!({"unit": "words", "min": 4, "max": 4});
        assert_eq!(values(config, &["我爱你们。", "我爱 you all", "four words are here"]), [1.0, 1.0, 1.0]);
    }

    /// Oracle: TRL's `get_soft_overlong_punishment(100, 20)`, `tests/golden/generate/rewards.py`.
    #[test]
    fn the_soft_overlong_punishment_is_trl_s() {
        let golden: Value =
            serde_json::from_str(include_str!("../../../tests/golden/rewards/overlong.json")).unwrap();
        let reward = made(json!({"overlong": {"max": 100, "cache": 20}})).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            let mut answer = completion("");
            answer.token_count = case["length"].as_u64().unwrap() as u32;
            let value = reward.judge(&answer, 0).value().unwrap();
            assert!((value - case["reward"].as_f64().unwrap()).abs() < 1e-12, "{case}");
        }
    }

    #[test]
    fn band_and_punishment_are_added_and_told() {
        let reward =
            made(json!({"unit": "characters", "max": 2, "overlong": {"max": 4, "cache": 2}})).unwrap();
        let score = reward.judge(&completion("abc"), 0);
        assert_eq!((score.value(), score.component("band")), (Some(-0.5), Some(0.0)));
        assert_eq!((score.component("overlong"), score.component("length")), (Some(-0.5), Some(3.0)));
    }

    #[test]
    fn the_run_bounds_the_length_where_the_configuration_does_not() {
        let reward = made(json!({"overlong": {"cache": 20}})).unwrap();
        let mut answer = completion("");
        answer.token_count = 90;
        assert_eq!(reward.judge(&answer, 100).value(), Some(-0.5));
        assert_eq!(reward.judge(&answer, 200).value(), Some(0.0));
        assert_eq!(reward.judge(&answer, 0).value(), None);
    }

    #[test]
    fn impossible_bands_name_their_key() {
        assert_eq!(made(json!({})).err().unwrap().key, "min");
        assert_eq!(made(json!({"min": 3, "max": 2})).err().unwrap().key, "min");
        assert_eq!(made(json!({"overlong": {"max": 1, "cache": 2}})).err().unwrap().key, "overlong.cache");
        let words = json!({"unit": "words", "overlong": {"cache": 2}});
        assert_eq!(made(words).err().unwrap().key, "overlong.max");
    }
}
