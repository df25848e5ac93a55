//! The losses over pairs that TRL's `DPOTrainer` knows, each `[P]` before any mean.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, relu, sigmoid};
use serde::{Deserialize, Serialize};

use super::DpoConfig;
use crate::objectives::preference::{PairLengths, PairLogps, smoothed_logistic};

/// Names are TRL's. `m` is `beta` times the difference of the pair's scores, which are the log-ratios of policy to
/// reference unless `f_divergence_type` says otherwise; `c` and `r` are `beta` times the log-ratios; `s` is the label smoothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum DpoLossType {
    /// `-(1-s) log sigmoid(m) - s log sigmoid(-m)`: DPO, <https://arxiv.org/abs/2305.18290>, eq. 7, smoothed as in
    /// <https://ericmitchell.ai/cdpo.pdf>. TRL 1.16 is the case `s = 0`.
    #[default]
    Sigmoid,
    /// `max(0, 1 - m)`: <https://arxiv.org/abs/2309.06657>, after SLiC.
    Hinge,
    /// `(d - 1 / (2 beta))^2`, `d` the difference of the scores a token: <https://arxiv.org/abs/2310.12036>, eq. 17, where
    /// scores are not divided by lengths; TRL does so, on its authors' word.
    Ipo,
    /// The divergence of `(sigmoid(m), sigmoid(-m))` from `(1-s, s)`: EXO, <https://arxiv.org/abs/2402.00856>, eq. 16.
    ExoPair,
    /// `-log sigmoid(c) - log sigmoid(-c) / 2 - log sigmoid(-r) / 2`: NCA, <https://arxiv.org/abs/2402.05369>.
    NcaPair,
    /// `(-(1-s) log sigmoid(m) + s log sigmoid(-m)) / (1 - 2 s)`: <https://arxiv.org/abs/2403.00409>.
    Robust,
    /// `-log sigmoid(c) - log sigmoid(-r)`: BCO without the shift, <https://arxiv.org/abs/2404.04656>.
    BcoPair,
    /// `(c / beta - 1 / (2 beta))^2 + (r / beta + 1 / (2 beta))^2`: SPPO with certain preferences,
    /// <https://arxiv.org/abs/2405.00675>, eq. 4.7.
    SppoHard,
    /// As `sigmoid`, with the policy's and the reference's differences each sorted first: <https://arxiv.org/abs/2406.05882>.
    Aot,
    /// The same with the chosen and the rejected log-ratios sorted, so that pairs need not belong together.
    AotUnpaired,
    /// `1 - sigmoid(c) + sigmoid(r)`: <https://arxiv.org/abs/2408.06266>, eq. 7, for completions better than the model's.
    ApoZero,
    /// `sigmoid(c) + 1 - sigmoid(c - r)`: the same, eq. 8, for completions worse than the model's.
    ApoDown,
    /// `-(1-g) log sigmoid(m) + g exp(-m)` with `g = sigmoid(m / tau)`: <https://arxiv.org/abs/2406.08414>, eq. 5.
    Discopop,
    /// The chosen completions' negative log-likelihood, the mean over their tokens.
    Sft,
    /// `sigmoid` with scores a token: length-normalised DPO as in <https://arxiv.org/abs/2411.15124>. TRL 1.16 is `s = 0`.
    SigmoidNorm,
}

/// What the losses are made of, `[P]` each.
pub(super) struct Terms<'a> {
    config: &'a DpoConfig,
    /// Log-ratios of policy to reference.
    pub chosen: Tensor<1>,
    pub rejected: Tensor<1>,
    scores: PairLogps,
    /// Differences of chosen and rejected.
    policy_difference: Tensor<1>,
    reference_difference: Tensor<1>,
    lengths: &'a PairLengths<'a>,
}

impl<'a> Terms<'a> {
    pub fn new(
        policy: &PairLogps,
        reference: &PairLogps,
        lengths: &'a PairLengths<'a>,
        config: &'a DpoConfig,
    ) -> Self {
        // A reference is a constant, even where it comes with a graph.
        let (ref_chosen, ref_rejected) =
            (reference.chosen.clone().inner(), reference.rejected.clone().inner());
        let chosen = policy.chosen.clone() - ref_chosen.clone();
        let rejected = policy.rejected.clone() - ref_rejected.clone();
        let (divergence, alpha) = (config.f_divergence_type, config.f_alpha_divergence_coef);
        Self {
            scores: PairLogps {
                chosen: divergence.scores(chosen.clone(), alpha),
                rejected: divergence.scores(rejected.clone(), alpha),
            },
            chosen,
            rejected,
            policy_difference: policy.chosen.clone() - policy.rejected.clone(),
            reference_difference: ref_chosen - ref_rejected,
            config,
            lengths,
        }
    }

    /// `m`.
    fn margins(&self) -> Tensor<1> {
        (self.scores.chosen.clone() - self.scores.rejected.clone()).mul_scalar(self.config.beta)
    }

