//! `fthost replay` and `fthost rescore`: the scores of a run, computed again from what was recorded.

use std::path::Path;

use fthost_data::{Group, Outcome, PluginIdentity, Reward};
use fthost_engine::device::DeviceKind;
use fthost_sandbox::{LogSink, ModelSlot, PluginConfig, PluginTable, Sandbox, SandboxConfig, SearchPath};
use serde::Serialize;

use crate::asked::Recorded;
use crate::error::{Result, RunError};
use crate::kept::Kept;
use crate::lock::{self, Locked};
use crate::models::{self, ModelConfig};
use crate::packages::Packages;
use crate::place::cache_dir;
use crate::reward_model::{RewardModel, RewardModelConfig, RewardModels};
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

/// Rewards to score by in place of a run's.
#[derive(Debug, Clone, Default)]
pub struct Others {
    /// Of sets and components.
    pub plugins: PluginTable,
    /// Reward models, by name.
    pub models: RewardModels,
}

/// Sets by name or file, components by file and reward models by folder, the last two also as `name=path`; a later one
/// lies over an earlier one. Plugins with the file that is to be loaded, as a run would find and check it; no lock file is
/// written.
///
/// # Errors
/// What is not found, a set that can't be understood, and a package that trust or lock file refuse.
pub fn others(given: &[String], packages: &Packages, search: &SearchPath) -> Result<Others> {
    let sets = packages.sets(search);
    let (mut table, mut models, mut named) = (PluginTable::default(), RewardModels::new(), Vec::new());
    for text in given {
        let named_path = text.split_once('=').filter(|_| !Path::new(text).exists());
        let (name, path) = named_path.map_or((None, text.as_str()), |it| (Some(it.0), it.1));
        let path = Path::new(path);
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.map_or(stem, str::to_string);
        if path.is_dir() {
            models.insert(name, RewardModelConfig::of(path));
        } else if path.extension().is_some_and(|it| it == "wasm") {
            let config = PluginConfig { component: Some(path.to_path_buf()), ..PluginConfig::default() };
            table.put(name, config);
        } else {
            for (name, config) in sets.plugins(text)?.0 {
                table.put(name, config);
            }
            named.push(text.clone());
        }
    }
    Ok(Others { plugins: packages.look_up(&table, &named, search)?.table, models })
}

/// Scores again by the run's own rewards, of the same digests and configuration, offline.
///
/// # Errors
/// A run without scores, rewards that are not at hand, and a reward model that has changed since.
pub fn replay(folder: &Path, search: &SearchPath, device: DeviceKind, log: LogSink) -> Result<Vec<Rescored>> {
    let scores = Scores::read_all(folder)?;
    let locked = lock::read(folder)?;
    let loader = Loader::new(&locked, device, log)?;
    let mut scorers = Vec::new();
    for before in &scores[0].rewards {
        let name = &before.plugin.name;
        if let Some(config) = locked.rewards.get(name) {
            let model = loader.model(name, config)?;
            let now = &model.identity().digest;
            if *now != before.plugin.digest {
                let (reward, folder) = (name.clone(), config.path.clone());
                let (before, now) = (before.plugin.digest.clone(), now.clone());
                return Err(RunError::AnotherRewardModel { reward, folder, before, now });
            }
            scorers.push(Scorer { before: name.clone(), reward: model });
            continue;
        }
        let config = locked.plugins.0.iter().find(|it| it.0 == *name);
        let mut config = config.map(|it| it.1.clone()).unwrap_or_default();
        let component = Kept::component(&before.plugin, &config, search)?;
        for (resource, granted) in &mut config.grants.resources {
            granted.file = Kept::resource(name, resource, granted, &component)?;
        }
        config.digest = Some(before.plugin.digest.clone());
        scorers.push(Scorer { before: name.clone(), reward: loader.plugin(name, &component, &config)? });
    }
    loader.compare(&scores, scorers)
}

/// Scores a run's completions by `others`, each beside the run's reward of its name, or beside the run's only one.
///
/// # Errors
/// A run without scores, rewards that are not found or that no reward of the run stands beside.
pub fn rescore(folder: &Path, others: &Others, device: DeviceKind, log: LogSink) -> Result<Vec<Rescored>> {
    let scores = Scores::read_all(folder)?;
    let loader = Loader::new(&lock::read(folder)?, device, log)?;
    let run: Vec<&str> = scores[0].rewards.iter().map(|it| it.plugin.name.as_str()).collect();
    let beside = |name: &String| match run.as_slice() {
        run if run.contains(&name.as_str()) => Some(name.clone()),
        [only] => Some((*only).to_string()),
        _ => None,
    };
    let nothing = |given: Vec<String>| Err(RunError::NothingToCompare { run: run.join("`, `"), given });
    let mut scorers = Vec::new();
    for (name, config) in &others.plugins.0 {
        let Some(before) = beside(name) else { continue };
        let Some(component) = &config.component else { return nothing(vec![name.clone()]) };
        scorers.push(Scorer { before, reward: loader.plugin(name, component, config)? });
    }
    for (name, config) in &others.models {
        let Some(before) = beside(name) else { continue };
        scorers.push(Scorer { before, reward: loader.model(name, config)? });
    }
    if scorers.is_empty() {
        let plugins = others.plugins.0.iter().map(|it| it.0.clone());
        return nothing(plugins.chain(others.models.keys().cloned()).collect());
    }
    loader.compare(&scores, scorers)
}

/// A reward, and the name of the run's beside which it stands.
struct Scorer {
    before: String,
    reward: Box<dyn Reward>,
}

/// Loads rewards as the run did, for whom what models said in the run is played.
struct Loader {
    sandbox: Sandbox,
    answers: ModelSlot,
    /// The run's model.
    base: ModelConfig,
    device: DeviceKind,
}

impl Loader {
    fn new(locked: &Locked, device: DeviceKind, log: LogSink) -> Result<Self> {
        let answers = ModelSlot::default();
        let cache_dir = Some(cache_dir().join("components"));
        let config = SandboxConfig { cache_dir, seed: locked.seed, log, model: answers.clone() };
        Ok(Self { sandbox: Sandbox::new(config)?, answers, base: locked.model.clone(), device })
    }

    fn plugin(&self, name: &str, component: &Path, config: &PluginConfig) -> Result<Box<dyn Reward>> {
        Ok(self.sandbox.load(name, component, config)?.reward()?)
    }

    fn model(&self, name: &str, config: &RewardModelConfig) -> Result<Box<dyn Reward>> {
        let base = models::resolve(&self.base)?.folder;
        Ok(Box::new(RewardModel::open(name, config, &base, self.device)?))
    }

    fn compare(&self, scores: &[Scores], scorers: Vec<Scorer>) -> Result<Vec<Rescored>> {
        let mut found = Vec::new();
        for Scorer { before, mut reward } in scorers {
            let mut comparison: Option<Tally> = None;
            for at_step in scores {
                let Some(recorded) = at_step.rewards.iter().find(|it| it.plugin.name == before) else {
                    continue;
                };
                for (model, answers) in Recorded::models(&at_step.asked) {
                    self.answers.set(model, Some(Box::new(answers)));
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
