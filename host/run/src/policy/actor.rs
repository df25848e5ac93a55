//! Proximal policy optimisation: a value model says what each state is worth, and a token's advantage is what came of it
//! beyond that.

use fthost_data::{Batch, Finish};
use fthost_engine::checkpoint::training::Penalty;
use fthost_engine::objectives::ppo::{
    RolloutStatistics, advantages, kl_is_too_large, shape_scores, token_rewards,
};
use fthost_engine::objectives::segments::parts;
use fthost_engine::objectives::statistics::explained_variance;
use fthost_engine::objectives::{KlController, PpoConfig};
use fthost_engine::train::{PpoBatch, StepConfig, TrainState, ppo_step, state_values};

use super::{Learned, Sampled, Source};
use crate::error::Result;

/// The objective, and the penalty as it is now.
pub(super) struct ActorCritic<'a> {
    objective: &'a PpoConfig,
    controller: KlController,
}

/// What one optimizer step learns from.
pub(crate) struct ActorStep {
    micro_batches: Vec<PpoBatch>,
    /// The first update after its rollout.
    is_first: bool,
}

/// A completion that is learned from, with what is known of each of its tokens.
struct Judged {
    sampled: Sampled,
    advantages: Vec<f32>,
    values: Vec<f32>,
    returns: Vec<f32>,
}

impl<'a> ActorCritic<'a> {
    /// With the penalty that a checkpoint kept, where there is one.
    pub(super) fn new(objective: &'a PpoConfig, penalty: Option<Penalty>) -> Self {
        let mut controller = objective.kl_controller();
        if let Some(Penalty { coef }) = penalty {
            controller.coef = coef;
        }
        Self { objective, controller }
    }

    /// For a checkpoint; `None` where the penalty stays as the run file has it.
    pub(super) fn penalty(&self) -> Option<Penalty> {
        self.controller.adaptive.as_ref().map(|_| Penalty { coef: self.controller.coef })
    }

    /// The optimizer steps of a rollout; the penalty's coefficient is brought up to date for the next one.
    pub(super) fn steps(
        &mut self,
        source: &Source<'_>,
        state: &TrainState,
        sampled: Vec<Sampled>,
        figures: &mut Vec<(String, f64)>,
    ) -> Result<Vec<ActorStep>> {
        let kept: Vec<Sampled> = sampled.into_iter().filter(|it| it.reward.is_some()).collect();
        let judged = self.judged(source, state, kept, figures)?;
        let micro_batch = |step: &[Judged], group: Vec<usize>| {
            let of_group = || group.iter().map(|&it| &step[it]);
            let tokens = |of: fn(&Judged) -> &Vec<f32>| of_group().flat_map(of).copied().collect();
            PpoBatch {
                batch: Batch::shared(of_group().map(|it| &it.sampled.sequence)),
                old: tokens(|it| &it.sampled.old),
                advantages: tokens(|it| &it.advantages),
                values: tokens(|it| &it.values),
                returns: tokens(|it| &it.returns),
            }
        };
        let steps = source.cut(&judged).map(|(step, is_first)| {
            let groups = source.layout(step.iter().map(|it| &it.sampled));
            let micro_batches = groups.into_iter().map(|group| micro_batch(step, group)).collect();
            ActorStep { micro_batches, is_first }
        });
        Ok(steps.collect())
    }

    fn judged(
        &mut self,
        source: &Source<'_>,
        state: &TrainState,
        sampled: Vec<Sampled>,
        figures: &mut Vec<(String, f64)>,
    ) -> Result<Vec<Judged>> {
        let objective = self.objective;
        let lengths: Vec<usize> = sampled.iter().map(|it| it.old.len()).collect();
        let ended: Vec<bool> = sampled.iter().map(|it| it.finish == Finish::Stop).collect();
        let scores: Vec<f32> = sampled.iter().filter_map(|it| it.reward).collect();
        let scores = shape_scores(&scores, &ended, objective);
        let old: Vec<f32> = sampled.iter().flat_map(|it| it.old.iter().copied()).collect();
        let ranks = &state.ranks;
        let asked = || source.of_each(ranks, &sampled, |batch| source.reference_logps(batch));
        let reference = objective.needs_reference().then(asked).transpose()?.map(|it| it.concat());
        let values = source.of_each(ranks, &sampled, |batch| state_values(state, batch))?.concat();
        let (coef, estimator) = (self.controller.coef, objective.kl_estimator);
        let earned = token_rewards(&old, reference.as_deref(), &lengths, &scores, coef, estimator);
        let found = advantages(&earned.rewards, &values, &lengths, objective);

        let told = RolloutStatistics::of(&earned, &old, &lengths, &scores, coef);
        self.controller.update(told.kl, sampled.len());
        figures.extend(told.metrics().map(|(name, value)| (name.to_string(), value)));
        figures.push(("objective/kl_coef".to_string(), coef));
        figures.push(("val/num_eos_tokens".to_string(), ended.iter().filter(|it| **it).count() as f64));
        let explained = explained_variance(&values, &found.returns);
        figures.extend(explained.map(|it| ("val/explained_variance".to_string(), it)));

        let each = |of: &[f32]| -> Vec<Vec<f32>> { parts(of, &lengths).map(<[f32]>::to_vec).collect() };
        let (advantages, values, returns) = (each(&found.advantages), each(&values), each(&found.returns));
        let judged = sampled.into_iter().zip(advantages).zip(values).zip(returns);
        let judged = judged.map(|(((sampled, advantages), values), returns)| Judged {
            sampled,
            advantages,
            values,
            returns,
        });
        Ok(judged.collect())
    }

    /// One optimizer step; it is enough where the policy has moved too far from the one that sampled.
    ///
    /// # Errors
    /// A loss or gradient that is not finite.
    pub(super) fn step(
        &self,
        state: &mut TrainState,
        step: &ActorStep,
        temperature: f64,
        config: &StepConfig,
    ) -> Result<Learned> {
        let ActorStep { micro_batches, is_first } = step;
        let metrics = ppo_step(state, micro_batches, self.objective, temperature, *is_first, config)?;
        let approxkl = metrics.figure("policy/approxkl_avg").unwrap_or(0.0);
        Ok(Learned { is_enough: kl_is_too_large(approxkl, self.objective.target_kl), metrics })
    }
}
