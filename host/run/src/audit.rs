//! `plugins.json`: who played in a run, and what `fthost plugin audit` tells of it.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_data::Outcome;
use fthost_sandbox::Grants;
use serde::{Deserialize, Serialize};

use crate::error::{Result, RunError};
use crate::plugins::{PluginUsage, Plugins};
use crate::scores::Scores;

/// In the output folder.
pub const FILE: &str = "plugins.json";

/// One plugin of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditedPlugin {
    /// Who, and what it used up.
    #[serde(flatten)]
    pub usage: PluginUsage,
    /// The roles it played.
    pub roles: Vec<String>,
    /// The version of the contract it was built for.
    pub contract: String,
    /// What it was granted; what it used of it stands in `asked`.
    pub grants: Grants,
    /// Files that it could read, with their digests.
    pub resources: BTreeMap<String, String>,
    /// Key of whoever signed its package; none where it was not signed.
    pub signer: Option<String>,
    /// Its scores over the whole run, where it is a reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<ScoreSummary>,
}

/// Scores of a run in short.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScoreSummary {
    /// Completions with a score.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// Writes `plugins.json`, whole or not at all.
///
/// # Errors
/// Files that can't be written.
pub fn write(plugins: &Plugins, folder: &Path) -> Result<()> {
    let audited = plugins.loaded.iter().zip(plugins.usage()).map(|(plugin, usage)| AuditedPlugin {
        usage,
        roles: plugin.roles().iter().map(ToString::to_string).collect(),
        contract: plugin.contract().to_string(),
        grants: plugin.config().grants.clone(),
        resources: plugin.resources().into_iter().collect(),
        signer: plugins.signers.get(&plugin.identity().name).cloned(),
        scores: None,
    });
    let audited: Vec<AuditedPlugin> = audited.collect();
    let (path, temporary) = (folder.join(FILE), folder.join(format!(".{FILE}")));
    let text = serde_json::to_string_pretty(&audited).expect("an audit serialises");
    std::fs::write(&temporary, format!("{text}\n"))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(RunError::output(&path))
}

/// Every plugin of the run in `folder`, with its scores in short.
///
/// # Errors
/// A folder that holds no finished run.
pub fn read(folder: &Path) -> Result<Vec<AuditedPlugin>> {
    let path = folder.join(FILE);
    let bad = |reason: String| RunError::NoAudit { path: path.clone(), reason };
    let text = std::fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
    let mut audited: Vec<AuditedPlugin> =
        serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let scores = match Scores::read_all(folder) {
        Err(RunError::NoScores { .. }) => Vec::new(),
        read => read?,
    };
    for plugin in &mut audited {
        plugin.scores = summary(&plugin.usage.plugin.name, &scores);
    }
    Ok(audited)
}

fn summary(plugin: &str, scores: &[Scores]) -> Option<ScoreSummary> {
    let rewards = scores.iter().flat_map(|it| &it.rewards).filter(|it| it.plugin.name == plugin);
    let values = rewards.flat_map(|it| it.outcomes.iter().flatten()).filter_map(Outcome::value);
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| ScoreSummary {
        count: values.len(),
        mean: values.iter().sum::<f64>() / values.len() as f64,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    })
}
