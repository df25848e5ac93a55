//! What the objectives over pairs share: log-probabilities of chosen and rejected completions, and TRL's metrics of them.
//!
//! Shapes: `P` = pairs in the micro-batch, `C` and `R` = tokens of all chosen and of all rejected completions, end to end.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::{Deserialize, Serialize};

use super::segments;
use crate::parallel::Merge;

/// Log-probabilities of whole completions, `[P]` each.
#[derive(Debug, Clone)]
pub struct PairLogps {
    /// Of the preferred completion.
    pub chosen: Tensor<1>,
    /// Of the other one.
    pub rejected: Tensor<1>,
}

/// Tokens of the completions of each pair.
#[derive(Debug, Clone, Copy)]
pub struct PairLengths<'a> {
    /// Of the preferred completion.
    pub chosen: &'a [usize],
    /// Of the other one.
    pub rejected: &'a [usize],
}

impl PairLogps {
    /// Summed over each completion's tokens. With `ld_alpha`, tokens past the length that both of a pair have count only
    /// that much: LD-DPO, <https://arxiv.org/abs/2409.06411>, the same for policy and reference as in TRL.
    ///
    /// # Shapes
    /// - `chosen`: `[C]`; `rejected`: `[R]`
    pub fn of_tokens(
        chosen: Tensor<1>,
        rejected: Tensor<1>,
        lengths: &PairLengths,
        ld_alpha: Option<f64>,
    ) -> Self {
        let shared: Vec<usize> =
            lengths.chosen.iter().zip(lengths.rejected).map(|it| *it.0.min(it.1)).collect();
        let sum = |tokens: Tensor<1>, lengths: &[usize]| match ld_alpha {
            None => segments::sums(tokens, lengths),
            Some(alpha) => {
                let whole = segments::sums(tokens.clone(), lengths).mul_scalar(alpha);
                whole + segments::sums_of_heads(tokens, lengths, &shared).mul_scalar(1.0 - alpha)
            }
        };
        Self { chosen: sum(chosen, lengths.chosen), rejected: sum(rejected, lengths.rejected) }
    }

    /// Divided by the tokens of each completion; one without tokens stays as it is.
    pub(super) fn averages(&self, lengths: &PairLengths) -> Self {
        let per_token = |logps: &Tensor<1>, lengths: &[usize]| {
            let shares: Vec<f32> = lengths.iter().map(|it| 1.0 / (*it).max(1) as f32).collect();
            logps.clone() * segments::constant(&shares, logps)
        };
        Self {
            chosen: per_token(&self.chosen, lengths.chosen),
            rejected: per_token(&self.rejected, lengths.rejected),
        }
    }
}

/// What the policy says of a micro-batch of pairs.
#[derive(Debug, Clone)]
pub struct PolicyPairs {
    /// Log-probabilities of the completions.
    pub logps: PairLogps,
    /// Negative log-likelihood of the chosen completions' tokens, summed: `[1]`.
    pub chosen_nll: Tensor<1>,
}

impl PolicyPairs {
    /// From the log-probabilities of tokens; `ld_alpha` as in [`PairLogps::of_tokens`].
    ///
    /// # Shapes
    /// - `chosen`: `[C]`; `rejected`: `[R]`
    pub fn of_tokens(
        chosen: Tensor<1>,
        rejected: Tensor<1>,
        lengths: &PairLengths,
        ld_alpha: Option<f64>,
    ) -> Self {
        let chosen_nll = chosen.clone().sum().neg();
        Self { logps: PairLogps::of_tokens(chosen, rejected, lengths, ld_alpha), chosen_nll }
    }
}

/// What the sums of a micro-batch are divided by: counts of the whole optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairTotals {
    /// Pairs.
    pub pairs: usize,
    /// Tokens of the chosen completions.
    pub chosen_tokens: usize,
}

impl PairTotals {
    /// Counts `lengths` in.
    #[must_use]
    pub fn with(self, lengths: &PairLengths) -> Self {
        Self {
            pairs: self.pairs + lengths.chosen.len(),
            chosen_tokens: self.chosen_tokens + lengths.chosen.iter().sum::<usize>(),
        }
    }

    /// This micro-batch's part of the mean over pairs.
    pub(super) fn mean_of_pairs(&self, of_pairs: Tensor<1>) -> Tensor<1> {
        of_pairs.sum().div_scalar(self.pairs.max(1) as f64)
    }

    /// This micro-batch's part of the mean over the chosen completions' tokens.
    pub(super) fn mean_of_chosen_tokens(&self, sum: &Tensor<1>) -> Tensor<1> {
        sum.clone().div_scalar(self.chosen_tokens.max(1) as f64)
    }
}

