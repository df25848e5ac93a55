//! Odds Ratio Preference Optimization: <https://arxiv.org/abs/2403.07691>. No reference model; supervised fine-tuning is part of it.
//! Pure functions of log-probabilities; shapes: `P` = pairs in the micro-batch.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::preference::{PairLengths, PairTotals, PolicyPairs, PreferenceOutput};

/// `[objective.orpo]` of a run file; names and defaults are TRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrpoConfig {
    /// Factor of the odds ratio's loss: `lambda` of the paper.
    pub beta: f64,
}

impl Default for OrpoConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl OrpoConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        Check::default().number("beta", self.beta, self.beta > 0.0, "> 0").problems()
    }
}

/// ORPO's loss and what TRL reports of it besides rewards.
#[derive(Debug, Clone)]
pub struct OrpoOutput {
    /// Loss and rewards: `beta` times the log-probabilities a token.
    pub preference: PreferenceOutput,
    /// `log sigmoid` of the log-odds ratios (`log_odds_ratio` is its mean), `[P]`, without a graph.
    pub log_odds_ratio: Tensor<1>,
    /// Log-odds of the chosen over the rejected completion (`log_odds_chosen` is its mean), `[P]`, without a graph.
    pub log_odds_chosen: Tensor<1>,
}

/// The mean negative log-likelihood of the chosen completions' tokens, less `beta` times the mean of
/// `log sigmoid(log odds(chosen) - log odds(rejected))`: eq. 6 and 7, with the odds (eq. 4) of the likelihood a token.
///
/// TRL's negative log-likelihood takes in the prompt's tokens; the paper's, and so ours, does not.
pub fn orpo_loss(
    policy: &PolicyPairs,
    lengths: &PairLengths,
    totals: &PairTotals,
    config: &OrpoConfig,
) -> OrpoOutput {
    let averages = policy.logps.averages(lengths);
    let log_odds = log_odds(averages.chosen.clone()) - log_odds(averages.rejected.clone());
    let ratio = log_sigmoid(log_odds.clone());
    let nll = totals.mean_of_chosen_tokens(&policy.chosen_nll);
    OrpoOutput {
        preference: PreferenceOutput {
            loss: nll - totals.mean_of_pairs(ratio.clone()).mul_scalar(config.beta),
            chosen_rewards: averages.chosen.inner().mul_scalar(config.beta),
            rejected_rewards: averages.rejected.inner().mul_scalar(config.beta),
        },
        log_odds_ratio: ratio.inner(),
        log_odds_chosen: log_odds.inner(),
    }
}

/// `log(p / (1 - p))` for `p = exp(x)`, as `1 - exp(x) = tanh(-x / 2) (1 + exp(x))`, which loses nothing near `x = 0`.
///
/// A likelihood that f32 rounds to 1 would have infinite odds: it is held a little below, and has no gradient there.
fn log_odds(x: Tensor<1>) -> Tensor<1> {
    let x = x.clamp_max(-1e-6);
    let complement = x.clone().mul_scalar(-0.5).tanh().log() + x.clone().exp().log1p();
    x - complement
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn every_impossible_value_is_named() {
        assert!(OrpoConfig::default().problems().is_empty());
        assert_eq!(OrpoConfig { beta: -0.5 }.problems(), ["`beta` must be > 0, got `-0.5`"]);
    }

    /// Exact in f64; relative 1e-5, or absolute where the odds are near 1.
    #[test]
    fn log_odds_hold_from_certain_to_impossible() {
        let likelihoods = [-1e-5_f32, -1e-3, -0.1, -0.693, -2.0, -20.0, -80.0];
        let got = log_odds(Tensor::from_floats(likelihoods, &Device::flex()));
        for (x, got) in likelihoods.iter().zip(got.try_into_vec_as::<f32>().unwrap()) {
            let x = f64::from(*x);
            let expected = x - (-x.exp_m1()).ln();
            assert!((f64::from(got) - expected).abs() < 1e-5 * expected.abs().max(1.0), "{x}: {got}");
        }
        let certain = log_odds(Tensor::from_floats([0.0], &Device::flex())).into_scalar::<f32>();
        assert!(certain.is_finite() && certain > 10.0, "{certain}");
    }
}
