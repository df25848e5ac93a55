//! Rollouts: completions sampled from the policy, scored by the rewards while others still grow.
//!
//! Who is scored when depends on which groups are done first, and that on nothing but the prompts, the policy and the
//! seed; every group is scored by a call of its own, so that a score does not depend on its company.

pub(crate) mod figures;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fthost_data::{Group, Occasion, Outcome, Purpose, RewardTerm, Tokenizer, reward_sum};
use fthost_engine::generate::{Completion, GenerateConfig, generate_groups};
use fthost_engine::models::CausalLm;
use fthost_engine::parallel::Merge;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::completions::CompletionsFormat;
use crate::config::TrainConfig;
use crate::error::Result;
use crate::host_model::EngineModel;
use crate::judge::scored;
use crate::plugins::Plugins;
use crate::questions::Question;
use crate::scores::{RewardScores, Scores};

/// `[rollout]`: how completions are sampled that an objective learns from. Names are TRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    /// Completions of a prompt: its group.
    pub num_generations: usize,
    /// Tokens of a completion at most.
    pub max_completion_length: usize,
    /// Logits are divided by it, when sampling and when log-probabilities are computed again.
    pub temperature: f64,
    /// As [`GenerateConfig::top_k`].
    pub top_k: usize,
    /// As [`GenerateConfig::top_p`].
    pub top_p: f64,
    /// As [`GenerateConfig::min_p`].
    pub min_p: f64,
    /// As [`GenerateConfig::repetition_penalty`].
    pub repetition_penalty: f64,
    /// Texts that end a completion.
    pub stop: Vec<String>,
    /// Completions that grow at one time.
    pub batch_size: usize,
    /// Optimizer steps that share the completions of one rollout.
    pub steps_per_generation: usize,
    /// How often all of them are learned from.
    pub num_iterations: usize,
    /// Leave out completions that were cut off at `max_completion_length`.
    pub mask_truncated_completions: bool,
    /// Steps from one table of completions to the next; 0 is never.
    pub log_completions_every: u64,
    /// What these tables are written as.
    pub log_completions_format: CompletionsFormat,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            num_generations: 8,
            max_completion_length: 256,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            stop: Vec::new(),
            batch_size: 64,
            steps_per_generation: 1,
            num_iterations: 1,
            mask_truncated_completions: false,
            log_completions_every: 10,
            log_completions_format: CompletionsFormat::default(),
        }
    }
}

impl RolloutConfig {
    /// For the generation of the rollout before optimizer step `step` of a run with `seed`; `batch` counts the batches of prompts
    /// that were rolled out for it before.
    pub fn generation(&self, seed: u64, step: u64, batch: u64) -> GenerateConfig {
        let mut hash = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(step.to_le_bytes());
        if batch > 0 {
            hash.update(batch.to_le_bytes());
        }
        let hash = hash.finalize();
        GenerateConfig {
            max_new_tokens: self.max_completion_length,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            stop: self.stop.clone(),
            seed: u64::from_le_bytes(hash[..8].try_into().expect("eight bytes")),
            completions_per_prompt: self.num_generations,
            first_prompt: 0,
        }
    }

    /// Whether completions are shown and written as a table that were sampled after `step` steps.
    pub(crate) fn is_table_due(&self, step: u64) -> bool {
        self.log_completions_every > 0 && step.is_multiple_of(self.log_completions_every)
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let renamed =
            [("max_new_tokens", "max_completion_length"), ("completions_per_prompt", "num_generations")];
        let rename = |it: String| renamed.iter().fold(it, |it, (from, to)| it.replace(from, to));
        let mut problems: Vec<String> = self.generation(0, 0, 0).problems().into_iter().map(rename).collect();
        if self.temperature == 0.0 {
            problems
                .push("`temperature` must be > 0, got `0`: completions of a prompt would all be one".into());
        }
        let counts = [
            ("batch_size", self.batch_size),
            ("steps_per_generation", self.steps_per_generation),
            ("num_iterations", self.num_iterations),
        ];
        problems.extend(
            counts.iter().filter(|it| it.1 == 0).map(|it| format!("`{}` must be > 0, got `0`", it.0)),
        );
        problems
    }

