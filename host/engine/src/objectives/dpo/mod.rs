//! Direct Preference Optimization: <https://arxiv.org/abs/2305.18290>, eq. 7, and the losses that came after it.
//! Pure functions of log-probabilities; shapes: `P` = pairs in the micro-batch.

mod f_divergence;
mod loss_type;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use self::f_divergence::FDivergence;
pub use self::loss_type::DpoLossType;
use self::loss_type::Terms;
use super::check::Check;
use super::preference::{PairLengths, PairLogps, PairTotals, PolicyPairs, PreferenceOutput};

/// `[objective.dpo]` of a run file; names and defaults are TRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DpoConfig {
    /// Losses that are added up; several are MPO, <https://arxiv.org/abs/2411.10442>.
    pub loss_type: Vec<DpoLossType>,
    /// Factor of each loss; 1 each if absent.
    pub loss_weights: Option<Vec<f64>>,
    /// How much moving away from the reference costs; `tau` of IPO.
    pub beta: f64,
    /// Probability that a pair is the wrong way round, as the smoothed losses understand it.
    ///
    /// For `sigmoid` and `sigmoid_norm` this is conservative DPO; TRL 1.16 leaves it out of both.
    pub label_smoothing: f64,
    /// Factor of the chosen completions' negative log-likelihood, the mean over tokens, that is added: RPO,
    /// <https://arxiv.org/abs/2404.19733>, eq. 1, which takes the mean of each sequence. As in TRL up to 0.24.
    pub rpo_alpha: Option<f64>,
    /// What tokens past the length that both completions of a pair have count; all of it if absent. [`PairLogps::of_tokens`]
    pub ld_alpha: Option<f64>,
    /// What a ratio of policy to reference is worth.
    pub f_divergence_type: FDivergence,
    /// `alpha` of the alpha divergence.
    pub f_alpha_divergence_coef: f64,
    /// Temperature of `discopop`.
    pub discopop_tau: f64,
    /// Ask the reference once of all rows, before the first step, and keep what it says on disk for later runs.
    pub precompute_ref_log_probs: bool,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self {
            loss_type: vec![DpoLossType::Sigmoid],
            loss_weights: None,
            beta: 0.1,
            label_smoothing: 0.0,
            rpo_alpha: None,
            ld_alpha: None,
            f_divergence_type: FDivergence::ReverseKl,
            f_alpha_divergence_coef: 0.5,
            discopop_tau: 0.05,
            precompute_ref_log_probs: false,
        }
    }
}

impl DpoConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let smoothing = self.label_smoothing;
        let has = |it: DpoLossType| self.loss_type.contains(&it);
        let mut check = Check::default();
        check
            .refuse(self.loss_type.is_empty(), || "`loss_type` must name a loss, got none".into())
            .number("beta", self.beta, self.beta > 0.0, "> 0")
            .number("label_smoothing", smoothing, (0.0..0.5).contains(&smoothing), "in [0, 0.5)")
            .optional("rpo_alpha", self.rpo_alpha, |it| it >= 0.0, ">= 0")
            .optional("ld_alpha", self.ld_alpha, |it| (0.0..=1.0).contains(&it), "in [0, 1]")
            .number("f_alpha_divergence_coef", self.f_alpha_divergence_coef, true, "finite")
            .number("discopop_tau", self.discopop_tau, self.discopop_tau > 0.0, "> 0")
            .refuse(has(DpoLossType::ExoPair) && smoothing == 0.0, || {
                "`label_smoothing` must be > 0 for `exo_pair`, got `0`: its paper has 0.001".into()
            })
            .refuse(smoothing > 0.0 && !self.loss_type.iter().any(|it| it.is_smoothed()), || {
                format!("`label_smoothing` must be 0, got `{smoothing}`: no loss of `loss_type` is smoothed")
            });
        if let Some(weights) = &self.loss_weights {
            let (wanted, found) = (self.loss_type.len(), weights.len());
            check.refuse(wanted != found, || {
                format!("`loss_weights` must have one number for each of `loss_type`, {wanted}, got {found}")
            });
            for weight in weights {
                check.number("loss_weights", *weight, true, "finite");
            }
        }
        if self.f_divergence_type != FDivergence::ReverseKl {
            for loss_type in self.loss_type.iter().filter(|it| !it.takes_divergence()) {
                check.refuse(true, || {
                    format!(
                        "`f_divergence_type` must be `reverse_kl` for `{}`: it is not built on the difference of scores",
                        loss_type.name()
                    )
                });
            }
        }
        check.problems()
    }
}

