//! `fthost replay` and `fthost rescore`: the scores of a run, computed again from what was recorded.

use std::path::{Path, PathBuf};

use fthost_data::{Group, Outcome, PluginIdentity, Reward};
use fthost_sandbox::{
    LogSink, ModelSlot, Plugin, PluginConfig, PluginTable, Sandbox, SandboxConfig, SearchPath,
};
use serde::Serialize;

use crate::asked::Recorded;
use crate::error::{Result, RunError};
use crate::kept::Kept;
use crate::lock;
use crate::packages::Packages;
use crate::place::cache_dir;
use crate::scores::Scores;

/// Differences that are shown one by one.
const SHOWN: usize = 10;

/// One reward of a run against what it, or another, says now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rescored {
    /// Who scored in the run.
    pub before: PluginIdentity,
    /// Who scores now.
    pub after: PluginIdentity,
    /// Completions compared.
    pub scored: usize,
    /// Those whose outcome is another.
    pub changed: usize,
    /// Mean of the scores in the run; over the completions that have one.
    pub mean_before: Option<f64>,
    /// Mean of the scores now.
    pub mean_after: Option<f64>,
    /// Pearson's correlation over completions that have both; none where one side does not vary.
    pub correlation: Option<f64>,
    /// Pairs of completions of one group whose order turned around, which is what trainers look at.
    pub turned_pairs: usize,
    /// Pairs of completions of one group that both sides order.
    pub ordered_pairs: usize,
    /// The first differences.
    pub differences: Vec<Difference>,
}

/// One completion with another outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Optimizer step.
    pub step: u64,
    /// The group's id.
    pub group: u64,
    /// Position in the group.
    pub completion: usize,
    /// In the run.
    pub before: Outcome,
    /// Now.
    pub after: Outcome,
}

/// The plugins of sets, by name or file, and of components given by file; a later one lies over an earlier one. Each with the
/// file that is to be loaded, as a run would find and check it; no lock file is written.
///
/// # Errors
/// What is not found, a set that can't be understood, and a package that trust or lock file refuse.
pub fn table(given: &[String], packages: &Packages, search: &SearchPath) -> Result<PluginTable> {
    let sets = packages.sets(search);
    let (mut table, mut named) = (PluginTable::default(), Vec::new());
    for name in given {
        let path = Path::new(name);
        if path.extension().is_some_and(|it| it == "wasm") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let config = PluginConfig { component: Some(path.to_path_buf()), ..PluginConfig::default() };
            table.put(stem, config);
            continue;
        }
        for (name, config) in sets.plugins(name)?.0 {
            table.put(name, config);
        }
        named.push(name.clone());
    }
    Ok(packages.look_up(&table, &named, search)?.table)
}

/// Scores again by the run's own rewards, of the same digests and configuration, offline.
///
/// # Errors
/// A run without scores, rewards that are not at hand.
pub fn replay(folder: &Path, search: &SearchPath, log: LogSink) -> Result<Vec<Rescored>> {
    let scores = Scores::read_all(folder)?;
    let (table, seed) = lock::read(folder)?;
    let mut rewards = Vec::new();
    for before in &scores[0].rewards {
        let name = &before.plugin.name;
        let mut config = table.0.iter().find(|it| it.0 == *name).map(|it| it.1.clone()).unwrap_or_default();
        let component = Kept::component(&before.plugin, &config, search)?;
        for (resource, granted) in &mut config.grants.resources {
            granted.file = Kept::resource(name, resource, granted, &component)?;
        }
        config.digest = Some(before.plugin.digest.clone());
        rewards.push((name.clone(), component, config));
    }
    let pairs = scores[0].rewards.iter().map(|it| it.plugin.name.clone());
    let pairs: Vec<(String, String)> = pairs.map(|it| (it.clone(), it)).collect();
    compare(&scores, rewards, &pairs, seed, log)
}

/// Scores a run's completions by other rewards: those of `table`, each beside the run's reward of its name, or beside the
/// run's only one.
///
/// # Errors
/// A run without scores, rewards that are not found or that no reward of the run stands beside.
pub fn rescore(folder: &Path, table: &PluginTable, log: LogSink) -> Result<Vec<Rescored>> {
    let scores = Scores::read_all(folder)?;
    let (_, seed) = lock::read(folder)?;
    let run: Vec<&str> = scores[0].rewards.iter().map(|it| it.plugin.name.as_str()).collect();
    let (mut rewards, mut pairs) = (Vec::new(), Vec::new());
    for (name, config) in &table.0 {
        let before = match run.as_slice() {
            run if run.contains(&name.as_str()) => name.clone(),
            [only] => (*only).to_string(),
            _ => continue,
        };
        let component = config
            .component
            .clone()
            .ok_or_else(|| RunError::NothingToCompare { run: run.join("`, `"), given: vec![name.clone()] })?;
        rewards.push((name.clone(), component, config.clone()));
        pairs.push((before, name.clone()));
    }
    if rewards.is_empty() {
        let (run, given) = (run.join("`, `"), table.0.iter().map(|it| it.0.clone()).collect());
        return Err(RunError::NothingToCompare { run, given });
    }
    compare(&scores, rewards, &pairs, seed, log)
}

