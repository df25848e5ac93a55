//! Answers to the held-out prompts: generated, scored by rewards, judged by evaluators.
//!
//! A plugin that fails on an answer gives no number: its `on_failure` says what follows, and failures are counted apart.

use std::path::{Path, PathBuf};

use fthost_data::{
    Candidate, Detail, Direction, EvalSample, Evaluator, Example, Group, Metric, Occasion, Outcome, Purpose,
    Reward, RewardTerm, RoleError, Then, Tokenizer, reward_sum,
};
use fthost_engine::device::DeviceKind;
use fthost_engine::generate::generate;
use fthost_engine::models::CausalLm;
use serde::{Deserialize, Serialize};

use crate::config::EvalConfig;
use crate::error::{Result, RunError};
use crate::host_model::EngineModel;
use crate::judges::Judges;
use crate::plugins::{Lent, PluginUsage, Plugins};
use crate::questions::{Question, question, samples};
use crate::scores::{RewardScores, Scores};

/// Samples an evaluator is called with at a time.
const BATCH: usize = 256;

/// In the output folder: a file an evaluation.
pub const FOLDER: &str = "evaluations";

/// One figure of a judgement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedMetric {
    /// `eval_rewards/<plugin>/mean`, `eval_<plugin>/<metric>`.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Which way it improves; `None` for counts.
    pub direction: Option<Direction>,
    /// Low and high end of a 95% confidence interval.
    pub confidence: Option<(f64, f64)>,
}

/// One answer with what was said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedAnswer {
    /// Position of the question in the held-out part.
    pub question: usize,
    /// What was asked: the text, or the last turn of the conversation.
    pub prompt: String,
    /// The answer expected.
    pub reference: Option<String>,
    /// The model's answer.
    pub answer: Candidate,
    /// Score by reward; absent where the outcome was no score.
    pub scores: Vec<(String, f64)>,
    /// Values by evaluator.
    pub values: Vec<(String, f64)>,
    /// Outcomes that were no scores, and evaluators' remarks.
    pub notes: Vec<String>,
}

/// What plugins say of a model's answers to the held-out prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Optimizer steps done.
    pub step: u64,
    /// Figures in a fixed order.
    pub metrics: Vec<JudgedMetric>,
    /// Every answer.
    pub answers: Vec<JudgedAnswer>,
    /// What rewards were given and what they said: a file of its own.
    #[serde(skip)]
    pub scores: Option<Scores>,
    /// What each plugin has used up so far: a matter of performance.
    #[serde(skip)]
    pub usage: Vec<PluginUsage>,
}

/// How answers are made, and whom plugins may ask about them.
#[derive(Debug, Clone, Copy)]
pub struct JudgeSettings<'a> {
    /// `[eval]`.
    pub eval: &'a EvalConfig,
    /// `[judges]`.
    pub judges: &'a Judges,
    /// Where models are computed.
    pub device: DeviceKind,
    /// Optimizer steps planned; 0 where nothing is trained.
    pub steps: u64,
}

/// Asks a model the held-out questions and plugins for their opinion.
pub struct Judge<'a> {
    tokenizer: &'a Tokenizer,
    settings: JudgeSettings<'a>,
    questions: Vec<Question>,
}

impl<'a> Judge<'a> {
    /// Questions of every held-out example that asks something.
    ///
    /// # Errors
    /// A prompt that the chat template refuses.
    pub fn new(
        plugins: &Plugins,
        tokenizer: &'a Tokenizer,
        settings: JudgeSettings<'a>,
        held_out: &[Example],
    ) -> Result<Self> {
        let mut questions = Vec::new();
        if !(plugins.rewards.is_empty() && plugins.evaluators.is_empty()) {
            for example in held_out {
                questions.extend(question(example, tokenizer)?);
            }
        }
        Ok(Self { tokenizer, settings, questions })
    }

