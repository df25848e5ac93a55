//! The memory of one of many ranks.

use serde::{Deserialize, Serialize};

use super::{PartBytes, Parts, Work, lets_go, shares};
use crate::estimate::StepShape;
use crate::estimate::memory::{moments, step, tile};
use crate::estimate::shape::BlockWeights;
use crate::shard::Zero;
use crate::train::ActivationCheckpointing;

/// Bytes of a rank at the peak of a step; of a process what it needs besides is not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankMemory {
    /// Weights that stay: a rank's stretches, or all.
    pub weights: u64,
    /// Sums of gradients that stay.
    pub gradients: u64,
    /// Moments.
    pub moments: u64,
    /// Parts that are gathered, and gradients on their way.
    pub gathered: u64,
    /// What forward keeps, and what the operation in work needs.
    pub activations: u64,
}

impl RankMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.moments + self.gathered + self.activations
    }
}

pub(super) fn of_rank(work: &Work<'_>, parts: &Parts, shard: usize) -> RankMemory {
    let ranks = shard as u64;
    let shares = |from| shares(work, shard, from);
    let cut = |bytes: u64, from: Zero| if shares(from) { bytes.div_ceil(ranks) } else { bytes };
    let total = parts.total();
    let own: Vec<usize> = work.shape.trained().iter().map(|it| it.div_ceil(shard)).collect();
    // Of a model whose weights stay, those that are trained are there twice: whole, and a rank's stretches of them.
    let beside = if shard > 1 && !shares(Zero::Three) { total.trained.div_ceil(ranks) } else { 0 };
    let checkpointing = match lets_go(work, shard) {
        true => ActivationCheckpointing::Block,
        false => work.how.checkpointing,
    };
    // Its gradients are counted above and below.
    let how = StepShape { checkpointing, gradient_release: true, accumulates: false, ..work.how };
    let found = step(work.shape, &how, work.batch);
    // Of what is stored in fewer bits a part is widened at a time.
    let linears = work.shape.blocks.iter().flat_map(BlockWeights::linears);
    let largest = linears.map(|it| (it.length() * size_of::<f32>()) as u64).max().unwrap_or(0);
    let widened = tile(work.load).min(largest);
    RankMemory {
        weights: cut(total.frozen + total.trained, Zero::Three) + beside,
        gradients: cut(total.trained, Zero::Two),
        moments: moments(&own, work.moments),
        gathered: passing(work, parts, shard),
        activations: found.activations + found.working + widened,
    }
}

/// Bytes of what is gathered and of gradients on their way, at most.
fn passing(work: &Work<'_>, parts: &Parts, shard: usize) -> u64 {
    let shares = |from| shares(work, shard, from);
    let gradients = |it: PartBytes| if shares(Zero::Two) { it.trained } else { 0 };
    let lets_go = lets_go(work, shard);
    let weights = |it: PartBytes| if lets_go { it.frozen + it.trained } else { 0 };
    // A part that is computed with and the next; gradients of a part, and those of the one before on their way.
    let all: Vec<PartBytes> = parts.all().collect();
    let of_two = all.windows(2).map(|it| it.iter().map(|it| weights(*it) + gradients(*it)).sum::<u64>());
    // Behind the head the last block waits, while the one before it is gathered.
    let (head, last) = (parts.with_tied_head(), parts.blocks.iter().rev().take(2).map(|it| weights(*it)));
    let of_head = last.sum::<u64>() + weights(head) + gradients(head);
    let most = of_two.max().unwrap_or(0).max(of_head);
    // Blocks that are not let go of are all there in the end.
    let kept = shares(Zero::Three) && !lets_go;
    most + if kept { parts.all().map(|it| it.frozen + it.trained).sum() } else { 0 }
}
