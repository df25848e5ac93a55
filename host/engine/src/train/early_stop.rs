//! Early stopping on a metric that should fall, `eval_loss` as a rule.

use serde::{Deserialize, Serialize};

/// `[early_stop]` of a run file; names as in transformers' `EarlyStoppingCallback`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStopConfig {
    /// Evaluations in a row without improvement after which the run stops.
    pub patience: u64,
    /// How much lower a value must be to count as an improvement.
    pub min_delta: f64,
}

impl Default for EarlyStopConfig {
    fn default() -> Self {
        Self { patience: 3, min_delta: 0.0 }
    }
}

impl EarlyStopConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.patience == 0 {
            problems.push("`patience` must be > 0, got `0`".to_string());
        }
        if !(self.min_delta >= 0.0 && self.min_delta.is_finite()) {
            problems.push(format!("`min_delta` must be >= 0, got `{}`", self.min_delta));
        }
        problems
    }
}

/// What an evaluation means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The best value so far.
    Improved,
    /// No improvement, and patience left.
    Waiting,
    /// Patience is used up.
    Stop,
}

/// Judges `value` against the `best` so far; `waited` counts the evaluations in a row without improvement and is
/// brought up to date. A value that is not a number improves nothing.
pub fn judge(config: &EarlyStopConfig, best: Option<f64>, waited: &mut u64, value: f64) -> Verdict {
    let improved = best.map_or(!value.is_nan(), |best| value < best - config.min_delta);
    *waited = if improved { 0 } else { *waited + 1 };
    match (improved, *waited >= config.patience) {
        (true, _) => Verdict::Improved,
        (false, true) => Verdict::Stop,
        (false, false) => Verdict::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_after_patience_evaluations_without_improvement() {
        let config = EarlyStopConfig { patience: 2, min_delta: 0.1 };
        use Verdict::{Improved, Stop, Waiting};
        let (mut best, mut waited) = (None, 0);
        let verdicts = [1.0, 0.95, 0.8, 0.75, f64::NAN].map(|value| {
            let verdict = judge(&config, best, &mut waited, value);
            if verdict == Improved {
                best = Some(value);
            }
            verdict
        });
        assert_eq!(verdicts, [Improved, Waiting, Improved, Waiting, Stop]);
    }
}
