//! A model judges answers on a rubric, from 1 to 5 (as in Zheng et al. 2023, <https://arxiv.org/abs/2306.05685>; Liu et al.
//! 2023, <https://arxiv.org/abs/2303.16634>). A judgement that can't be read is counted and is no score.

mod parse;
mod rubric;

use fthost_plugin_sdk::{
    Completion, ConfigProblem, Detail, Evaluator, Message, Metric, Prompt, Role, Sample, export, model,
};
use text_metrics::{Bootstrap, ModelName, higher_is_better, lower_is_better, mean, one, references};

use parse::Reader;
use rubric::{Criterion, Language, Question, conversation};

/// `[plugins.judge.config]`
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Who judges: `judges.<name>`, `run` or `reference`; the same is to be granted in `grants.generate`.
    model: ModelName,
    /// Language in which the judge is asked.
    language: Language,
    /// The rubric; by default relevance, fluency, informativeness and correctness.
    criteria: Option<Vec<Criterion>>,
    /// What the judge is asked, as a Jinja template of `prompt`, `answer`, `reference` (where there is one), `criteria`
    /// and `form`, the JSON that is wanted.
    template: Option<String>,
    /// The column that holds the expected answer, of a list the first; by default the row's own completion.
    column: Option<String>,
    /// Judgements of each answer, whose mean counts; more than one need a temperature.
    judgements: u32,
    /// 0 is greedy.
    temperature: f32,
    /// Tokens of a judgement at most.
    max_new_tokens: u32,
    /// Decides the draws, with a temperature.
    seed: u64,
    /// The bootstrap behind the confidence interval.
    confidence: Bootstrap,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: ModelName::default(),
            language: Language::default(),
            criteria: None,
            template: None,
            column: None,
            judgements: 1,
            temperature: 0.0,
            max_new_tokens: 256,
            seed: 0,
            confidence: Bootstrap::default(),
        }
    }
}

struct Judge {
    config: Config,
    criteria: Vec<Criterion>,
    question: Question,
    reader: Reader,
    /// Of each criterion its scores, an answer each.
    scores: Vec<Vec<f64>>,
    /// Means over the rubric, where all of it was read.
    means: Vec<f64>,
    /// Of each judgement 1 where some of it could not be read.
    unreadable: Vec<f64>,
}

impl TryFrom<Config> for Judge {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        let criteria = config.criteria.clone().unwrap_or_else(|| config.language.rubric());
        if criteria.is_empty() || criteria.iter().any(|it| it.name.trim().is_empty()) {
            return Err(ConfigProblem::new("criteria", "must name at least one criterion, each with a name"));
        }
        let sampled = config.temperature.is_finite() && config.temperature >= 0.0;
        if !sampled || config.judgements > 1 && config.temperature == 0.0 {
            let message =
                format!("must be >= 0, and > 0 for several judgements, got `{}`", config.temperature);
            return Err(ConfigProblem::new("temperature", message));
        }
        for (key, value) in [("judgements", config.judgements), ("max_new_tokens", config.max_new_tokens)] {
            if value == 0 {
                return Err(ConfigProblem::new(key, "must be > 0, got `0`"));
            }
        }
        let template = config.template.clone().unwrap_or_else(|| config.language.template().into());
        let question = Question::new(template).map_err(|error| ConfigProblem::new("template", error))?;
        let (reader, scores) = (Reader::new(criteria.clone()), vec![Vec::new(); criteria.len()]);
        Ok(Self { config, criteria, question, reader, scores, means: Vec::new(), unreadable: Vec::new() })
    }
}

impl Judge {
    fn ask(&self, sample: &Sample) -> Result<Prompt, String> {
        let reference = references(sample, self.config.column.as_deref()).into_iter().next();
        let (prompt, answer) = (conversation(&sample.prompt), &sample.completion.text);
        let content = self.question.render(&prompt, answer, reference.as_deref(), &self.criteria)?;
        Ok(Prompt::Messages(vec![Message { role: Role::User, content }]))
    }

    fn note_down(&mut self, judgements: &[Completion]) -> Detail {
        let mut detail = Detail::default();
        let mut read: Vec<Vec<f64>> = vec![Vec::new(); self.criteria.len()];
        for judgement in judgements {
            let scores = self.reader.scores(&judgement.text);
            let unreadable = scores.iter().any(Option::is_none);
            self.unreadable.push(f64::from(u8::from(unreadable)));
            if unreadable {
                let begin: String = judgement.text.chars().take(200).collect();
                detail.note = Some(format!("a judgement that can't be read: {begin}"));
            }
            for (all, score) in read.iter_mut().zip(scores) {
                all.extend(score);
            }
        }
        for (at, scores) in read.iter().enumerate().filter(|it| !it.1.is_empty()) {
            self.scores[at].push(mean(scores));
            detail.values.push((self.criteria[at].name.clone(), mean(scores)));
        }
        if detail.values.len() == self.criteria.len() {
            let means: Vec<f64> = detail.values.iter().map(|it| it.1).collect();
            self.means.push(mean(&means));
        }
        detail
    }
}

impl Evaluator for Judge {
    fn grade(&mut self, sample: &Sample) -> Detail {
        one(self.grade_all(std::slice::from_ref(sample)))
    }

    fn grade_all(&mut self, samples: &[Sample]) -> Result<Vec<Detail>, String> {
        let prompts = samples.iter().map(|it| self.ask(it)).collect::<Result<Vec<_>, _>>()?;
        let Config { temperature, max_new_tokens, seed, judgements, .. } = self.config;
        let (top_p, completions_per_prompt, stop) = (1.0, judgements, Vec::new());
        let sampling =
            model::Sampling { max_new_tokens, temperature, top_p, completions_per_prompt, stop, seed };
        let judged = model::generate(&(&self.config.model).into(), prompts, &sampling)?;
        if judged.len() != samples.len() {
            return Err(format!("{} judgements of {} answers", judged.len(), samples.len()));
        }
        Ok(judged.iter().map(|it| self.note_down(it)).collect())
    }

    fn finish(&mut self) -> Vec<Metric> {
        let confidence = self.config.confidence;
        let mut metrics = Vec::new();
        let mut report = |name: String, values: Vec<f64>| {
            if !values.is_empty() {
                let sampled = confidence.mean(&values);
                metrics.push(higher_is_better(name, mean(&values), sampled, values.len()));
            }
        };
        for (criterion, scores) in self.criteria.iter().zip(&mut self.scores) {
            report(criterion.name.clone(), std::mem::take(scores));
        }
        report("mean".into(), std::mem::take(&mut self.means));
        let unreadable = std::mem::take(&mut self.unreadable);
        if !unreadable.is_empty() {
            let sampled = confidence.mean(&unreadable);
            metrics.push(lower_is_better("unreadable", mean(&unreadable), sampled, unreadable.len()));
        }
        metrics
    }
}

export!(evaluator: Judge from Config);

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: means of the scores written into the judge's answers, `tests/golden/generate/evaluator_cases.py`.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::evaluator::<Config, Judge>(&[], include_str!("../cases/judge.jsonl"));
    }
}