    /// Whether anything is asked that somebody judges.
    pub fn asks(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Generates, scores and judges; `None` where nothing is asked or nobody judges. `model`, and the `reference` that plugins may ask,
    /// have all of their weights.
    ///
    /// # Errors
    /// A model that can't generate, an evaluator that fails, and a reward that fails where that stops the run.
    pub fn judge(
        &mut self,
        plugins: &mut Plugins,
        model: &CausalLm,
        reference: Option<CausalLm>,
        step: u64,
    ) -> Result<Option<Judgement>> {
        if self.questions.is_empty() {
            return Ok(None);
        }
        let JudgeSettings { eval, judges, device, .. } = self.settings;
        let prompts: Vec<Vec<u32>> = self.questions.iter().map(|it| it.prompt_ids.clone()).collect();
        let decoding = model.for_decoding(eval.weights);
        let completions = generate(&decoding, self.tokenizer, &prompts, &eval.generation, eval.batch_size)?;
        drop(decoding);
        let candidates: Vec<Vec<Candidate>> = completions
            .into_iter()
            .map(|all| all.into_iter().map(EngineModel::candidate).collect())
            .collect();
        let _lease = plugins.lend(&Lent {
            run: model,
            reference,
            tokenizer: self.tokenizer,
            batch_size: eval.batch_size,
            judges,
            device,
        })?;
        self.opinions(plugins, candidates, step).map(Some)
    }

    fn opinions(
        &self,
        plugins: &mut Plugins,
        candidates: Vec<Vec<Candidate>>,
        step: u64,
    ) -> Result<Judgement> {
        let occasion = Occasion {
            purpose: Purpose::Evaluation,
            steps: self.settings.steps,
            max_tokens: self.settings.eval.generation.max_new_tokens as u32,
        };
        let groups: Vec<Group> = (0..)
            .zip(self.questions.iter().zip(&candidates))
            .map(|(id, (question, completions))| Group {
                id,
                step,
                occasion,
                prompt: question.prompt.clone(),
                completions: completions.clone(),
                columns: question.columns.clone(),
            })
            .collect();
        let mut answers = self.answers(&candidates);
        let (mut metrics, scores) = rewards(plugins, &groups, &mut answers)?;
        let samples = samples((step, self.settings.steps), &self.questions, &candidates);
        for evaluator in &mut plugins.evaluators {
            metrics.extend(evaluated(evaluator.as_mut(), &samples, &mut answers)?);
        }
        let scores = (!scores.rewards.is_empty()).then_some(scores);
        Ok(Judgement { step, metrics, answers, scores, usage: plugins.usage() })
    }

    fn answers(&self, candidates: &[Vec<Candidate>]) -> Vec<JudgedAnswer> {
        let of_question = |(index, (question, all)): (usize, (&Question, &Vec<Candidate>))| {
            let answer = |it: &Candidate| JudgedAnswer {
                question: index,
                prompt: question.prompt.last_turn().to_string(),
                reference: question.reference.clone(),
                answer: it.clone(),
                scores: Vec::new(),
                values: Vec::new(),
                notes: Vec::new(),
            };
            all.iter().map(answer).collect::<Vec<_>>()
        };
        self.questions.iter().zip(candidates).enumerate().flat_map(of_question).collect()
    }
}

impl Judgement {
    /// Where the judgement after `step` steps stands in an output folder.
    pub fn path(folder: &Path, step: u64) -> PathBuf {
        folder.join(FOLDER).join(format!("step-{step}.json"))
    }

    /// Writes the judgement into an output folder, whole or not at all.
    ///
    /// # Errors
    /// Files that can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = Self::path(folder, self.step);
        let parent = folder.join(FOLDER);
        let temporary = parent.join(".judgement.json");
        let text = serde_json::to_string_pretty(self).expect("a judgement serialises");
        std::fs::create_dir_all(&parent)
            .and_then(|()| std::fs::write(&temporary, format!("{text}\n")))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(RunError::output(&path))?;
        self.scores.iter().try_for_each(|it| it.write(folder))
    }

    /// Reads the judgement after `step` steps, where there is one.
    pub fn read(folder: &Path, step: u64) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(Self::path(folder, step)).ok()?).ok()
    }
}