/// The sum of the losses in `loss_type`, each the mean over the step's pairs; for the default,
/// `-(1-s) log sigmoid(m) - s log sigmoid(-m)` for margin `m` and label smoothing `s`.
///
/// While policy equals reference, `m = 0` and that is `ln 2` for every `beta`. Rewards are `beta` times the log-ratios.
/// `aot` and `aot_unpaired` compare the pairs of a micro-batch with each other, so they depend on how a step is cut.
///
/// `policy` and `reference` are both made with `ld_alpha`, where it is set.
pub fn dpo_loss(
    policy: &PolicyPairs,
    reference: &PairLogps,
    lengths: &PairLengths,
    totals: &PairTotals,
    config: &DpoConfig,
) -> PreferenceOutput {
    let terms = Terms::new(&policy.logps, reference, lengths, config);
    let nll = || totals.mean_of_chosen_tokens(&policy.chosen_nll);
    let part = |(index, loss_type): (usize, &DpoLossType)| -> Tensor<1> {
        let weight = config.loss_weights.as_ref().map_or(1.0, |it| it[index]);
        let loss = match loss_type {
            // The chosen completions' negative log-likelihood: a mean over tokens, not over pairs.
            DpoLossType::Sft => nll(),
            _ => totals.mean_of_pairs(loss_type.of_pairs(&terms)),
        };
        loss.mul_scalar(weight)
    };
    let rpo = config.rpo_alpha.map(|alpha| nll().mul_scalar(alpha));
    let parts = config.loss_type.iter().enumerate().map(part).chain(rpo);
    let rewards = |logratios: &Tensor<1>| logratios.clone().inner().mul_scalar(config.beta);
    PreferenceOutput {
        loss: parts.reduce(|a, b| a + b).expect("a checked configuration names a loss"),
        chosen_rewards: rewards(&terms.chosen),
        rejected_rewards: rewards(&terms.rejected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_impossible_value_is_named() {
        assert!(DpoConfig::default().problems().is_empty());
        let config = DpoConfig {
            loss_type: vec![DpoLossType::Hinge, DpoLossType::Aot],
            loss_weights: Some(vec![1.0, f64::NAN, 2.0]),
            beta: -1.0,
            label_smoothing: 0.7,
            rpo_alpha: Some(-1.0),
            ld_alpha: Some(1.5),
            f_divergence_type: FDivergence::ForwardKl,
            f_alpha_divergence_coef: f64::INFINITY,
            discopop_tau: 0.0,
            ..DpoConfig::default()
        };
        insta::assert_snapshot!(config.problems().join("\n"), @r"
        `beta` must be > 0, got `-1`
        `label_smoothing` must be in [0, 0.5), got `0.7`
        `rpo_alpha` must be >= 0, got `-1`
        `ld_alpha` must be in [0, 1], got `1.5`
        `f_alpha_divergence_coef` must be finite, got `inf`
        `discopop_tau` must be > 0, got `0`
        `loss_weights` must have one number for each of `loss_type`, 2, got 3
        `loss_weights` must be finite, got `NaN`
        `f_divergence_type` must be `reverse_kl` for `aot`: it is not built on the difference of scores
        ");
    }

    #[test]
    fn smoothing_that_nothing_uses_is_refused_and_exo_needs_some() {
        let problems = |loss_type, label_smoothing| {
            DpoConfig { loss_type: vec![loss_type], label_smoothing, ..DpoConfig::default() }.problems()
        };
        assert!(problems(DpoLossType::Sigmoid, 0.1).is_empty());
        assert_eq!(
            problems(DpoLossType::Hinge, 0.1),
            ["`label_smoothing` must be 0, got `0.1`: no loss of `loss_type` is smoothed"]
        );
        assert_eq!(problems(DpoLossType::ExoPair, 0.0).len(), 1);
        assert_eq!(
            DpoConfig { loss_type: Vec::new(), ..DpoConfig::default() }.problems(),
            ["`loss_type` must name a loss, got none"]
        );
    }
}
