//! What a plugin may ask of the host beyond `log`, `random` and the files of its own package.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fthost_data::ModelName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[plugins.<name>.grants]`. Nothing is granted by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Models that may be asked for completions.
    pub generate: GrantedModels,
    /// Models that may be asked for log-probabilities.
    pub logprobs: GrantedModels,
    /// Models that may be asked for embeddings.
    pub embed: GrantedModels,
    /// Files that may be read, by the name under which the plugin asks for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, GrantedFile>,
}

/// Models, written `true` (the run's own), `false`, or a list of `"run"`, `"reference"` and `"judges.<name>"`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrantedModels(pub Vec<ModelName>);

/// A file that a plugin may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantedFile {
    /// Where it lies.
    pub file: PathBuf,
    /// `sha256:<hex>` of its bytes: another file is refused.
    pub digest: String,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected `true`, `false` or a list of `\"run\"`, `\"reference\"`, `\"judges.<name>\"`"
)]
enum Written {
    Run(bool),
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for GrantedModels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = match Written::deserialize(deserializer)? {
            Written::Run(false) => Vec::new(),
            Written::Run(true) => vec![ModelName::Run],
            Written::List(names) => {
                let names: Result<_, String> = names.iter().map(|it| it.parse()).collect();
                names.map_err(serde::de::Error::custom)?
            }
        };
        Ok(Self(names))
    }
}

impl Serialize for GrantedModels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [] => serializer.serialize_bool(false),
            [ModelName::Run] => serializer.serialize_bool(true),
            names => serializer.collect_seq(names.iter().map(ToString::to_string)),
        }
    }
}

impl GrantedModels {
    /// Whether `model` may be asked.
    pub fn has(&self, model: &ModelName) -> bool {
        self.0.contains(model)
    }
}

impl Grants {
    /// Whether any model may be asked for anything.
    pub fn asks_models(&self) -> bool {
        self.models().next().is_some()
    }

    /// Every model that may be asked, once or several times.
    pub fn models(&self) -> impl Iterator<Item = &ModelName> {
        self.generate.0.iter().chain(&self.logprobs.0).chain(&self.embed.0)
    }

    /// Whether `import` of `model` is granted.
    pub(crate) fn has(&self, import: &str, model: &ModelName) -> bool {
        self.of(import).is_some_and(|it| it.has(model))
    }

    fn of(&self, import: &str) -> Option<&GrantedModels> {
        match import {
            "generate" => Some(&self.generate),
            "logprobs" => Some(&self.logprobs),
            "embed" => Some(&self.embed),
            _ => None,
        }
    }

    /// The run file's line that would grant `import` of `model` to `plugin`, beside what is granted already.
    pub(crate) fn line(&self, plugin: &str, import: &str, model: &ModelName) -> String {
        let mut granted = self.of(import).cloned().unwrap_or_default();
        granted.0.push(model.clone());
        let value = match granted.0.as_slice() {
            [ModelName::Run] => "true".to_string(),
            names => {
                let quoted: Vec<String> = names.iter().map(|it| format!("\"{it}\"")).collect();
                format!("[{}]", quoted.join(", "))
            }
        };
        format!("`plugins.{plugin}.grants.{import} = {value}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_granted_by_name_and_true_is_the_runs_own() {
        let text = "generate = true\nlogprobs = [\"reference\", \"judges.big\"]\n";
        let grants: Grants = toml::from_str(text).unwrap();
        assert!(grants.has("generate", &ModelName::Run) && !grants.has("generate", &ModelName::Reference));
        assert!(grants.has("logprobs", &ModelName::Judge("big".into())));
        assert!(!grants.has("embed", &ModelName::Run));
        let again: Grants = toml::from_str(&toml::to_string(&grants).unwrap()).unwrap();
        assert_eq!(again, grants);
    }

    #[test]
    fn the_line_that_would_grant_keeps_what_is_granted() {
        let grants: Grants = toml::from_str("generate = true").unwrap();
        let judge = ModelName::Judge("big".into());
        assert_eq!(
            grants.line("p", "generate", &judge),
            r#"`plugins.p.grants.generate = ["run", "judges.big"]`"#
        );
        assert_eq!(grants.line("p", "embed", &ModelName::Run), "`plugins.p.grants.embed = true`");
    }

    #[test]
    fn a_model_that_cant_exist_is_refused() {
        let error = toml::from_str::<Grants>("generate = [\"gpt\"]").unwrap_err().to_string();
        assert!(
            error.contains("`gpt` is no model; known are `run`, `reference` and `judges.<name>`"),
            "{error}"
        );
    }
}