fn compare(
    scores: &[Scores],
    rewards: Vec<(String, PathBuf, PluginConfig)>,
    pairs: &[(String, String)],
    seed: u64,
    log: LogSink,
) -> Result<Vec<Rescored>> {
    let models = ModelSlot::default();
    let cache_dir = Some(cache_dir().join("components"));
    let sandbox = Sandbox::new(SandboxConfig { cache_dir, seed, log, model: models.clone() })?;
    let mut found = Vec::new();
    for ((before, _), (name, component, config)) in pairs.iter().zip(rewards) {
        let plugin: Plugin = sandbox.load(&name, &component, &config)?;
        let mut reward = plugin.reward()?;
        let mut comparison: Option<Tally> = None;
        for at_step in scores {
            let Some(recorded) = at_step.rewards.iter().find(|it| it.plugin.name == *before) else {
                continue;
            };
            for (model, answers) in Recorded::models(&at_step.asked) {
                models.set(model, Some(Box::new(answers)));
            }
            let groups = at_step.plain_groups();
            let after = match at_step.rollout {
                true => groups.chunks(1).flat_map(|it| reward.score(it)).collect(),
                false => reward.score(&groups),
            };
            let after = through_text(after);
            let tally = comparison.get_or_insert_with(|| Tally::new(&recorded.plugin, reward.as_ref()));
            tally.add(at_step.step, &groups, &recorded.outcomes, &after);
        }
        found.extend(comparison.map(Tally::finish));
    }
    Ok(found)
}

/// What was recorded went through JSON, which may round the last bit of a number when it is read: so does the other side.
fn through_text(outcomes: Vec<Vec<Outcome>>) -> Vec<Vec<Outcome>> {
    let text = serde_json::to_string(&outcomes).expect("outcomes serialise");
    serde_json::from_str(&text).expect("outcomes are read as they were written")
}

/// A comparison in work.
struct Tally {
    rescored: Rescored,
    before: Vec<f64>,
    after: Vec<f64>,
    both: Vec<(f64, f64)>,
}

impl Tally {
    fn new(before: &PluginIdentity, after: &dyn Reward) -> Self {
        let rescored = Rescored {
            before: before.clone(),
            after: after.identity().clone(),
            scored: 0,
            changed: 0,
            mean_before: None,
            mean_after: None,
            correlation: None,
            turned_pairs: 0,
            ordered_pairs: 0,
            differences: Vec::new(),
        };
        Self { rescored, before: Vec::new(), after: Vec::new(), both: Vec::new() }
    }

    fn add(&mut self, step: u64, groups: &[Group], before: &[Vec<Outcome>], after: &[Vec<Outcome>]) {
        for (group, (before, after)) in groups.iter().zip(before.iter().zip(after)) {
            for (completion, (old, new)) in before.iter().zip(after).enumerate() {
                self.rescored.scored += 1;
                self.before.extend(old.value());
                self.after.extend(new.value());
                self.both.extend(old.value().zip(new.value()));
                if old != new {
                    self.rescored.changed += 1;
                    if self.rescored.differences.len() < SHOWN {
                        let (before, after) = (old.clone(), new.clone());
                        let difference = Difference { step, group: group.id, completion, before, after };
                        self.rescored.differences.push(difference);
                    }
                }
            }
            let pairs: Vec<(f64, f64)> =
                before.iter().zip(after).filter_map(|(old, new)| old.value().zip(new.value())).collect();
            for (index, a) in pairs.iter().enumerate() {
                for b in &pairs[index + 1..] {
                    let turned = (a.0 - b.0) * (a.1 - b.1);
                    self.rescored.ordered_pairs += usize::from(turned != 0.0);
                    self.rescored.turned_pairs += usize::from(turned < 0.0);
                }
            }
        }
    }

    fn finish(mut self) -> Rescored {
        let mean = |all: &[f64]| (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
        self.rescored.mean_before = mean(&self.before);
        self.rescored.mean_after = mean(&self.after);
        self.rescored.correlation = correlation(&self.both);
        self.rescored
    }
}

/// Pearson's.
pub(crate) fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let n = pairs.len() as f64;
    let mean_a = pairs.iter().map(|it| it.0).sum::<f64>() / n;
    let mean_b = pairs.iter().map(|it| it.1).sum::<f64>() / n;
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        let (a, b) = (a - mean_a, b - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_is_pearsons() {
        assert_eq!(correlation(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(1.0));
        assert_eq!(correlation(&[(0.0, 1.0), (1.0, -1.0)]), Some(-1.0));
        assert_eq!(correlation(&[(1.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(correlation(&[]), None);
    }
}
