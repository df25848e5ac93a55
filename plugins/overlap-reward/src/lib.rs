//! Rewards a completion by what it shares with the expected answer: BLEU, ROUGE or chrF, from 0 to 1.

use fthost_plugin_sdk::{ConfigProblem, Group, Reward, Score, export};
use text_metrics::{Bleu, Chrf, Rouge, RougeType, Tokenizer, strings};

/// `[plugins.overlap-reward.config]`
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The column that holds the expected answer, or a list of them.
    column: String,
    /// What is measured.
    metric: Overlap,
}

#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Overlap {
    /// sacrebleu's BLEU of the sentence, of those lengths of n-gram that it has.
    Bleu(Bleu),
    /// One of rouge-score's F-measures; of several references the best.
    Rouge(OneRouge),
    /// sacrebleu's chrF; of several references the best.
    Chrf(Chrf),
}

#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct OneRouge {
    /// Which one.
    #[serde(rename = "type")]
    which: RougeType,
    /// One of sacrebleu's tokenisers, `zh` for Chinese; by default rouge-score's own, for ASCII letters and digits only.
    tokenizer: Option<Tokenizer>,
    /// Whether words lose their endings (Porter's stemmer; English, with rouge-score's own tokeniser).
    stemmer: bool,
    /// Whether case is ignored with one of sacrebleu's tokenisers.
    lowercase: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { column: "answer".into(), metric: Overlap::Bleu(Bleu::default()) }
    }
}

impl Default for OneRouge {
    fn default() -> Self {
        Self { which: RougeType::RougeL, tokenizer: None, stemmer: false, lowercase: false }
    }
}

struct OverlapReward(Config);

impl TryFrom<Config> for OverlapReward {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        let (name, checked) = match &config.metric {
            Overlap::Bleu(bleu) => ("bleu", bleu.check()),
            Overlap::Chrf(chrf) => ("chrf", chrf.check()),
            Overlap::Rouge(rouge) if rouge.stemmer && rouge.tokenizer.is_some() => {
                let message = "works with rouge-score's own tokeniser only: leave out `tokenizer`";
                ("rouge", Err(("stemmer", message.into())))
            }
            Overlap::Rouge(_) => ("rouge", Ok(())),
        };
        let problem = |(key, message)| ConfigProblem::new(format!("metric.{name}.{key}"), message);
        checked.map_err(problem).map(|()| Self(config))
    }
}

impl Reward for OverlapReward {
    fn score(&self, group: &Group) -> Vec<Score> {
        let references = strings(&group.columns, &self.0.column);
        if references.is_empty() {
            let reason = format!("column `{}` holds no expected answer", self.0.column);
            return vec![Score::abstain(reason); group.completions.len()];
        }
        group.completions.iter().map(|it| self.compare(&it.text, &references)).collect()
    }
}

impl OverlapReward {
    fn compare(&self, answer: &str, references: &[String]) -> Score {
        match &self.0.metric {
            Overlap::Bleu(bleu) => {
                let sentence = Bleu { effective_order: true, ..bleu.clone() };
                let score = sentence.score(&sentence.statistics(answer, references));
                Score::new(score.score / 100.0).with("brevity_penalty", score.brevity_penalty)
            }
            Overlap::Rouge(OneRouge { which, tokenizer, stemmer, lowercase }) => {
                let rouge = Rouge { tokenizer: *tokenizer, stemmer: *stemmer, lowercase: *lowercase };
                let overlap = rouge.score(*which, answer, references);
                Score::new(overlap.fmeasure)
                    .with("precision", overlap.precision)
                    .with("recall", overlap.recall)
            }
            Overlap::Chrf(chrf) => Score::new(chrf.sentence(answer, references) / 100.0),
        }
    }
}

export!(reward: OverlapReward from Config);

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: sacrebleu 2.6.0 and rouge-score 0.1.2, `tests/golden/generate/text_metrics.py`.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::reward::<Config, OverlapReward>(&[], include_str!("../cases/overlap.jsonl"));
    }
}
