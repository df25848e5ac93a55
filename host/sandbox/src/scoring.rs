//! A reward, played by as many instances as the run file says, in batches.
//!
//! How completions are cut into calls depends on `batch` alone, and a call is numbered by the step and the id of its first
//! group: its random numbers, and so its scores, depend neither on the number of workers, nor on who is faster, nor on what
//! was scored before.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fthost_data::{Failure, Group, OnFailure, Outcome, PluginIdentity, Reward, Then};

use crate::contract::ScoreGuest;
use crate::handle::{Handle, Parts, first_call};
use crate::roles::same_length;

type Scorer = Handle<Box<dyn ScoreGuest>>;

pub(crate) struct RewardRole {
    identity: PluginIdentity,
    workers: Vec<Scorer>,
    /// Completions a call, at least; groups are never cut.
    batch: usize,
    on_failure: OnFailure,
}

impl RewardRole {
    pub(crate) fn new(
        identity: PluginIdentity,
        parts: &Parts,
        workers: usize,
        batch: usize,
        on_failure: OnFailure,
    ) -> Self {
        let workers = (0..workers).map(|_| Handle::new(parts.clone())).collect();
        Self { identity, workers, batch, on_failure }
    }
}

/// Groups of a call.
fn batches(groups: &[Group], batch: usize) -> Vec<Range<usize>> {
    let (mut all, mut begin, mut completions) = (Vec::new(), 0, 0);
    for (index, group) in groups.iter().enumerate() {
        completions += group.completions.len();
        if completions >= batch || index + 1 == groups.len() {
            all.push(begin..index + 1);
            (begin, completions) = (index + 1, 0);
        }
    }
    all
}

/// One call.
fn score(worker: &mut Scorer, number: u64, groups: &[Group]) -> Result<Vec<Vec<Outcome>>, Failure> {
    let items = groups.iter().map(|it| it.completions.len()).sum();
    let all = worker.call_numbered(number, items, |guest, store| guest.score(store, groups))?;
    let contract = |message| Failure::Contract { message };
    let all = same_length("lists of outcomes", all, groups.len()).map_err(contract)?;
    let of_group = |(group, outcomes): (&Group, Vec<Outcome>)| {
        same_length("outcomes", outcomes, group.completions.len()).map_err(contract)
    };
    groups.iter().zip(all).map(of_group).collect()
}

/// One call; where it fails as a whole, that is the outcome of each completion: the policy counts and decides.
fn score_or_fail(worker: &mut Scorer, number: u64, groups: &[Group]) -> Vec<Vec<Outcome>> {
    score(worker, number, groups).unwrap_or_else(|failure| {
        let failed = |group: &Group| vec![Outcome::Failed(failure.clone()); group.completions.len()];
        groups.iter().map(failed).collect()
    })
}

/// Halves a call that failed as a whole until those that fail alone are known: they do not take others with them.
fn isolate(worker: &mut Scorer, number: u64, groups: &[Group]) -> Vec<Vec<Outcome>> {
    match score(worker, number, groups) {
        Ok(outcomes) => outcomes,
        Err(_) if groups.len() > 1 => {
            let (left, right) = groups.split_at(groups.len() / 2);
            let mut outcomes = isolate(worker, number, left);
            outcomes.extend(isolate(worker, number, right));
            outcomes
        }
        Err(_) => score_or_fail(worker, number, groups),
    }
}

fn has_failed(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|it| matches!(it, Outcome::Failed(_)))
}

/// A batch under the run file's policy. Only groups with a failure are tried again.
fn score_by_policy(
    worker: &mut Scorer,
    number: u64,
    groups: &[Group],
    policy: OnFailure,
) -> Vec<Vec<Outcome>> {
    let mut outcomes = score_or_fail(worker, number, groups);
    for _ in 0..policy.retry {
        let failed: Vec<usize> = (0..groups.len()).filter(|it| has_failed(&outcomes[*it])).collect();
        if failed.is_empty() {
            return outcomes;
        }
        let again: Vec<Group> = failed.iter().map(|it| groups[*it].clone()).collect();
        for (index, group) in failed.into_iter().zip(score_or_fail(worker, number, &again)) {
            outcomes[index] = group;
        }
    }
    let fails_whole = groups.len() > 1 && outcomes.iter().all(|it| has_failed(it));
    if policy.then == Then::Skip && fails_whole { isolate(worker, number, groups) } else { outcomes }
}

impl Reward for RewardRole {
    fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    fn score(&mut self, groups: &[Group]) -> Vec<Vec<Outcome>> {
        let batches = batches(groups, self.batch);
        let policy = self.on_failure;
        let results: Vec<Mutex<Vec<Vec<Outcome>>>> = batches.iter().map(|_| Mutex::default()).collect();
        let next = AtomicUsize::new(0);
        let work = |worker: &mut Scorer| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(batch) = batches.get(index) else { return };
                let groups = &groups[batch.clone()];
                // It seeds what is drawn: any number will do, and so will any id.
                let number = groups.first().map_or(0, |it| first_call(it.step).wrapping_add(it.id));
                let scored = score_by_policy(worker, number, groups, policy);
                *results[index].lock().unwrap_or_else(PoisonError::into_inner) = scored;
            }
        };
        let busy = self.workers.len().min(batches.len());
        match &mut self.workers[..busy] {
            [] => {}
            [only] => work(only),
            several => std::thread::scope(|scope| {
                for worker in several {
                    scope.spawn(|| work(worker));
                }
            }),
        }
        let outcomes: Vec<Vec<Outcome>> = results
            .into_iter()
            .flat_map(|it| it.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let mut usage = self.workers[0].shared().meter.lock();
        for outcome in outcomes.iter().flatten() {
            usage.outcome(outcome.kind(), 1);
        }
        drop(usage);
        outcomes
    }
}
