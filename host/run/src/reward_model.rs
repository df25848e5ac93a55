//! `[rewards.<name>]`: reward models that score beside plugins, in process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_data::{
    Batch, Columns, Completion, Content, Example, Failure, Group, Message, Origin, Outcome, PluginIdentity,
    Prompt, Reward, RewardTerm, Role, Score, Sequence, Tokenizer, encode,
};
use fthost_engine::checkpoint::load_model;
use fthost_engine::device::{self, DeviceKind};
use fthost_engine::models::CausalLm;
use fthost_engine::train::sequence_rewards;
use serde::{Deserialize, Serialize};

use crate::adapter_base::load_adapter;
use crate::config::RunConfig;
use crate::digest;
use crate::error::{Result, RunError};
use crate::plugins::Plugins;

/// `[rewards]`, by name.
pub type RewardModels = BTreeMap<String, RewardModelConfig>;

/// `[rewards.<name>]`. What a score counts is said as in [`RewardTerm`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardModelConfig {
    /// A model for sequence classification with one label, whole or as a PEFT adapter: what `[objective.reward]` leaves.
    pub path: PathBuf,
    /// The model that an adapter was trained on; the run's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// As [`RewardTerm::weight`].
    #[serde(default = "whole")]
    pub weight: f64,
    /// As [`RewardTerm::clip`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<[f64; 2]>,
    /// As [`RewardTerm::gate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<f64>,
}

fn whole() -> f64 {
    RewardTerm::default().weight
}

impl RewardModelConfig {
    /// The reward model in `path`, which counts whole.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_path_buf(), base: None, weight: whole(), clip: None, gate: None }
    }

    /// Its part in the sum of all rewards.
    pub fn term(&self) -> RewardTerm {
        RewardTerm { weight: self.weight, clip: self.clip, gate: self.gate }
    }
}

/// Opens the reward models of `config` that are not open yet, and lets them score after the plugins.
///
/// # Errors
/// A folder that can't be loaded, and a model without a scalar head.
pub(crate) fn open(config: &RunConfig, plugins: &mut Plugins, device: DeviceKind) -> Result<()> {
    for (name, of) in &config.rewards {
        if plugins.terms.contains_key(name) {
            continue;
        }
        plugins.rewards.push(Box::new(RewardModel::open(name, of, config.model.folder(), device)?));
        plugins.terms.insert(name.clone(), of.term());
    }
    Ok(())
}

/// A reward model that can be asked.
pub(crate) struct RewardModel {
    identity: PluginIdentity,
    model: CausalLm,
    tokenizer: Tokenizer,
}

impl RewardModel {
    /// Of the name `name`; `own_base` is the run's model, for an adapter that names no other.
    ///
    /// # Errors
    /// A folder that can't be loaded, and a model without a scalar head.
    pub(crate) fn open(
        name: &str,
        config: &RewardModelConfig,
        own_base: &Path,
        device: DeviceKind,
    ) -> Result<Self> {
        let opened = device::open(device)?;
        let adapter = config.path.join("adapter_config.json").exists();
        let (folder, weights) = match adapter {
            true => (config.base.as_deref().unwrap_or(own_base), "adapter_model.safetensors"),
            false => (config.path.as_path(), "model.safetensors"),
        };
        let mut model = load_model(folder, &opened)?;
        if adapter {
            load_adapter(&mut model, &config.path, folder)?;
        }
        if model.score.is_none() {
            return Err(RunError::NoScoreHead { reward: name.to_string(), folder: config.path.clone() });
        }
        let weights = config.path.join(weights);
        let digest = if weights.exists() { digest::of_file(&weights)? } else { digest::of_model(folder)? };
        let identity = PluginIdentity { name: name.to_string(), version: "0.0.0".into(), digest };
        Ok(Self { identity, model, tokenizer: Tokenizer::load(folder)? })
    }

    /// The completion behind its prompt, as a pair's answers are laid out.
    fn sequence(&self, prompt: &Prompt, text: &str) -> fthost_data::Result<Sequence> {
        let completion = match prompt {
            Prompt::Text(_) => Completion::Text(text.to_string()),
            Prompt::Messages(_) => Completion::Messages(vec![Message::new(Role::Assistant, text)]),
        };
        let content = Content::PromptCompletion { prompt: prompt.clone(), completion };
        let origin = Origin { source: Arc::from("rollout"), line: 0 };
        let example = Example { content, columns: Columns::new(), origin, provenance: Vec::new() };
        encode::encode(&example, &self.tokenizer, self.model.context_length())
    }

    fn score_group(&self, group: &Group) -> Vec<Outcome> {
        let failed = |message: String| Outcome::Failed(Failure::Plugin { message });
        let encoded: Vec<_> =
            group.completions.iter().map(|it| self.sequence(&group.prompt, &it.text)).collect();
        let batch = Batch::new(encoded.iter().flatten());
        let mut rewards = Vec::new().into_iter();
        if !batch.is_empty() {
            rewards = sequence_rewards(&self.model, &batch).unwrap_or_default().into_iter();
        }
        let outcome = |encoded: fthost_data::Result<Sequence>| match encoded {
            Err(error) => failed(error.to_string()),
            Ok(_) => match rewards.next().map(f64::from).filter(|it| it.is_finite()) {
                Some(value) => Outcome::Ok(Score { value, components: Vec::new() }),
                None => failed("a reward that is not finite".into()),
            },
        };
        encoded.into_iter().map(outcome).collect()
    }
}

impl Reward for RewardModel {
    fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    fn score(&mut self, groups: &[Group]) -> Vec<Vec<Outcome>> {
        groups.iter().map(|it| self.score_group(it)).collect()
    }
}
