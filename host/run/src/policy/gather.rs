//! Prompts that are rolled out until enough of them teach something: DAPO's dynamic sampling,
//! <https://arxiv.org/abs/2503.14476>, eq. 11. A group whose rewards do not differ has no advantage, and a batch of such groups no
//! gradient.

use fthost_engine::objectives::GrpoConfig;
use fthost_engine::objectives::grpo::group_has_signal;
use fthost_engine::train::TrainState;

use super::{Sampled, Source};
use crate::error::{Result, RunError};
use crate::plugins::Plugins;
use crate::questions::Question;
use crate::rollout::Rollout;

/// Prompts beside their rows' positions in the data set.
pub(super) type Questions<'q> = Vec<(u64, &'q Question)>;

/// Everything that was sampled before a step, and what of it is learned from.
pub(super) struct Gathered {
    /// All groups, of every batch of prompts.
    pub(super) rollout: Rollout,
    /// The completions of the groups that are learned from, in order.
    pub(super) sampled: Vec<Sampled>,
    /// Completions of each of these groups.
    pub(super) sizes: Vec<usize>,
    /// What became of the batches, where groups were chosen.
    pub(super) figures: Vec<(String, f64)>,
}

/// Which groups of a batch teach something, and how many batches there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    /// Groups that are wanted.
    wanted: usize,
    /// Batches at most.
    batches: usize,
}

impl Choice {
    /// As `objective` has it, of `wanted` groups; `None` where every group is learned from.
    pub(super) fn of(objective: &GrpoConfig, wanted: usize) -> Option<Self> {
        objective.dynamic_sampling.then_some(Self { wanted, batches: objective.max_num_gen_batches })
    }
}

/// A batch of prompts, and more where `choice` wants more of them. `draw` gives so many of the next prompts at most.
///
/// # Errors
/// As [`Source::sample`], and a batch of which nothing was scored, once what was sampled is written.
pub(super) fn gather<'q>(
    source: &Source<'_>,
    state: &TrainState,
    plugins: &mut Plugins,
    choice: Option<Choice>,
    draw: &mut dyn FnMut(usize) -> Questions<'q>,
) -> Result<Gathered> {
    let prompts = source.rollout().prompts(&source.config.train);
    let questions = draw(prompts);
    let rollout = source.sample(state, plugins, &questions, 0)?;
    let groups = groups_of(source.sampled(&questions, &rollout.groups), &rollout);
    let mut all = Batches { rollout, kept: Vec::new(), left_out: Vec::new(), count: 1, last: 0 };
    let is_scored = groups.iter().flatten().any(|it| it.reward.is_some());
    match choice {
        None => all.kept = groups.into_iter().enumerate().collect(),
        Some(choice) => {
            all.choose(groups);
            while is_scored && all.kept.len() < choice.wanted && all.count < choice.batches {
                let questions = draw(choice.wanted - all.kept.len());
                let rollout = source.sample(state, plugins, &questions, all.count as u64)?;
                let groups = groups_of(source.sampled(&questions, &rollout.groups), &rollout);
                all.add(rollout);
                all.choose(groups);
            }
        }
    }
    let figures = choice.map_or_else(Vec::new, |it| all.figures(it.wanted));
    let gathered = all.gathered(prompts, figures);
    if state.ranks.is_first() {
        gathered.rollout.scores.write(&source.config.output.dir)?;
    }
    if !is_scored {
        let outcomes = gathered.rollout.scores.outcome_counts();
        return Err(RunError::NothingScored { step: state.step + 1, outcomes });
    }
    Ok(gathered)
}

/// Completions group by group.
fn groups_of(sampled: Vec<Sampled>, rollout: &Rollout) -> Vec<Vec<Sampled>> {
    let mut sampled = sampled.into_iter();
    rollout.groups.iter().map(|it| sampled.by_ref().take(it.completions.len()).collect()).collect()
}

/// Groups beside their positions among all.
type Placed = Vec<(usize, Vec<Sampled>)>;

/// What was sampled so far.
struct Batches {
    rollout: Rollout,
    kept: Placed,
    left_out: Placed,
    count: usize,
    /// Where the newest batch begins among all groups.
    last: usize,
}

impl Batches {
    fn add(&mut self, rollout: Rollout) {
        self.last = self.rollout.groups.len();
        self.count += 1;
        self.rollout.append(rollout);
    }

    /// Keeps those of the newest batch's `groups` that teach something.
    fn choose(&mut self, groups: Vec<Vec<Sampled>>) {
        for (index, group) in groups.into_iter().enumerate() {
            let rewards: Vec<Option<f32>> = group.iter().map(|it| it.reward).collect();
            let place = if group_has_signal(&rewards) { &mut self.kept } else { &mut self.left_out };
            place.push((self.last + index, group));
        }
    }

    fn figures(&self, wanted: usize) -> Vec<(String, f64)> {
        let missing = wanted.saturating_sub(self.kept.len());
        let named = [
            ("num_gen_batches", self.count),
            ("groups_left_out", self.left_out.len()),
            ("groups_missing", missing),
        ];
        named.map(|(name, count)| (format!("dynamic_sampling/{name}"), count as f64)).to_vec()
    }

    /// What is kept, or, where that is nothing, the newest `wanted` groups with a score: an optimizer step is taken in any case.
    fn gathered(self, wanted: usize, figures: Vec<(String, f64)>) -> Gathered {
        let Self { mut rollout, mut kept, mut left_out, .. } = self;
        if kept.is_empty() {
            let scored = left_out.iter().filter(|it| it.1.iter().any(|it| it.reward.is_some()));
            let mut newest: Vec<usize> = scored.map(|it| it.0).collect();
            newest.drain(..newest.len().saturating_sub(wanted));
            (kept, left_out) = left_out.into_iter().partition(|it| newest.contains(&it.0));
        }
        rollout.scores.left_out = left_out.iter().map(|it| it.0).collect();
        let sizes = kept.iter().map(|it| it.1.len()).collect();
        Gathered { rollout, sampled: kept.into_iter().flat_map(|it| it.1).collect(), sizes, figures }
    }
}