/// A loss over pairs, with the implicit rewards of the completions.
#[derive(Debug, Clone)]
pub struct PreferenceOutput {
    /// This micro-batch's part of the step's loss, `[1]`.
    pub loss: Tensor<1>,
    /// `[P]`, without a graph.
    pub chosen_rewards: Tensor<1>,
    /// `[P]`, without a graph.
    pub rejected_rewards: Tensor<1>,
}

/// `-(1 - s) log sigmoid(m) - s log sigmoid(-m)` for margins `m` and label smoothing `s`.
pub(super) fn smoothed_logistic(margins: Tensor<1>, smoothing: f64) -> Tensor<1> {
    let kept = log_sigmoid(margins.clone()).mul_scalar(smoothing - 1.0);
    if smoothing == 0.0 { kept } else { kept - log_sigmoid(margins.neg()).mul_scalar(smoothing) }
}

/// TRL's metrics of preferences, summed until they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PreferenceMetrics {
    chosen: Side,
    rejected: Side,
    pairs: usize,
    ordered: usize,
}

/// Sums over the completions of one side.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Side {
    rewards: f64,
    logps: f64,
    count: usize,
}

impl Side {
    fn add(&mut self, reward: f32, logp: f32) {
        self.rewards += f64::from(reward);
        self.logps += f64::from(logp);
        self.count += 1;
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.count > 0).then(|| sum / self.count as f64)
    }
}

impl Merge for PreferenceMetrics {
    fn merge(&mut self, other: Self) {
        for (side, other) in [(&mut self.chosen, other.chosen), (&mut self.rejected, other.rejected)] {
            side.rewards += other.rewards;
            side.logps += other.logps;
            side.count += other.count;
        }
        self.pairs += other.pairs;
        self.ordered += other.ordered;
    }
}

impl PreferenceMetrics {
    /// Adds pairs: implicit rewards and log-probabilities of both sides, `P` each.
    pub fn add_pairs(&mut self, rewards: (&[f32], &[f32]), logps: (&[f32], &[f32])) {
        for (reward, logp) in rewards.0.iter().zip(logps.0) {
            self.chosen.add(*reward, *logp);
        }
        for (reward, logp) in rewards.1.iter().zip(logps.1) {
            self.rejected.add(*reward, *logp);
        }
        self.pairs += rewards.0.len();
        self.ordered += rewards.0.iter().zip(rewards.1).filter(|it| it.0 > it.1).count();
    }

    /// Adds completions that were judged alone, as for KTO.
    pub fn add_unpaired(&mut self, rewards: &[f32], logps: &[f32], desirable: &[bool]) {
        for ((reward, logp), desirable) in rewards.iter().zip(logps).zip(desirable) {
            let side = if *desirable { &mut self.chosen } else { &mut self.rejected };
            side.add(*reward, *logp);
        }
    }

    /// Means by TRL's names; what there was nothing of is left out, as is the accuracy of what was not paired.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let (chosen, rejected) =
            (self.chosen.mean(self.chosen.rewards), self.rejected.mean(self.rejected.rewards));
        let accuracy = (self.pairs > 0).then(|| self.ordered as f64 / self.pairs as f64);
        let named = [
            ("rewards/chosen", chosen),
            ("rewards/rejected", rejected),
            ("rewards/margins", chosen.zip(rejected).map(|(a, b)| a - b)),
            ("rewards/accuracies", accuracy),
            ("logps/chosen", self.chosen.mean(self.chosen.logps)),
            ("logps/rejected", self.rejected.mean(self.rejected.logps)),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: rewards 1, 2 against 0.5, 3.
    #[test]
    fn metrics_are_means_over_everything_added() {
        let mut metrics = PreferenceMetrics::default();
        metrics.add_pairs((&[1.0], &[0.5]), (&[-4.0], &[-6.0]));
        metrics.add_pairs((&[2.0], &[3.0]), (&[-2.0], &[-8.0]));
        let expected = [
            ("rewards/chosen", 1.5),
            ("rewards/rejected", 1.75),
            ("rewards/margins", -0.25),
            ("rewards/accuracies", 0.5),
            ("logps/chosen", -3.0),
            ("logps/rejected", -7.0),
        ];
        assert_eq!(metrics.metrics(), expected);
    }

    #[test]
    fn what_is_not_paired_has_no_accuracy_and_an_empty_side_no_mean() {
        let mut metrics = PreferenceMetrics::default();
        metrics.add_unpaired(&[1.0, 3.0], &[-1.0, -2.0], &[true, true]);
        assert_eq!(metrics.metrics(), [("rewards/chosen", 2.0), ("logps/chosen", -1.5)]);
        metrics.add_unpaired(&[-1.0], &[-5.0], &[false]);
        assert!(metrics.metrics().contains(&("rewards/margins", 3.0)));
    }
}
