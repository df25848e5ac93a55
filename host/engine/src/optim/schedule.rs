//! Learning-rate schedules, equal to transformers' `get_scheduler`.

use serde::{Deserialize, Serialize};

/// Shape of the schedule after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Down to 0 in a straight line.
    #[default]
    Linear,
    /// Down to 0 along half a cosine.
    Cosine,
    /// Unchanged.
    Constant,
}

/// `[schedule]` of a run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Shape after warm-up.
    pub kind: Schedule,
    /// Steps in which the rate rises from 0 in a straight line.
    pub warmup_steps: u64,
    /// The same as a share of all steps, rounded up; used where `warmup_steps` is 0, as in transformers.
    pub warmup_ratio: f64,
}

impl ScheduleConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let fine = (0.0..=1.0).contains(&self.warmup_ratio);
        let problem = || format!("`warmup_ratio` must be in [0, 1], got `{}`", self.warmup_ratio);
        (!fine).then(problem).into_iter().collect()
    }

    /// Steps of warm-up in a run of `total`.
    pub fn warmup(&self, total: u64) -> u64 {
        match self.warmup_steps {
            0 => (total as f64 * self.warmup_ratio).ceil() as u64,
            steps => steps,
        }
    }

    /// Factor of the learning rate for the 0-based `step` of `total` steps.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let warmup = self.warmup(total);
        if step < warmup {
            return step as f64 / warmup.max(1) as f64;
        }
        let rest = total.saturating_sub(warmup).max(1) as f64;
        let done = (step - warmup) as f64 / rest;
        match self.kind {
            Schedule::Constant => 1.0,
            Schedule::Linear => (1.0 - done).max(0.0),
            Schedule::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * done).cos())).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: transformers 5.23 `get_scheduler(kind, optimizer, 2, 10)`; exact in f64 up to rounding.
    #[test]
    fn factors_match_transformers() {
        let at = |kind, steps: [u64; 5]| {
            steps.map(|step| ScheduleConfig { kind, warmup_steps: 2, warmup_ratio: 0.0 }.factor(step, 10))
        };
        let close = |got: [f64; 5], expected: [f64; 5]| {
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}");
        };
        close(at(Schedule::Linear, [0, 1, 2, 6, 9]), [0.0, 0.5, 1.0, 0.5, 0.125]);
        close(at(Schedule::Constant, [0, 1, 2, 6, 9]), [0.0, 0.5, 1.0, 1.0, 1.0]);
        close(at(Schedule::Cosine, [0, 1, 2, 6, 9]), [0.0, 0.5, 1.0, 0.5, 0.038060233744356624]);
    }

    #[test]
    fn warm_up_as_a_share_of_all_steps_is_rounded_up() {
        let config =
            |warmup_steps, warmup_ratio| ScheduleConfig { warmup_steps, warmup_ratio, ..Default::default() };
        assert_eq!(config(0, 0.03).warmup(100), 3);
        assert_eq!(config(0, 0.03).warmup(101), 4);
        assert_eq!(config(7, 0.03).warmup(100), 7);
        assert_eq!(config(0, 1.5).problems().len(), 1);
        assert!(config(0, 1.0).problems().is_empty());
    }
}