fn rewards(
    plugins: &mut Plugins,
    groups: &[Group],
    answers: &mut [JudgedAnswer],
) -> Result<(Vec<JudgedMetric>, Scores)> {
    let mut scores = Scores::new(groups.first().map_or(0, |it| it.step), groups);
    let (mut metrics, mut terms) = (Vec::new(), Vec::new());
    plugins.asked.take();
    for reward in &mut plugins.rewards {
        let outcomes = scored(reward.as_mut(), groups)?;
        let plugin = reward.identity().clone();
        let flat: Vec<Outcome> = outcomes.iter().flatten().cloned().collect();
        metrics.extend(reward_metrics(&plugin.name, &flat, answers));
        terms.push(flat);
        scores.rewards.push(RewardScores { plugin, outcomes });
    }
    scores.asked = plugins.asked.take();
    let names = scores.rewards.iter().map(|it| plugins.term(&it.plugin.name));
    let terms: Vec<(RewardTerm, Vec<Outcome>)> = names.zip(terms).collect();
    metrics.extend(sum_metrics(&terms));
    Ok((metrics, scores))
}

/// Outcomes group by group.
///
/// # Errors
/// The first failure, where that stops the run.
pub(crate) fn scored(reward: &mut dyn Reward, groups: &[Group]) -> Result<Vec<Vec<Outcome>>> {
    let outcomes = reward.score(groups);
    if reward.on_failure().then == Then::Stop {
        let failed = outcomes.iter().flatten().find_map(|it| match it {
            Outcome::Failed(failure) => Some(failure.clone()),
            Outcome::Ok(_) | Outcome::Abstain { .. } => None,
        });
        if let Some(failure) = failed {
            let (plugin, items) = (reward.identity().name.clone(), outcomes.iter().map(Vec::len).sum());
            return Err(RoleError { plugin, call: "score", items, failure }.into());
        }
    }
    Ok(outcomes)
}

/// Figures of an evaluator, its details written to the answers; where it fails and that is skipped, the failure as a count.
fn evaluated(
    evaluator: &mut dyn Evaluator,
    samples: &[EvalSample],
    answers: &mut [JudgedAnswer],
) -> Result<Vec<JudgedMetric>> {
    let name = evaluator.identity().name.clone();
    let mut judge = || -> std::result::Result<(Vec<Detail>, Vec<Metric>), RoleError> {
        let mut details = Vec::with_capacity(samples.len());
        for batch in samples.chunks(BATCH) {
            details.extend(evaluator.grade(batch)?);
        }
        Ok((details, evaluator.finish()?))
    };
    let (details, metrics) = match judge() {
        Ok(judged) => judged,
        Err(error) if evaluator.on_failure().then == Then::Skip => {
            // What it has counted of this evaluation must not reach the next one.
            let _ = evaluator.finish();
            let name = format!("eval_{name}/outcomes/{}", error.failure.kind());
            return Ok(vec![JudgedMetric { name, value: 1.0, direction: None, confidence: None }]);
        }
        Err(error) => return Err(error.into()),
    };
    for (answer, Detail { values, note, .. }) in answers.iter_mut().zip(details) {
        answer.values.extend(values.into_iter().map(|(key, value)| (format!("{name}/{key}"), value)));
        answer.notes.extend(note.map(|it| format!("{name}: {it}")));
    }
    let metric = |it: Metric| JudgedMetric {
        name: format!("eval_{name}/{}", it.name),
        value: it.value,
        direction: Some(it.direction),
        confidence: it.confidence,
    };
    Ok(metrics.into_iter().map(metric).collect())
}

/// Mean and spread of the sum of all rewards over the answers that have one.
fn sum_metrics(terms: &[(RewardTerm, Vec<Outcome>)]) -> Vec<JudgedMetric> {
    let answers = terms.first().map_or(0, |it| it.1.len());
    let sum = |answer: usize| {
        let of_answer = terms.iter().map(|(term, outcomes)| (term, &outcomes[answer]));
        reward_sum(of_answer).ok().flatten()
    };
    let sums: Vec<f64> = (0..answers).filter_map(sum).collect();
    if sums.is_empty() {
        return Vec::new();
    }
    let metric = |name: &str, value, direction| JudgedMetric {
        name: name.to_string(),
        value,
        direction,
        confidence: None,
    };
    vec![
        metric("eval_reward", mean(&sums), Some(Direction::HigherIsBetter)),
        metric("eval_reward_std", deviation(&sums), None),
    ]
}

