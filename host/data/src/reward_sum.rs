//! Several rewards as one: a weighted sum of clipped scores, behind gates.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::role::{Outcome, Score};

/// `[plugins.<name>.reward]`: a reward's part in the sum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardTerm {
    /// Factor of the score; 0 watches the reward without training on it.
    pub weight: f64,
    /// Least and greatest score that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<[f64; 2]>,
    /// With a score below this the whole sum is 0, whatever the other rewards say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<f64>,
}

impl Default for RewardTerm {
    fn default() -> Self {
        Self { weight: 1.0, clip: None, gate: None }
    }
}

impl RewardTerm {
    /// What a score adds to the sum, gates aside.
    pub fn part(&self, score: f64) -> f64 {
        self.weight * self.clip.map_or(score, |[low, high]| score.clamp(low, high))
    }

    /// Every impossible value, with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.weight.is_finite() {
            problems.push(format!("`weight` must be finite, got `{}`", self.weight));
        }
        if let Some([low, high]) = self.clip.filter(|it| it[0].is_nan() || it[1].is_nan() || it[0] > it[1]) {
            problems.push(format!("`clip` must be [least, greatest], got `[{low}, {high}]`"));
        }
        if let Some(gate) = self.gate.filter(|it| !it.is_finite()) {
            problems.push(format!("`gate` must be finite, got `{gate}`"));
        }
        problems
    }
}

/// The sum over the rewards of one completion; `None` where every one abstains.
///
/// # Errors
/// The first failure: a sum that lacks a term would be another reward.
pub fn reward_sum<'a>(
    terms: impl IntoIterator<Item = (&'a RewardTerm, &'a Outcome)>,
) -> Result<Option<f64>, &'a Failure> {
    let (mut sum, mut open) = (None, true);
    for (term, outcome) in terms {
        match outcome {
            Outcome::Failed(failure) => return Err(failure),
            Outcome::Abstain { .. } => {}
            Outcome::Ok(Score { value, .. }) => {
                open &= term.gate.is_none_or(|gate| *value >= gate);
                *sum.get_or_insert(0.0) += term.part(*value);
            }
        }
    }
    Ok(sum.map(|sum| if open { sum } else { 0.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(value: f64) -> Outcome {
        Outcome::Ok(Score { value, components: Vec::new() })
    }

    #[test]
    fn scores_are_clipped_weighted_and_gated() {
        let plain = RewardTerm::default();
        let halved = RewardTerm { weight: 0.5, clip: Some([-1.0, 1.0]), gate: None };
        let gated = RewardTerm { gate: Some(0.5), ..plain };
        assert_eq!(reward_sum([(&plain, &ok(2.0)), (&halved, &ok(9.0))]), Ok(Some(2.5)));
        assert_eq!(reward_sum([(&plain, &ok(2.0)), (&gated, &ok(0.4))]), Ok(Some(0.0)));
        assert_eq!(reward_sum([(&plain, &ok(2.0)), (&gated, &ok(0.5))]), Ok(Some(2.5)));
    }

    #[test]
    fn an_abstention_is_left_out_and_a_failure_is_no_number() {
        let plain = RewardTerm::default();
        let abstain = Outcome::Abstain { reason: "no column".into() };
        let trap = Outcome::Failed(Failure::Trap { message: "unreachable".into() });
        assert_eq!(reward_sum([(&plain, &abstain), (&plain, &ok(1.5))]), Ok(Some(1.5)));
        assert_eq!(reward_sum([(&plain, &abstain)]), Ok(None));
        assert!(reward_sum([(&plain, &ok(1.0)), (&plain, &trap)]).is_err());
    }

    #[test]
    fn a_range_the_wrong_way_round_is_refused() {
        let term = RewardTerm { clip: Some([1.0, 0.0]), ..RewardTerm::default() };
        assert_eq!(term.problems(), ["`clip` must be [least, greatest], got `[1, 0]`"]);
    }
}