    /// Difference of the scores a token.
    fn difference_per_token(&self) -> Tensor<1> {
        let averages = self.scores.averages(self.lengths);
        averages.chosen - averages.rejected
    }

    /// `c` and `r`.
    fn rewards(&self) -> (Tensor<1>, Tensor<1>) {
        let beta = self.config.beta;
        (self.chosen.clone().mul_scalar(beta), self.rejected.clone().mul_scalar(beta))
    }
}

impl DpoLossType {
    /// As a run file writes it.
    pub(super) fn name(self) -> String {
        let value = serde_json::to_value(self).expect("a name is a string");
        value.as_str().unwrap_or_default().to_string()
    }

    /// Whether the label smoothing changes it.
    pub(super) fn is_smoothed(self) -> bool {
        use DpoLossType::{Aot, AotUnpaired, ExoPair, Robust, Sigmoid, SigmoidNorm};
        matches!(self, Sigmoid | SigmoidNorm | ExoPair | Robust | Aot | AotUnpaired)
    }

    /// Whether scores of another divergence have a meaning in it; the list is TRL's.
    pub(super) fn takes_divergence(self) -> bool {
        use DpoLossType::{Discopop, ExoPair, Hinge, Ipo, Robust, Sft, Sigmoid, SigmoidNorm};
        matches!(self, Sigmoid | SigmoidNorm | Hinge | Ipo | ExoPair | Robust | Discopop | Sft)
    }

    /// Losses of the pairs, `[P]`.
    pub(super) fn of_pairs(self, it: &Terms) -> Tensor<1> {
        let DpoConfig { beta, label_smoothing, discopop_tau, .. } = *it.config;
        match self {
            Self::Sigmoid => smoothed_logistic(it.margins(), label_smoothing),
            Self::SigmoidNorm => {
                smoothed_logistic(it.difference_per_token().mul_scalar(beta), label_smoothing)
            }
            Self::Hinge => relu(it.margins().neg().add_scalar(1.0)),
            Self::Ipo => it.difference_per_token().sub_scalar(0.5 / beta).square(),
            Self::ExoPair => exo(it.margins(), label_smoothing),
            Self::NcaPair => {
                let (chosen, rejected) = it.rewards();
                let others = log_sigmoid(chosen.clone().neg()) + log_sigmoid(rejected.neg());
                (log_sigmoid(chosen) + others.mul_scalar(0.5)).neg()
            }
            Self::Robust => {
                let kept = log_sigmoid(it.margins()).mul_scalar(label_smoothing - 1.0);
                let flipped = log_sigmoid(it.margins().neg()).mul_scalar(label_smoothing);
                (kept + flipped).div_scalar(1.0 - 2.0 * label_smoothing)
            }
            Self::BcoPair => {
                let (chosen, rejected) = it.rewards();
                (log_sigmoid(chosen) + log_sigmoid(rejected.neg())).neg()
            }
            Self::SppoHard => {
                let winner = it.chosen.clone().sub_scalar(0.5 / beta).square();
                winner + it.rejected.clone().add_scalar(0.5 / beta).square()
            }
            Self::Aot => {
                let difference = sorted(&it.policy_difference) - sorted(&it.reference_difference);
                smoothed_logistic(difference.mul_scalar(beta), label_smoothing)
            }
            Self::AotUnpaired => {
                let difference = sorted(&it.chosen) - sorted(&it.rejected);
                smoothed_logistic(difference.mul_scalar(beta), label_smoothing)
            }
            Self::ApoZero => {
                let (chosen, rejected) = it.rewards();
                (sigmoid(rejected) - sigmoid(chosen)).add_scalar(1.0)
            }
            Self::ApoDown => {
                let (chosen, rejected) = it.rewards();
                (sigmoid(chosen.clone()) - sigmoid(chosen - rejected)).add_scalar(1.0)
            }
            Self::Discopop => discopop(it.margins(), discopop_tau),
            Self::Sft => unreachable!("a mean over tokens, which `dpo_loss` takes"),
        }
    }
}

fn exo(margins: Tensor<1>, smoothing: f64) -> Tensor<1> {
    let term = |margins: Tensor<1>, probability: f64| {
        sigmoid(margins.clone()) * log_sigmoid(margins).sub_scalar(probability.ln())
    };
    term(margins.clone(), 1.0 - smoothing) + term(margins.neg(), smoothing)
}

fn discopop(margins: Tensor<1>, tau: f64) -> Tensor<1> {
    let share = sigmoid(margins.clone().div_scalar(tau));
    let logistic = log_sigmoid(margins.clone()).neg();
    let exponential = margins.neg().exp();
    logistic.clone() + (exponential - logistic) * share
}

fn sorted(values: &Tensor<1>) -> Tensor<1> {
    values.clone().sort(0)
}
