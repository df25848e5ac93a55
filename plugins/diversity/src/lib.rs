//! How different answers are from one another: distinct-n (Li et al. 2016, <https://aclanthology.org/N16-1014>) and
//! self-BLEU (Zhu et al. 2018, <https://arxiv.org/abs/1802.01886>).

use std::collections::BTreeMap;

use fthost_plugin_sdk::{ConfigProblem, Detail, Evaluator, Metric, Sample, export};
use text_metrics::{
    Bleu, Bootstrap, Distinct, Tokenizer, higher_is_better, lower_is_better, mean, self_bleu,
};

/// `[plugins.diversity.config]`
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// How texts become words: `13a`, `intl`, `zh` for Chinese, `char` for other scripts without spaces, `none`.
    tokenizer: Tokenizer,
    /// Whether case is ignored.
    lowercase: bool,
    /// Lengths of the n-grams whose share of different ones is reported.
    distinct: Vec<usize>,
    /// Among which answers self-BLEU is taken.
    self_bleu: Among,
    /// Length of the longest n-grams in self-BLEU.
    max_order: usize,
    /// The bootstrap behind the confidence interval.
    confidence: Bootstrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Among {
    /// All answers: whether a model says the same to everything.
    #[default]
    All,
    /// Those to the same prompt: whether sampling gives different answers.
    Prompt,
    /// Not at all.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tokenizer: Tokenizer::default(),
            lowercase: false,
            distinct: vec![1, 2, 3],
            self_bleu: Among::default(),
            max_order: 4,
            confidence: Bootstrap::default(),
        }
    }
}

struct Diversity {
    config: Config,
    bleu: Bleu,
    /// Prompt and answer.
    texts: Vec<(String, String)>,
}

impl TryFrom<Config> for Diversity {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        let (tokenizer, lowercase, max_order) = (config.tokenizer, config.lowercase, config.max_order);
        // Of short answers the lengths that they have.
        let bleu = Bleu { tokenizer, lowercase, max_order, effective_order: true, ..Bleu::default() };
        bleu.check().map_err(|(key, message)| ConfigProblem::new(key, message))?;
        if let Some(n) = config.distinct.iter().find(|it| !(1..=16).contains(*it)) {
            return Err(ConfigProblem::new("distinct", format!("must be in 1..=16, got `{n}`")));
        }
        Ok(Self { config, bleu, texts: Vec::new() })
    }
}

impl Diversity {
    fn self_bleu(&self) -> Vec<f64> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (prompt, answer) in &self.texts {
            let group = if self.config.self_bleu == Among::Prompt { prompt } else { "" };
            groups.entry(group).or_default().push(answer);
        }
        groups.values().flat_map(|it| self_bleu(&self.bleu, it)).collect()
    }
}

impl Evaluator for Diversity {
    fn grade(&mut self, sample: &Sample) -> Detail {
        let answer = &sample.completion.text;
        let words = [self.bleu.words(answer)];
        let own = self
            .config
            .distinct
            .iter()
            .map(|n| (format!("distinct_{n}"), Distinct::new(&words, *n).share(&[0])));
        let values = own.filter(|it| it.1.is_finite()).collect();
        self.texts.push((format!("{:?}", sample.prompt), answer.clone()));
        Detail { values, note: None }
    }

    fn finish(&mut self) -> Vec<Metric> {
        let words: Vec<_> = self.texts.iter().map(|it| self.bleu.words(&it.1)).collect();
        let all: Vec<usize> = (0..words.len()).collect();
        let mut metrics = Vec::new();
        for n in &self.config.distinct {
            let mut distinct = Distinct::new(&words, *n);
            let share = distinct.share(&all);
            if share.is_finite() {
                let sampled = self.config.confidence.centred_draws(all.len(), |drawn| distinct.share(drawn));
                metrics.push(higher_is_better(format!("distinct_{n}"), share, sampled, all.len()));
            }
        }
        if self.config.self_bleu != Among::Off {
            let values = self.self_bleu();
            if !values.is_empty() {
                let sampled = self.config.confidence.mean(&values);
                metrics.push(lower_is_better("self_bleu", mean(&values), sampled, values.len()));
            }
        }
        self.texts.clear();
        metrics
    }
}

export!(evaluator: Diversity from Config);

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: counting in Python and sacrebleu 2.6.0, `tests/golden/generate/evaluator_cases.py`.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::evaluator::<Config, Diversity>(&[], include_str!("../cases/diversity.jsonl"));
    }
}
