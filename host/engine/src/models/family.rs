//! Which family a `config.json` is of, by its `architectures`.

use std::path::Path;

use serde_json::Value;

use super::decoder::{DecoderConfig, LLAMA_NAMES, Names};
use super::keys::Keys;
use super::{
    gemma, gemma2, gemma3, gpt2, llama, mistral, mixtral, olmo2, phi3, qwen2, qwen3, qwen3_moe, smollm3,
};
use crate::error::{EngineError, Result};

/// A model family: what its configuration means.
struct Family {
    /// Those of its classes, as `architectures` has them, among others.
    names: &'static Names,
    decoder: fn(&mut Keys<'_>) -> DecoderConfig,
}

const FAMILIES: [Family; 13] = [
    Family { names: &LLAMA_NAMES, decoder: llama::decoder },
    Family { names: &mistral::NAMES, decoder: mistral::decoder },
    Family { names: &mixtral::NAMES, decoder: mixtral::decoder },
    Family { names: &qwen2::NAMES, decoder: qwen2::decoder },
    Family { names: &qwen3::NAMES, decoder: qwen3::decoder },
    Family { names: &qwen3_moe::NAMES, decoder: qwen3_moe::decoder },
    Family { names: &gemma::NAMES, decoder: gemma::decoder },
    Family { names: &gemma2::NAMES, decoder: gemma2::decoder },
    Family { names: &gemma3::NAMES, decoder: gemma3::decoder },
    Family { names: &phi3::NAMES, decoder: phi3::decoder },
    Family { names: &olmo2::NAMES, decoder: olmo2::decoder },
    Family { names: &smollm3::NAMES, decoder: smollm3::decoder },
    Family { names: &gpt2::NAMES, decoder: gpt2::decoder },
];

/// Every class that is known, as `architectures` names them.
pub fn known() -> Vec<&'static str> {
    FAMILIES.iter().map(|it| it.names.causal_lm).collect()
}

impl DecoderConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// An unknown architecture, or every key of the wrong type and every impossible value at once.
    pub fn read(path: &Path) -> Result<Self> {
        let json = |source| EngineError::Json { path: path.to_path_buf(), source };
        let text = std::fs::read_to_string(path).map_err(EngineError::io("read", path))?;
        let value: Value = serde_json::from_str(&text).map_err(json)?;
        Self::of(path, &value)
    }

    /// As [`DecoderConfig::read`], of what a file says; `path` is for errors.
    ///
    /// # Errors
    /// As [`DecoderConfig::read`].
    pub(crate) fn of(path: &Path, value: &Value) -> Result<Self> {
        let found = value["architectures"][0].as_str().unwrap_or("none");
        let is_named = |it: &&Family| [it.names.causal_lm, it.names.classifier].contains(&found);
        let Some(family) = FAMILIES.iter().find(is_named) else {
            let (path, found, known) = (path.to_path_buf(), found.to_string(), known());
            return Err(EngineError::UnknownArchitecture { path, found, known });
        };
        let mut keys = Keys::of(value);
        let config = (family.decoder)(&mut keys);
        let mut problems = keys.into_problems();
        if problems.is_empty() {
            problems = config.problems();
        }
        if !problems.is_empty() {
            return Err(EngineError::Invalid { what: format!("`{}`", path.display()), problems });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reward model is saved as is read again, and a file means one family.
    #[test]
    fn every_class_is_of_one_family_whose_names_its_configuration_has() {
        let value = serde_json::json!({});
        let classes = || FAMILIES.iter().flat_map(|it| [it.names.causal_lm, it.names.classifier]);
        for family in &FAMILIES {
            let named = (family.decoder)(&mut Keys::of(&value)).names;
            assert_eq!(named, family.names);
            assert_eq!(classes().filter(|it| *it == named.classifier).count(), 1, "{}", named.classifier);
        }
    }
}
