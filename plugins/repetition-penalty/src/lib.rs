//! Minus what of an answer's n-grams are repetitions: `max_penalty * (1 - unique / total)`.
//!
//! Appendix C.2 of <https://arxiv.org/abs/2502.03373>, as in open-r1 and TRL.

use fthost_plugin_sdk::{ConfigProblem, Group, Reward, Score, export};

mod distinct;

/// `[plugins.repetition-penalty.config]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Items of an n-gram.
    ngram_size: u32,
    /// The score of an answer that is all repetition, at most 0.
    max_penalty: f64,
    /// What an n-gram is made of.
    unit: Unit,
    /// Capital and small letters are the same.
    ignore_case: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unit {
    /// What stands between spaces; each Han or kana character by itself.
    Words,
    /// Characters, spaces left out.
    Characters,
}

impl Default for Config {
    fn default() -> Self {
        Self { ngram_size: 3, max_penalty: -1.0, unit: Unit::Words, ignore_case: true }
    }
}

struct RepetitionPenalty(Config);

impl TryFrom<Config> for RepetitionPenalty {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.ngram_size == 0 {
            return Err(ConfigProblem::new("ngram_size", "must be at least 1, got `0`"));
        }
        if !(config.max_penalty <= 0.0 && config.max_penalty.is_finite()) {
            let message = format!("must be at most 0, got `{}`", config.max_penalty);
            return Err(ConfigProblem::new("max_penalty", message));
        }
        Ok(Self(config))
    }
}

/// The share of the runs of `n` items that stood before; 0 where there are fewer than `n` items.
fn repeated_share(items: &[u32], n: usize) -> f64 {
    let all = (items.len() + 1).saturating_sub(n);
    if all == 0 {
        return 0.0;
    }
    1.0 - distinct::ngrams(items, n) as f64 / all as f64
}

impl RepetitionPenalty {
    fn judge(&self, text: &str) -> Score {
        let lower;
        let text = if self.0.ignore_case {
            lower = text.to_lowercase();
            &lower
        } else {
            text
        };
        let n = self.0.ngram_size as usize;
        let repeated = match self.0.unit {
            Unit::Words => repeated_share(&distinct::numbered(text), n),
            Unit::Characters => {
                let characters = text.chars().filter(|it| !it.is_whitespace()).map(u32::from);
                repeated_share(&characters.collect::<Vec<_>>(), n)
            }
        };
        // No negative zero.
        let value = if repeated == 0.0 { 0.0 } else { repeated * self.0.max_penalty };
        Score::new(value).with("repeated", repeated)
    }
}

impl Reward for RepetitionPenalty {
    fn score(&self, group: &Group) -> Vec<Score> {
        group.completions.iter().map(|it| self.judge(&it.text)).collect()
    }
}

export!(reward: RepetitionPenalty from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::group;
    use serde_json::{Value, json};

    fn values(config: Value, answers: &[&str]) -> Vec<f64> {
        let config: Config = serde_json::from_value(config).unwrap();
        let scores = RepetitionPenalty::try_from(config).unwrap().score(&group(json!({}), answers));
        scores.iter().map(|it| it.value().unwrap()).collect()
    }

    /// Oracle: TRL's `get_repetition_penalty_reward` on the ids of words, `tests/golden/generate/rewards.py`.
    #[test]
    fn words_score_as_trl_scores_their_ids() {
        let golden: Value =
            serde_json::from_str(include_str!("../../../tests/golden/rewards/repetition.json")).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() >= 12);
        for case in cases {
            let config = json!({"ngram_size": case["ngram_size"], "max_penalty": case["max_penalty"]});
            let value = values(config, &[case["text"].as_str().unwrap()])[0];
            assert!((value - case["reward"].as_f64().unwrap()).abs() < 1e-12, "{case}: {value}");
        }
    }

    #[test]
    fn chinese_repeats_by_characters() {
        // 哈哈哈哈哈: three 3-grams, one unique.
        let value = values(json!({}), &["哈哈哈哈哈"])[0];
        assert!((value + 2.0 / 3.0).abs() < 1e-12);
        let characters = json!({"unit": "characters", "ngram_size": 2, "max_penalty": -3.0});
        assert_eq!(values(characters, &["ab ab", "abcd", ""]), [-1.0, 0.0, 0.0]);
    }

    #[test]
    fn case_counts_only_where_asked() {
        assert_eq!(values(json!({"ngram_size": 1}), &["A a"]), [-0.5]);
        assert_eq!(values(json!({"ngram_size": 1, "ignore_case": false}), &["A a"]), [0.0]);
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config: Value| {
            RepetitionPenalty::try_from(serde_json::from_value::<Config>(config).unwrap()).err().unwrap().key
        };
        assert_eq!(key(json!({"ngram_size": 0})), "ngram_size");
        assert_eq!(key(json!({"max_penalty": 0.5})), "max_penalty");
    }
}
