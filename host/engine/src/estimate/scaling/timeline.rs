//! The order of a step, with what a rank computes on one side and what ranks do together on the other.

use super::links::{Collectives, Cost};
use super::{PartBytes, Parts, Work, lets_go, shares};
use crate::estimate::flops::{
    behind_virtual, block_backward, block_forward, head as head_flops, prefix_encoder, projection,
};
use crate::shard::Zero;

/// A step on its way.
pub(super) struct Step<'a> {
    work: &'a Work<'a>,
    parts: &'a Parts,
    collectives: &'a Collectives<'a>,
    flops_per_second: f64,
    /// When what is computed is done.
    now: f64,
    /// When what was asked of the ranks is done, which do one thing after the other.
    free: f64,
    /// When the gradients that are on their way have come.
    coming: f64,
    computed: f64,
    received: f64,
}

/// What a step took.
pub(super) struct Found {
    pub(super) seconds: f64,
    pub(super) computed: f64,
    pub(super) received: f64,
}

/// What is done with a part.
struct Task {
    /// What is gathered for it.
    gathered: f64,
    seconds: f64,
    /// Gradients that it makes.
    gradients: f64,
}

impl<'a> Step<'a> {
    pub(super) fn new(
        work: &'a Work<'a>,
        parts: &'a Parts,
        collectives: &'a Collectives<'a>,
        flops_per_second: f64,
    ) -> Self {
        let (now, free, coming, computed, received) = (0.0, 0.0, 0.0, 0.0, 0.0);
        Self { work, parts, collectives, flops_per_second, now, free, coming, computed, received }
    }

    fn ask(&mut self, cost: Cost) -> f64 {
        self.free = self.free.max(self.now) + cost.seconds;
        self.received += cost.bytes;
        self.free
    }

    fn shares(&self, from: Zero) -> bool {
        shares(self.work, self.collectives.shard, from)
    }

    /// Forward and backward over a micro-batch.
    pub(super) fn pass(&mut self) {
        let tasks = self.tasks();
        let gathers = self.shares(Zero::Three);
        let mut ready = if gathers { self.gather(&tasks[0]) } else { 0.0 };
        for (index, task) in tasks.iter().enumerate() {
            self.now = self.now.max(ready);
            // The next one, while this is computed with.
            if gathers && let Some(next) = tasks.get(index + 1) {
                ready = self.gather(next);
            }
            self.now += task.seconds;
            self.computed += task.seconds;
            if task.gradients > 0.0 && self.shares(Zero::Two) {
                self.now = self.now.max(self.coming);
                let cost = self.collectives.reduce_scatter(task.gradients);
                self.coming = self.ask(cost);
            }
        }
    }

    fn gather(&mut self, task: &Task) -> f64 {
        if task.gathered == 0.0 {
            return self.now;
        }
        let cost = self.collectives.gather(task.gathered);
        self.ask(cost)
    }

    /// Everything that a pass does, in its order.
    fn tasks(&self) -> Vec<Task> {
        let (work, parts, shape) = (self.work, self.parts, self.work.shape);
        let (tokens, segments) = &behind_virtual(shape, work.batch.tokens, work.segments);
        let seconds = |flops: u64| flops as f64 / self.flops_per_second;
        let task = |part: PartBytes, flops: u64, gradients: u64| Task {
            gathered: part.all(),
            seconds: seconds(flops),
            gradients: gradients as f64,
        };
        let blocks = shape.blocks.iter().enumerate();
        let forward: Vec<u64> = blocks
            .map(|(layer, it)| block_forward(shape, layer, it, *tokens, segments) + projection(shape))
            .collect();
        let mut tasks = vec![task(parts.embedding, 3 * prefix_encoder(shape), 0)];
        tasks.extend(forward.iter().zip(&parts.blocks).map(|(flops, part)| task(*part, *flops, 0)));
        let head = parts.with_tied_head();
        let times = 2 + u64::from(work.how.by_logps) + u64::from(head.trained > 0);
        let logits = if work.how.is_scored { 0 } else { head_flops(shape, work.batch.supervised) };
        tasks.push(task(head, times * logits, parts.head.trained));
        let (last, lets_go) = (shape.blocks.len() - 1, lets_go(work, self.collectives.shard));
        for (layer, block) in shape.blocks.iter().enumerate().rev() {
            // The last block's weights are still there.
            let is_let_go = lets_go && layer < last;
            let again = if is_let_go || work.how.checkpointing.rebuilds(layer) { forward[layer] } else { 0 };
            let backward = block_backward(shape, layer, block, *tokens, segments) + 2 * projection(shape);
            let part = if is_let_go { parts.blocks[layer] } else { PartBytes::default() };
            tasks.push(task(part, again + backward, parts.blocks[layer].trained));
        }
        if parts.embedding.trained > 0 {
            tasks.push(task(PartBytes::default(), 0, parts.embedding.trained));
        }
        tasks
    }

    /// What ranks sum up behind the last pass.
    pub(super) fn sum_up(&mut self) {
        self.now = self.now.max(self.coming);
        let Collectives { shard, replicate, .. } = *self.collectives;
        for part in self.parts.all().filter(|it| it.trained > 0) {
            let bytes = part.trained as f64;
            if shard > 1 && !self.shares(Zero::Two) {
                let cost = self.collectives.reduce_scatter(bytes);
                self.now = self.ask(cost);
            }
            if replicate > 1 {
                let cost = self.collectives.all_reduce(bytes / shard as f64);
                self.now = self.ask(cost);
            }
        }
    }

    /// Gathers what was updated, where every rank has it.
    pub(super) fn finish(mut self) -> Found {
        if self.collectives.shard > 1 && !self.shares(Zero::Three) {
            for part in self.parts.all().filter(|it| it.trained > 0) {
                let cost = self.collectives.gather(part.trained as f64);
                self.now = self.ask(cost);
            }
        }
        Found { seconds: self.now, computed: self.computed, received: self.received }
    }
}
