//! Methods that learn from rows that are given: what a step minimises, and what held-out rows say.

use std::borrow::Cow;

use fthost_engine::models::CausalLm;
use fthost_engine::objectives::{KtoConfig, RewardConfig};
use fthost_engine::parallel::Ranks;
use fthost_engine::train::{
    KtoReference, PreferenceLoss, StepConfig, StepMetrics, TrainState, evaluate, evaluate_kto,
    evaluate_preferences, evaluate_rewards, kto_divergence, kto_step, preference_step, reference_logps,
    reward_step, step,
};

use crate::config::{Objective, RunConfig};
use crate::error::Result;
use crate::reference::Reference;
use crate::rows::Laid;

/// One of them, with what it needs besides rows.
pub(crate) enum Method {
    Sft,
    Preference {
        loss: PreferenceLoss,
        reference: Option<Box<Reference>>,
    },
    /// Of completions that were judged alone.
    Kto {
        objective: KtoConfig,
        reference: Option<Box<Reference>>,
    },
    Reward(RewardConfig),
    /// It learns from completions that are sampled: rewards and evaluators say how good they are.
    Rollouts,
}

impl Method {
    /// That of `config`'s objective. `reference` is the model before training; it is kept where it will be asked, not where
    /// all that it says is `known` already.
    pub(crate) fn of(config: &RunConfig, reference: &CausalLm, known: bool) -> Self {
        if let Objective::Reward(objective) = &config.objective {
            return Self::Reward(objective.clone());
        }
        if let Objective::Kto(objective) = &config.objective {
            let asked = !known || objective.needs_divergence();
            let reference = asked.then(|| Box::new(Reference::new(reference.clone())));
            return Self::Kto { objective: objective.clone(), reference };
        }
        match config.objective.preference() {
            Some(loss) => {
                let asked = loss.needs_reference() && !known;
                let reference = asked.then(|| Box::new(Reference::new(reference.clone())));
                Self::Preference { loss, reference }
            }
            None if config.objective.samples() => Self::Rollouts,
            None => Self::Sft,
        }
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// What ends a step.
    pub(crate) fn step(
        &self,
        state: &mut TrainState,
        laid: &Laid,
        config: &StepConfig,
    ) -> Result<StepMetrics> {
        let batches = &laid.batches[..];
        match self {
            Self::Sft | Self::Rollouts => Ok(step(state, batches, config)?),
            Self::Reward(objective) => Ok(reward_step(state, batches, objective, config)?),
            Self::Preference { loss, reference } => {
                let references = said_of(laid, reference.as_deref(), &state.ranks)?;
                Ok(preference_step(state, batches, &references, loss, config)?)
            }
            Self::Kto { objective, reference } => {
                let (logps, kl) = held_against(state, laid, objective, reference.as_deref())?;
                let reference = KtoReference { logps: &logps, kl };
                Ok(kto_step(state, batches, reference, objective, config)?)
            }
        }
    }

    /// Figures over held-out rows, under names with `eval_` before them; `None` where nothing is held out.
    ///
    /// # Errors
    /// A loss that is not finite.
    pub(crate) fn evaluate(&self, state: &TrainState, laid: &Laid) -> Result<Option<Vec<(String, f64)>>> {
        let batches = &laid.batches[..];
        let figures = match self {
            Self::Sft => evaluate(&state.model, batches, state.step, &state.ranks)?.map(|it| {
                let named = [
                    ("loss", it.eval_loss),
                    ("entropy", it.eval_entropy),
                    ("mean_token_accuracy", it.eval_mean_token_accuracy),
                ];
                named.map(|(name, value)| (name.to_string(), value)).to_vec()
            }),
            Self::Preference { loss, reference } => {
                let references = said_of(laid, reference.as_deref(), &state.ranks)?;
                evaluate_preferences(&state.model, batches, &references, loss, &state.ranks)?
            }
            Self::Kto { objective, reference } => {
                let (logps, kl) = held_against(state, laid, objective, reference.as_deref())?;
                let known = KtoReference { logps: &logps, kl };
                evaluate_kto(&state.model, batches, known, objective, &state.ranks)?
            }
            Self::Reward(objective) => evaluate_rewards(&state.model, batches, objective, &state.ranks)?,
            Self::Rollouts => (!batches.is_empty()).then(Vec::new),
        };
        let named =
            |all: Vec<(String, f64)>| all.into_iter().map(|(name, value)| (format!("eval_{name}"), value));
        Ok(figures.map(|all| named(all).collect()))
    }
}

/// Log-probabilities of each micro-batch's supervised tokens.
type Said<'a> = Cow<'a, [Vec<f32>]>;

/// What the reference says of each micro-batch: as it is known, or asked now; nothing where there is none.
fn said_of<'a>(laid: &'a Laid, reference: Option<&Reference>, ranks: &Ranks) -> Result<Said<'a>> {
    Ok(match (&laid.references, reference) {
        (Some(known), _) => Cow::Borrowed(known),
        (None, Some(reference)) => Cow::Owned(reference.logps(&laid.batches, ranks)?),
        (None, None) => Cow::Borrowed(&[]),
    })
}

/// What the reference says of rows that were judged alone, and how far the policy is from it, where that is asked.
fn held_against<'a>(
    state: &TrainState,
    laid: &'a Laid,
    objective: &KtoConfig,
    reference: Option<&Reference>,
) -> Result<(Said<'a>, Option<f32>)> {
    let divergence = |reference: &Reference| -> Result<f32> {
        let said = reference.logps(&laid.mismatched, &state.ranks)?;
        let of_policy = state.ranks.each(&laid.mismatched, |_, it| reference_logps(&state.model, it))?;
        Ok(kto_divergence(&laid.mismatched, &of_policy, &said))
    };
    let kl = reference.filter(|_| objective.needs_divergence()).map(divergence).transpose()?;
    Ok((said_of(laid, reference, &state.ranks)?, kl))
}