    /// What does not fit `train`, with full keys.
    pub(crate) fn problems_with(&self, train: &TrainConfig) -> Vec<String> {
        let (group, step) = (self.num_generations, train.global_batch_size());
        if group == 0 || (step * self.steps_per_generation).is_multiple_of(group) {
            return Vec::new();
        }
        vec![format!(
            "`rollout.num_generations` = {group} must divide the completions of a rollout, `train.micro_batch_size` * \
             `train.gradient_accumulation_steps` * `rollout.steps_per_generation`{} = {}",
            if train.data_parallel > 1 { " * ranks" } else { "" },
            step * self.steps_per_generation
        )]
    }

    /// Prompts of one rollout.
    pub(crate) fn prompts(&self, train: &TrainConfig) -> usize {
        train.global_batch_size() * self.steps_per_generation / self.num_generations.max(1)
    }
}

/// A prompt with what was sampled for it and what rewards say of that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolledGroup {
    /// As the model reads it.
    pub prompt_ids: Vec<u32>,
    /// As sampled.
    pub completions: Vec<Completion>,
    /// The sum of all rewards by completion; `None` where a reward failed, or all abstained.
    pub rewards: Vec<Option<f64>>,
}

/// Where the time of a rollout went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutTimes {
    /// Until the last completion was done.
    pub generate: Duration,
    /// In rewards.
    pub reward: Duration,
    /// Of that, after the last completion was done: what was not hidden behind generation.
    pub wait: Duration,
}

/// One rollout of a window of prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// In the window's order.
    pub groups: Vec<RolledGroup>,
    /// What rewards were given and what they said, in the window's order.
    pub scores: Scores,
    /// Where the time went.
    pub times: RolloutTimes,
}

impl Rollout {
    /// Adds the groups of a further batch of prompts, which the same rewards scored at the same step.
    pub(crate) fn append(&mut self, other: Self) {
        let Self { groups, scores, times } = other;
        self.groups.extend(groups);
        self.scores.append(scores);
        self.times.generate += times.generate;
        self.times.reward += times.reward;
        self.times.wait += times.wait;
    }
}

/// The groups of further prompts, which another rank has sampled meanwhile.
impl Merge for Rollout {
    fn merge(&mut self, other: Self) {
        let (mine, theirs) = (self.times, other.times);
        self.append(other);
        let longer = |of: fn(&RolloutTimes) -> Duration| of(&mine).max(of(&theirs));
        self.times = RolloutTimes {
            generate: longer(|it| it.generate),
            reward: longer(|it| it.reward),
            wait: longer(|it| it.wait),
        };
    }
}

/// How completions are sampled.
#[derive(Debug, Clone)]
pub struct RolloutSettings<'a> {
    /// With a seed of this rollout alone.
    pub generation: GenerateConfig,
    /// Completions that grow at one time.
    pub batch_size: usize,
    /// Of the policy.
    pub tokenizer: &'a Tokenizer,
    /// Optimizer steps done.
    pub step: u64,
    /// Optimizer steps planned.
    pub steps: u64,
}

impl RolloutSettings<'_> {
    fn occasion(&self) -> Occasion {
        let max_tokens = self.generation.max_new_tokens as u32;
        Occasion { purpose: Purpose::Training, steps: self.steps, max_tokens }
    }
}

