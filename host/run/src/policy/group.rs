//! Group-relative objectives: a completion's score, held against those of its group, is the advantage of all its tokens.

use fthost_data::Batch;
use fthost_engine::objectives::GrpoConfig;
use fthost_engine::objectives::grpo::{GroupTotals, group_advantages};
use fthost_engine::parallel::Ranks;
use fthost_engine::train::{PolicyBatch, StepConfig, StepMetrics, TrainState, policy_step};

use super::{Sampled, Source};
use crate::error::Result;

/// The objective.
pub(super) struct GroupRelative<'a> {
    pub(super) objective: &'a GrpoConfig,
}

/// What one optimizer step learns from.
pub(crate) struct GroupStep {
    micro_batches: Vec<PolicyBatch>,
    totals: GroupTotals,
    /// The first update after its rollout.
    is_first: bool,
}

/// A completion that is learned from.
struct Judged {
    sampled: Sampled,
    advantage: f32,
}

impl GroupRelative<'_> {
    /// The optimizer steps of a rollout whose groups have `sizes`.
    pub(super) fn steps(
        &self,
        source: &Source<'_>,
        ranks: &Ranks,
        sampled: Vec<Sampled>,
        sizes: &[usize],
        figures: &mut Vec<(String, f64)>,
    ) -> Result<Vec<GroupStep>> {
        let judged = self.judged(source, ranks, sampled, sizes, figures)?;
        source.cut(&judged).map(|(step, is_first)| self.group_step(source, ranks, step, is_first)).collect()
    }

    /// The completions that are learned from, in order, with their advantages.
    fn judged(
        &self,
        source: &Source<'_>,
        ranks: &Ranks,
        sampled: Vec<Sampled>,
        sizes: &[usize],
        figures: &mut Vec<(String, f64)>,
    ) -> Result<Vec<Judged>> {
        let overlong = |it: &Sampled| self.objective.overlong.map_or(0.0, |of| of.punishment(it.old.len()));
        let scores: Vec<Option<f32>> =
            sampled.iter().map(|it| it.reward.map(|reward| reward + overlong(it))).collect();
        let in_reward = self.objective.kl_in_reward && self.objective.needs_reference();
        let asked = || source.of_each(ranks, &sampled, |batch| source.reference_logps(batch));
        let reference = in_reward.then(asked).transpose()?;
        let kl: Option<Vec<f32>> = reference.map(|reference| {
            // k1, summed over the tokens of a completion.
            let of_each = sampled.iter().zip(&reference);
            of_each.map(|(it, reference)| it.old.iter().zip(reference).map(|(a, b)| a - b).sum()).collect()
        });
        let found = group_advantages(&scores, sizes, kl.as_deref(), self.objective);
        figures.extend(found.metrics().into_iter().map(|(name, value)| (name.to_string(), value)));
        let judged = sampled.into_iter().zip(found.advantages).zip(scores);
        let kept = judged.filter(|it| it.1.is_some());
        Ok(kept.map(|((sampled, advantage), _)| Judged { sampled, advantage }).collect())
    }

    fn group_step(
        &self,
        source: &Source<'_>,
        ranks: &Ranks,
        judged: &[Judged],
        is_first: bool,
    ) -> Result<GroupStep> {
        let in_loss = self.objective.needs_reference() && !self.objective.kl_in_reward;
        let micro_batch = |group: Vec<usize>| {
            let of_group = || group.iter().map(|&it| &judged[it]);
            let batch = Batch::shared(of_group().map(|it| &it.sampled.sequence));
            PolicyBatch {
                reference: None,
                batch,
                old: of_group().flat_map(|it| it.sampled.old.iter().copied()).collect(),
                advantages: of_group().map(|it| it.advantage).collect(),
            }
        };
        let groups = source.layout(judged.iter().map(|it| &it.sampled));
        let mut micro_batches: Vec<PolicyBatch> = groups.into_iter().map(micro_batch).collect();
        if in_loss {
            let batches = micro_batches.iter().map(|it| &it.batch);
            let said = ranks.each(batches, |_, it| source.reference_logps(it))?;
            micro_batches.iter_mut().zip(said).for_each(|(it, said)| it.reference = Some(said));
        }
        let totals = GroupTotals {
            completions: judged.len(),
            tokens: judged.iter().map(|it| it.sampled.old.len()).sum(),
            micro_batches: micro_batches.len(),
            max_completion_length: source.rollout().max_completion_length,
        };
        Ok(GroupStep { micro_batches, totals, is_first })
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// A loss or gradient that is not finite.
    pub(super) fn step(
        &self,
        state: &mut TrainState,
        step: &GroupStep,
        temperature: f64,
        config: &StepConfig,
    ) -> Result<StepMetrics> {
        let GroupStep { micro_batches, totals, is_first } = step;
        Ok(policy_step(state, micro_batches, totals, self.objective, temperature, *is_first, config)?)
    }
}
