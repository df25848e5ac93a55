//! `[objective.<kind>]`: what is minimised.

use fthost_data::encode::{NO_ANSWER, NO_PAIR, NOT_JUDGED};
use fthost_data::{Content, Example, encode};
use fthost_engine::objectives::{
    CpoConfig, DpoConfig, GrpoConfig, KtoConfig, OrpoConfig, PpoConfig, RewardConfig, SimPoConfig,
};
use fthost_engine::train::PreferenceLoss;
use serde::{Deserialize, Serialize};

/// `[objective.<kind>]`, one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Objective {
    /// Supervised fine-tuning.
    Sft {},
    /// Direct preference optimisation, and the losses that came after it.
    Dpo(DpoConfig),
    /// Odds ratio preference optimisation.
    Orpo(OrpoConfig),
    /// Simple preference optimisation.
    Simpo(SimPoConfig),
    /// Contrastive preference optimisation.
    Cpo(CpoConfig),
    /// Kahneman-Tversky optimisation, from completions that were judged alone.
    Kto(KtoConfig),
    /// A reward model, from pairs.
    Reward(RewardConfig),
    /// Group-relative policy optimisation, and its relatives.
    Grpo(GrpoConfig),
    /// Proximal policy optimisation, with a value model.
    Ppo(PpoConfig),
}

impl Default for Objective {
    fn default() -> Self {
        Self::Sft {}
    }
}

impl Objective {
    /// Its key.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sft {} => "sft",
            Self::Dpo(_) => "dpo",
            Self::Orpo(_) => "orpo",
            Self::Simpo(_) => "simpo",
            Self::Cpo(_) => "cpo",
            Self::Kto(_) => "kto",
            Self::Reward(_) => "reward",
            Self::Grpo(_) => "grpo",
            Self::Ppo(_) => "ppo",
        }
    }

    /// That over preference pairs, where it is one.
    pub fn preference(&self) -> Option<PreferenceLoss> {
        match self {
            Self::Dpo(config) => Some(PreferenceLoss::Dpo(config.clone())),
            Self::Orpo(config) => Some(PreferenceLoss::Orpo(config.clone())),
            Self::Simpo(config) => Some(PreferenceLoss::Simpo(config.clone())),
            Self::Cpo(config) => Some(PreferenceLoss::Cpo(config.clone())),
            Self::Sft {} | Self::Kto(_) | Self::Reward(_) | Self::Grpo(_) | Self::Ppo(_) => None,
        }
    }

    /// Whether a row is a pair.
    pub fn has_pairs(&self) -> bool {
        self.has_margins() || self.preference().is_some()
    }

    /// Whether a pair may say by how much one is better, in its column `margin`.
    pub fn has_margins(&self) -> bool {
        matches!(self, Self::Reward(_))
    }

    /// Whether a row is a completion that was judged alone, or a pair that is taken apart into two.
    pub fn has_labels(&self) -> bool {
        matches!(self, Self::Kto(_))
    }

    /// Whether it holds rows against completions of the other rows of a step: [`fthost_data::mismatched()`].
    pub fn has_mismatched(&self) -> bool {
        matches!(self, Self::Kto(config) if config.needs_divergence())
    }

    /// Whether what a reference says of the rows is computed before the first step.
    pub fn precomputes_reference(&self) -> bool {
        match self {
            Self::Dpo(config) => config.precompute_ref_log_probs,
            Self::Kto(config) => config.precompute_ref_log_probs,
            _ => false,
        }
    }

    /// Whether it learns from completions that the policy samples.
    pub fn samples(&self) -> bool {
        matches!(self, Self::Grpo(_) | Self::Ppo(_))
    }

    /// Why an example is of no shape that can be learned from; `None` where it is.
    pub fn refusal(&self, example: &Example) -> Option<String> {
        let is_pair = matches!(example.content, Content::Preference(_));
        if self.has_labels() {
            return match example.content {
                Content::Preference(_) => None,
                Content::PromptCompletion { .. } => encode::label(&example.columns).err(),
                _ => Some(NOT_JUDGED.to_string()),
            };
        }
        let refused = match (self.samples(), self.has_pairs(), &example.content) {
            (true, ..) => None,
            (_, true, _) => (!is_pair).then_some(NO_PAIR),
            (.., Content::Preference(_) | Content::Prompt(_)) => Some(NO_ANSWER),
            _ => None,
        };
        refused.map(str::to_string)
    }

    /// What a person should see of an example before it is learned from.
    pub fn shown(&self, example: &Example) -> Vec<Content> {
        match (self.samples(), &example.content) {
            (true, Content::PromptCompletion { prompt, .. }) => vec![Content::Prompt(prompt.clone())],
            (_, content) => content.sequences(),
        }
    }

    /// What the model is asked of a held-out example: a completion that is not as it should be is no answer to expect.
    pub(crate) fn asked(&self, example: Example) -> Example {
        match &example.content {
            Content::PromptCompletion { prompt, .. }
                if self.has_labels() && encode::label(&example.columns) == Ok(false) =>
            {
                Example { content: Content::Prompt(prompt.clone()), ..example }
            }
            _ => example,
        }
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Grpo(config) => config.problems(),
            Self::Ppo(config) => config.problems(),
            Self::Kto(config) => config.problems(),
            Self::Reward(config) => config.problems(),
            other => other.preference().map_or_else(Vec::new, |it| it.problems()),
        }
    }
}