/// Samples from `policy` for each of `questions`, which stand beside their rows' positions in the data set, and lets
/// `plugins` score what was sampled.
///
/// # Errors
/// A prompt that can't be continued, and a reward that fails where that stops the run.
pub(crate) fn roll_out(
    policy: &CausalLm,
    plugins: &mut Plugins,
    questions: &[(u64, &Question)],
    settings: &RolloutSettings<'_>,
) -> Result<Rollout> {
    let prompts: Vec<Vec<u32>> = questions.iter().map(|it| it.1.prompt_ids.clone()).collect();
    let mut completions: Vec<Vec<Completion>> = vec![Vec::new(); questions.len()];
    let (sender, receiver) = channel::<(usize, Group)>();
    let rewards = &mut plugins.rewards;
    plugins.asked.take();
    let began = Instant::now();
    let (generated, scored) = std::thread::scope(|scope| {
        let scoring = scope.spawn(move || -> Result<(Vec<(usize, Scored)>, Duration)> {
            let (mut all, mut spent) = (Vec::new(), Duration::ZERO);
            while let Ok((index, group)) = receiver.recv() {
                let began = Instant::now();
                let group = std::slice::from_ref(&group);
                let of_rewards = rewards.iter_mut().map(|it| Ok(scored(it.as_mut(), group)?.remove(0)));
                all.push((index, of_rewards.collect::<Result<_>>()?));
                spent += began.elapsed();
            }
            Ok((all, spent))
        });
        let mut done = |index: usize, sampled: Vec<Completion>| {
            // Where scoring has ended with an error, nobody listens any more.
            let _ = sender.send((index, group(questions[index], &sampled, settings)));
            completions[index] = sampled;
        };
        let RolloutSettings { generation, batch_size, tokenizer, .. } = settings;
        let generated = generate_groups(policy, tokenizer, &prompts, generation, *batch_size, &mut done);
        let generated = generated.map(|()| began.elapsed());
        drop(sender);
        (generated, scoring.join())
    });
    let scored = scored.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let generate = generated?;
    let (mut scored, reward) = scored?;
    let wait = began.elapsed().saturating_sub(generate);
    scored.sort_by_key(|it| it.0);
    let outcomes: Vec<Scored> = scored.into_iter().map(|it| it.1).collect();
    let mut scores = recorded(plugins, questions, &completions, &outcomes, settings);
    let groups = rolled(plugins, prompts, completions, &outcomes);
    scores.sums = groups.iter().map(|it| it.rewards.clone()).collect();
    Ok(Rollout { groups, scores, times: RolloutTimes { generate, reward, wait } })
}

/// The outcomes of a group, by reward, then by completion.
type Scored = Vec<Vec<Outcome>>;

fn group((id, question): (u64, &Question), sampled: &[Completion], settings: &RolloutSettings<'_>) -> Group {
    Group {
        id,
        step: settings.step,
        occasion: settings.occasion(),
        prompt: question.prompt.clone(),
        completions: sampled.iter().cloned().map(EngineModel::candidate).collect(),
        columns: question.columns.clone(),
    }
}

fn rolled(
    plugins: &Plugins,
    prompts: Vec<Vec<u32>>,
    completions: Vec<Vec<Completion>>,
    outcomes: &[Scored],
) -> Vec<RolledGroup> {
    let terms: Vec<RewardTerm> = plugins.rewards.iter().map(|it| plugins.term(&it.identity().name)).collect();
    let sum = |of_group: &Scored, completion: usize| {
        let of_completion = terms.iter().zip(of_group).map(|(term, outcomes)| (term, &outcomes[completion]));
        reward_sum(of_completion).ok().flatten()
    };
    let group = |((prompt_ids, completions), outcomes): ((Vec<u32>, Vec<Completion>), &Scored)| RolledGroup {
        prompt_ids,
        rewards: (0..completions.len()).map(|it| sum(outcomes, it)).collect(),
        completions,
    };
    prompts.into_iter().zip(completions).zip(outcomes).map(group).collect()
}

fn recorded(
    plugins: &Plugins,
    questions: &[(u64, &Question)],
    completions: &[Vec<Completion>],
    outcomes: &[Scored],
    settings: &RolloutSettings<'_>,
) -> Scores {
    let groups: Vec<Group> = questions
        .iter()
        .zip(completions)
        .map(|(question, sampled)| group(*question, sampled, settings))
        .collect();
    let mut scores = Scores::of_rollout(settings.step, &groups);
    for (index, reward) in plugins.rewards.iter().enumerate() {
        scores.rewards.push(RewardScores {
            plugin: reward.identity().clone(),
            outcomes: outcomes.iter().map(|it| it[index].clone()).collect(),
        });
    }
    scores.asked = plugins.asked.take();
    scores
}