/// Mean, spread and parts over the answers that have a score, and counts of those that have none.
fn reward_metrics(name: &str, outcomes: &[Outcome], answers: &mut [JudgedAnswer]) -> Vec<JudgedMetric> {
    let mut values = Vec::new();
    let mut parts: Vec<(String, Vec<f64>)> = Vec::new();
    let mut counts: Vec<(&str, u64)> = Vec::new();
    let mut count = |kind: &'static str| match counts.iter_mut().find(|it| it.0 == kind) {
        Some((_, count)) => *count += 1,
        None => counts.push((kind, 1)),
    };
    for (outcome, answer) in outcomes.iter().zip(answers) {
        match outcome {
            Outcome::Ok(score) => {
                values.push(score.value);
                answer.scores.push((name.to_string(), score.value));
                for (part, value) in &score.components {
                    match parts.iter_mut().find(|it| it.0 == *part) {
                        Some((_, values)) => values.push(*value),
                        None => parts.push((part.clone(), vec![*value])),
                    }
                }
            }
            Outcome::Abstain { reason } => {
                count("abstained");
                answer.notes.push(format!("{name} abstained: {reason}"));
            }
            Outcome::Failed(failure) => {
                count(failure.kind());
                answer.notes.push(format!("{name} {failure}"));
            }
        }
    }
    let metric = |part: &str, value, direction| JudgedMetric {
        name: format!("eval_rewards/{name}/{part}"),
        value,
        direction,
        confidence: None,
    };
    let mut metrics = Vec::new();
    if !values.is_empty() {
        metrics.push(metric("mean", mean(&values), Some(Direction::HigherIsBetter)));
        metrics.push(metric("std", deviation(&values), None));
        let part =
            |(part, values): &(String, Vec<f64>)| metric(part, mean(values), Some(Direction::HigherIsBetter));
        metrics.extend(parts.iter().map(part));
    }
    metrics
        .extend(counts.iter().map(|(kind, count)| metric(&format!("outcomes/{kind}"), *count as f64, None)));
    metrics
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample, as torch's `std`; 0 for a single value.
pub(crate) fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|it| (it - mean).powi(2)).sum();
    if values.len() < 2 { 0.0 } else { (squares / (values.len() - 1) as f64).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_data::{Failure, Finish, Score};

    #[test]
    fn outcomes_that_are_no_scores_are_counted_and_left_out_of_the_mean() {
        let score = |value| Outcome::Ok(Score { value, components: vec![("part".into(), value / 2.0)] });
        let trap = Outcome::Failed(Failure::Trap { message: "unreachable".into() });
        let abstain = Outcome::Abstain { reason: "no column".into() };
        let outcomes = [score(1.0), trap.clone(), score(0.0), abstain, trap];
        let answer = JudgedAnswer {
            question: 0,
            prompt: String::new(),
            reference: None,
            answer: Candidate { text: String::new(), token_count: 0, finish: Finish::Stop },
            scores: Vec::new(),
            values: Vec::new(),
            notes: Vec::new(),
        };
        let mut answers = vec![answer; 5];
        let metrics = reward_metrics("r", &outcomes, &mut answers);
        let told: Vec<String> = metrics.iter().map(|it| format!("{} {:.4}", it.name, it.value)).collect();
        assert_eq!(
            told,
            [
                "eval_rewards/r/mean 0.5000",
                "eval_rewards/r/std 0.7071",
                "eval_rewards/r/part 0.2500",
                "eval_rewards/r/outcomes/trap 2.0000",
                "eval_rewards/r/outcomes/abstained 1.0000"
            ]
        );
        assert_eq!(answers[1].notes, ["r trapped: unreachable"]);
        assert!(answers[1].scores.is_empty());
    }
}
