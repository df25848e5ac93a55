//! Learning from completions that the policy samples: rollouts as micro-batches with advantages.

use std::sync::Arc;

use fthost_data::{Batch, Finish, IGNORED, Sequence, Tokenizer};
use fthost_engine::device::DeviceKind;
use fthost_engine::generate::Completion;
use fthost_engine::models::CausalLm;
use fthost_engine::objectives::grpo::{GroupTotals, group_advantages};
use fthost_engine::objectives::{GrpoConfig, segments};
use fthost_engine::train::policy::completion_logps;
use fthost_engine::train::{PolicyBatch, StepConfig, StepMetrics, TrainState, policy_step};

use crate::config::{Objective, RunConfig};
use crate::error::{Result, RunError};
use crate::plugins::{Lent, Plugins};
use crate::questions::Question;
use crate::rollout::figures::{completion_figures, reward_figures};
use crate::rollout::{RolledGroup, Rollout, RolloutConfig, RolloutSettings, RolloutTimes, roll_out};
use crate::scores::Scores;

/// The objective, and how completions for it are sampled.
pub(crate) struct Policy<'a> {
    config: &'a RunConfig,
    objective: &'a GrpoConfig,
    tokenizer: &'a Tokenizer,
    device: DeviceKind,
    reference: CausalLm,
}

/// What one optimizer step learns from.
pub(crate) struct MiniBatch {
    micro_batches: Vec<PolicyBatch>,
    totals: GroupTotals,
    /// The first update after its rollout.
    is_first: bool,
}

/// A rollout, cut into optimizer steps.
pub(crate) struct Rolled {
    pub(crate) mini_batches: Vec<MiniBatch>,
    /// TRL's names.
    pub(crate) figures: Vec<(String, f64)>,
    /// What was sampled, and what rewards said.
    pub(crate) scores: Scores,
    pub(crate) times: RolloutTimes,
}

/// A completion that is learned from.
struct Sampled {
    sequence: Sequence,
    old: Vec<f32>,
    advantage: f32,
}

impl<'a> Policy<'a> {
    /// That of `config`, where its objective samples. `reference` is the model before training.
    pub(crate) fn of(
        config: &'a RunConfig,
        tokenizer: &'a Tokenizer,
        device: DeviceKind,
        reference: &CausalLm,
    ) -> Option<Self> {
        let Objective::Grpo(objective) = &config.objective else { return None };
        Some(Self { config, objective, tokenizer, device, reference: reference.clone() })
    }

    /// Prompts of one rollout.
    pub(crate) fn prompts(&self) -> usize {
        self.rollout().prompts(&self.config.train)
    }

    fn rollout(&self) -> &RolloutConfig {
        &self.config.rollout
    }

    /// Samples for `questions`, which stand beside their rows' positions in the data set, lets rewards score, and cuts what
    /// is learned from into optimizer steps.
    ///
    /// # Errors
    /// A prompt that can't be continued, a reward that fails where that stops the run, and a rollout of which nothing was
    /// scored.
    pub(crate) fn roll_out(
        &self,
        state: &TrainState,
        plugins: &mut Plugins,
        questions: &[(u64, &Question)],
    ) -> Result<Rolled> {
        let config = self.rollout();
        let settings = RolloutSettings {
            generation: config.generation(self.config.train.seed, state.step),
            batch_size: config.batch_size,
            tokenizer: self.tokenizer,
            step: state.step,
        };
        let lease = plugins.lend(&Lent {
            run: &state.model,
            reference: Some(self.reference.clone()),
            tokenizer: self.tokenizer,
            batch_size: config.batch_size,
            judges: &self.config.judges,
            device: self.device,
        })?;
        let Rollout { groups, scores, times } = roll_out(&state.model, plugins, questions, &settings)?;
        drop(lease);
        scores.write(&self.config.output.dir)?;
        let mut figures = completion_figures(&groups);
        figures.extend(reward_figures(&scores));
        let sampled = self.learned(questions, &groups, &mut figures);
        if sampled.is_empty() {
            let outcomes = scores.outcome_counts();
            return Err(RunError::NothingScored { step: state.step + 1, outcomes });
        }
        Ok(Rolled { mini_batches: self.mini_batches(&sampled), figures, scores, times })
    }

