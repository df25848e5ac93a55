//! Estimates of the Kullback-Leibler divergence from samples, and what the penalty on it costs.

use serde::{Deserialize, Serialize};

use super::check::Check;

/// Estimators of `KL(policy || reference)` at a token that the policy drew, with `r = log policy - log reference`:
/// <http://joschu.net/blog/kl-approx.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `r`: unbiased, of either sign.
    #[default]
    K1,
    /// `r^2 / 2`: biased, of low variance. TRL's PPO uses it for `policy/approxkl_avg` only.
    K2,
    /// `exp(-r) - 1 + r`: unbiased, of low variance, never negative.
    K3,
}

impl KlEstimator {
    /// The estimate at one token, in nats.
    pub fn of(self, logp: f32, reference: f32) -> f32 {
        let ratio = f64::from(logp) - f64::from(reference);
        let estimate = match self {
            Self::K1 => ratio,
            Self::K2 => 0.5 * ratio * ratio,
            Self::K3 => (-ratio).exp_m1() + ratio,
        };
        estimate as f32
    }
}

/// `[objective.ppo.adaptive_kl]`: the coefficient follows the divergence. Names and defaults as in TRL up to 0.11.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveKlConfig {
    /// Divergence of a completion that is aimed at, in nats.
    pub target: f64,
    /// Episodes in which the coefficient can change by a factor of `exp(0.2)` or so.
    pub horizon: f64,
}

impl Default for AdaptiveKlConfig {
    fn default() -> Self {
        Self { target: 6.0, horizon: 10_000.0 }
    }
}

impl AdaptiveKlConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut check = Check::default();
        check.number("target", self.target, self.target > 0.0, "> 0");
        check.number("horizon", self.horizon, self.horizon > 0.0, "> 0").problems()
    }
}

/// The coefficient of the penalty: fixed, or adaptive. Its state belongs into a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KlController {
    /// As it is now.
    pub coef: f64,
    /// How it follows the divergence; `None` is fixed.
    pub adaptive: Option<AdaptiveKlConfig>,
}

impl KlController {
    /// Before the first rollout.
    pub fn new(coef: f64, adaptive: Option<AdaptiveKlConfig>) -> Self {
        Self { coef, adaptive }
    }

    /// After a rollout of `episodes` completions whose divergence (`objective/kl`) was `kl` in the mean.
    ///
    /// `coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon`: <https://arxiv.org/abs/1909.08593>, section 2.2,
    /// whose `K_beta = 0.1` the authors' code writes as `episodes / horizon`; TRL up to 0.11 does too.
    pub fn update(&mut self, kl: f64, episodes: usize) {
        if let Some(AdaptiveKlConfig { target, horizon }) = self.adaptive {
            let error = (kl / target - 1.0).clamp(-0.2, 0.2);
            self.coef *= 1.0 + error * episodes as f64 / horizon;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, with `r = ln 2`: k1 = ln 2, k2 = (ln 2)^2 / 2, k3 = 1/2 - 1 + ln 2.
    #[test]
    fn estimators_are_those_of_the_note() {
        let (logp, reference) = (-1.0, -1.0 - std::f32::consts::LN_2);
        let ln_2 = std::f32::consts::LN_2;
        for (estimator, expected) in
            [(KlEstimator::K1, ln_2), (KlEstimator::K2, ln_2 * ln_2 / 2.0), (KlEstimator::K3, ln_2 - 0.5)]
        {
            assert!((estimator.of(logp, reference) - expected).abs() < 1e-6, "{estimator:?}");
            assert_eq!(estimator.of(logp, logp), 0.0);
        }
    }

    /// Exact by enumeration: under the policy (1/4, 3/4) against (1/2, 1/2) the divergence is
    /// `ln(1/2)/4 + 3 ln(3/2)/4`; k1 and k3 have it as their mean, k2 has not.
    #[test]
    fn k1_and_k3_are_unbiased() {
        let policy: [f32; 2] = [0.25, 0.75];
        let reference: [f32; 2] = [0.5, 0.5];
        let truth: f64 =
            policy.iter().zip(reference).map(|(p, q)| f64::from(*p) * f64::from(p / q).ln()).sum();
        let mean = |estimator: KlEstimator| -> f64 {
            let each = policy.iter().zip(reference);
            each.map(|(p, q)| f64::from(*p) * f64::from(estimator.of(p.ln(), q.ln()))).sum()
        };
        assert!((mean(KlEstimator::K1) - truth).abs() < 1e-6);
        assert!((mean(KlEstimator::K3) - truth).abs() < 1e-6);
        assert!((mean(KlEstimator::K2) - truth).abs() > 1e-3);
    }

    /// By hand: twice the target is cut to an error of 0.2, half of it to -0.2, 1.1 of it counts as 0.1.
    #[test]
    fn the_coefficient_follows_the_divergence_and_a_fixed_one_stays() {
        let config = AdaptiveKlConfig { target: 6.0, horizon: 1000.0 };
        for (kl, expected) in [(12.0, 0.204), (3.0, 0.196), (6.6, 0.202), (6.0, 0.2)] {
            let mut controller = KlController::new(0.2, Some(config.clone()));
            controller.update(kl, 100);
            assert!((controller.coef - expected).abs() < 1e-12, "{kl}: {}", controller.coef);
        }
        let mut fixed = KlController::new(0.2, None);
        fixed.update(100.0, 100);
        assert_eq!(fixed.coef, 0.2);
    }
}
