//! `scores/step-<n>.json`, of an evaluation, and `scores/rollout-<n>.json`: what rewards were given and what they said,
//! complete enough to ask them again.

use std::path::{Path, PathBuf};

use fthost_data::digest::sha256;
use fthost_data::{Group, Outcome, PluginIdentity};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::asked::Asked;
use crate::error::{Result, RunError};

/// In the output folder: a file an evaluation.
pub const FOLDER: &str = "scores";

/// Everything that was scored at one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Optimizer steps done.
    pub step: u64,
    /// Whether training learned from it: every group was then scored by a call of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollout: bool,
    /// What was scored.
    pub groups: Vec<ScoredGroup>,
    /// Whoever scored, in the run's order.
    pub rewards: Vec<RewardScores>,
    /// The sum of all rewards that was learned from, group by group; `null` where a reward failed, or all abstained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sums: Vec<Vec<Option<f64>>>,
    /// Positions of the groups that nothing was learned from, because their rewards do not differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<usize>,
    /// What rewards asked models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
}

/// A group with the digest of all that a reward sees of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredGroup {
    /// `sha256:<hex>`.
    pub digest: String,
    /// What a reward sees.
    #[serde(flatten)]
    pub group: Group,
}

/// One reward's outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardScores {
    /// Who scored.
    #[serde(flatten)]
    pub plugin: PluginIdentity,
    /// Group by group, completion by completion.
    pub outcomes: Vec<Vec<Outcome>>,
}

fn digest_of(group: &Group) -> String {
    sha256(json!(group).to_string().as_bytes())
}

impl Scores {
    /// Of `groups`, not scored yet.
    pub fn new(step: u64, groups: &[Group]) -> Self {
        let scored = |group: &Group| ScoredGroup { digest: digest_of(group), group: group.clone() };
        let groups = groups.iter().map(scored).collect();
        let (rewards, sums, left_out, asked) = Default::default();
        Self { step, rollout: false, groups, rewards, sums, left_out, asked }
    }

    /// Of the `groups` of a rollout, whose scores are to be added.
    pub fn of_rollout(step: u64, groups: &[Group]) -> Self {
        Self { rollout: true, ..Self::new(step, groups) }
    }

    /// Adds further groups, which the same rewards scored at the same step.
    pub(crate) fn append(&mut self, other: Self) {
        self.groups.extend(other.groups);
        for (mine, theirs) in self.rewards.iter_mut().zip(other.rewards) {
            mine.outcomes.extend(theirs.outcomes);
        }
        self.sums.extend(other.sums);
        self.asked.extend(other.asked);
    }

    /// How often each reward had each outcome, as `<plugin> <kind>`, in the order in which they are met.
    pub fn outcome_counts(&self) -> Vec<(String, u64)> {
        let mut counts: Vec<(String, u64)> = Vec::new();
        for reward in &self.rewards {
            for outcome in reward.outcomes.iter().flatten() {
                let name = format!("{} {}", reward.plugin.name, outcome.kind());
                match counts.iter_mut().find(|it| it.0 == name) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((name, 1)),
                }
            }
        }
        counts
    }

    /// The groups as rewards see them.
    pub fn plain_groups(&self) -> Vec<Group> {
        self.groups.iter().map(|it| it.group.clone()).collect()
    }

    /// Writes the scores into an output folder, whole or not at all.
    ///
    /// # Errors
    /// Files that can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let parent = folder.join(FOLDER);
        let kind = if self.rollout { "rollout" } else { "step" };
        let path = parent.join(format!("{kind}-{}.json", self.step));
        let temporary = parent.join(".scores.json");
        let text = serde_json::to_string(self).expect("scores serialise");
        std::fs::create_dir_all(&parent)
            .and_then(|()| std::fs::write(&temporary, format!("{text}\n")))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(RunError::output(&path))
    }

    /// Every file of a run, in the order of steps.
    ///
    /// # Errors
    /// A folder without scores, a file that can't be read, and groups that are not those their digests name.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let none = || RunError::NoScores { folder: folder.to_path_buf() };
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder.join(FOLDER)).map_err(|_| none())?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|it| it == "json") {
                all.push(Self::read(&path)?);
            }
        }
        if all.is_empty() {
            return Err(none());
        }
        all.sort_by_key(|it| (it.step, it.rollout));
        Ok(all)
    }

    /// What a run sampled and learned from, in the order of steps.
    ///
    /// # Errors
    /// As [`Scores::read_all`].
    pub fn rollouts(folder: &Path) -> Result<Vec<Self>> {
        let mut all = Self::read_all(folder)?;
        all.retain(|it| it.rollout);
        match all.is_empty() {
            true => Err(RunError::NoScores { folder: folder.to_path_buf() }),
            false => Ok(all),
        }
    }

    fn read(path: &PathBuf) -> Result<Self> {
        let damaged = |reason: String| RunError::DamagedScores { path: path.clone(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| damaged(error.to_string()))?;
        let scores: Self = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        for it in &scores.groups {
            let found = digest_of(&it.group);
            if found != it.digest {
                let id = it.group.id;
                return Err(damaged(format!("group {id} has digest {found}, not {} as recorded", it.digest)));
            }
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_data::{Candidate, Finish, Prompt};

    #[test]
    fn a_changed_input_is_noticed_by_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let completion = Candidate { text: "four".into(), token_count: 1, finish: Finish::Stop };
        let group = Group {
            id: 3,
            step: 2,
            occasion: Default::default(),
            prompt: Prompt::Text("2 + 2".into()),
            completions: vec![completion],
            columns: fthost_data::Columns::new(),
        };
        Scores::new(2, &[group]).write(folder.path()).unwrap();
        let read = Scores::read_all(folder.path()).unwrap();
        assert_eq!(read[0].plain_groups()[0].completions[0].text, "four");
        let path = folder.path().join(FOLDER).join("step-2.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("four", "five")).unwrap();
        let error = Scores::read_all(folder.path()).unwrap_err().to_string();
        assert!(error.contains("group 3 has digest sha256:"), "{error}");
    }
}