    /// The completions that are learned from, in order, with their advantages.
    fn learned(
        &self,
        questions: &[(u64, &Question)],
        groups: &[RolledGroup],
        figures: &mut Vec<(String, f64)>,
    ) -> Vec<Sampled> {
        let mut sampled = Vec::new();
        for ((_, question), group) in questions.iter().zip(groups) {
            sampled.extend(group.completions.iter().map(|it| sampled_of(question, group, it)));
        }
        let mut scores: Vec<Option<f32>> = Vec::new();
        for (completion, reward) in groups.iter().flat_map(|it| it.completions.iter().zip(&it.rewards)) {
            let masked = self.rollout().mask_truncated_completions && completion.finish == Finish::Length;
            let length = completion.token_ids.len() + usize::from(completion.end.is_some());
            let overlong = self.objective.overlong.map_or(0.0, |it| it.punishment(length));
            scores.push(reward.filter(|_| !masked).map(|it| it as f32 + overlong));
        }
        let in_reward = self.objective.kl_in_reward && self.objective.needs_reference();
        let kl: Option<Vec<f32>> = in_reward.then(|| self.divergences(&sampled));
        let sizes: Vec<usize> = groups.iter().map(|it| it.completions.len()).collect();
        let found = group_advantages(&scores, &sizes, kl.as_deref(), self.objective);
        figures.extend(found.metrics().into_iter().map(|(name, value)| (name.to_string(), value)));
        let mut kept = Vec::with_capacity(sampled.len());
        for ((mut it, advantage), score) in sampled.into_iter().zip(found.advantages).zip(scores) {
            if score.is_some() {
                it.advantage = advantage;
                kept.push(it);
            }
        }
        kept
    }

    /// Each completion's divergence from the reference, k1 summed over its tokens.
    fn divergences(&self, sampled: &[Sampled]) -> Vec<f32> {
        let mut found = vec![0.0; sampled.len()];
        for (completions, batch) in self.laid_out(sampled) {
            let reference = self.reference_logps(&batch);
            let lengths = batch.supervised_tokens();
            for (completion, reference) in completions.into_iter().zip(segments::parts(&reference, &lengths))
            {
                let old = &sampled[completion].old;
                found[completion] = old.iter().zip(reference).map(|(old, reference)| old - reference).sum();
            }
        }
        found
    }

    /// The completions as micro-batches, each with the positions of its own.
    fn laid_out(&self, sampled: &[Sampled]) -> Vec<(Vec<usize>, Batch)> {
        let rows: Vec<&Sequence> = sampled.iter().map(|it| &it.sequence).collect();
        let batch = |group: &[usize]| Batch::shared(group.iter().map(|&it| rows[it]));
        let groups = self.config.layout().groups(&rows).into_iter();
        groups.map(|group| (group.clone(), batch(&group))).collect()
    }

    fn reference_logps(&self, batch: &Batch) -> Vec<f32> {
        completion_logps(&self.reference, batch, self.rollout().temperature)
    }

    fn mini_batches(&self, sampled: &[Sampled]) -> Vec<MiniBatch> {
        let mut all = Vec::new();
        for iteration in 0..self.rollout().num_iterations {
            for (index, step) in sampled.chunks(self.config.train.global_batch_size()).enumerate() {
                all.push(self.mini_batch(step, iteration == 0 && index == 0));
            }
        }
        all
    }

    fn mini_batch(&self, sampled: &[Sampled], is_first: bool) -> MiniBatch {
        let in_loss = self.objective.needs_reference() && !self.objective.kl_in_reward;
        let micro_batch = |(group, batch): (Vec<usize>, Batch)| {
            let of_group = || group.iter().map(|&it| &sampled[it]);
            PolicyBatch {
                reference: in_loss.then(|| self.reference_logps(&batch)),
                batch,
                old: of_group().flat_map(|it| it.old.iter().copied()).collect(),
                advantages: of_group().map(|it| it.advantage).collect(),
            }
        };
        let micro_batches: Vec<PolicyBatch> = self.laid_out(sampled).into_iter().map(micro_batch).collect();
        let totals = GroupTotals {
            completions: sampled.len(),
            tokens: sampled.iter().map(|it| it.old.len()).sum(),
            micro_batches: micro_batches.len(),
            max_completion_length: self.rollout().max_completion_length,
        };
        MiniBatch { micro_batches, totals, is_first }
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// A loss or gradient that is not finite.
    pub(crate) fn step(
        &self,
        state: &mut TrainState,
        batch: &MiniBatch,
        config: &StepConfig,
    ) -> Result<StepMetrics> {
        let temperature = self.rollout().temperature;
        let MiniBatch { micro_batches, totals, is_first } = batch;
        Ok(policy_step(state, micro_batches, totals, self.objective, temperature, *is_first, config)?)
    }
}

/// Prompt and completion, its end with it, as one row.
fn sampled_of(question: &Question, group: &RolledGroup, completion: &Completion) -> Sampled {
    let mut ids = completion.token_ids.clone();
    let mut old = completion.token_logps.clone();
    if let Some(end) = completion.end {
        ids.push(end.id);
        old.push(end.logp);
    }
    let mut labels = vec![IGNORED; group.prompt_ids.len()];
    labels.extend(ids.iter().map(|it| i64::from(*it)));
    let input_ids = [&group.prompt_ids[..], &ids].concat();
    let origin = Arc::new(question.origin.clone());
    Sampled { sequence: Sequence { input_ids, labels, cut: 0, origin }, old, advantage: 0.0 }
}
