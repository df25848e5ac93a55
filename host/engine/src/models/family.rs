//! Which family a `config.json` is of, by its `architectures`.

use std::path::Path;

use serde_json::Value;

use super::decoder::DecoderConfig;
use super::keys::Keys;
use super::{
    gemma, gemma2, gemma3, gpt2, llama, mistral, mixtral, olmo2, phi3, qwen2, qwen3, qwen3_moe, smollm3,
};
use crate::error::{EngineError, Result};

/// A model family: what its configuration means.
struct Family {
    /// What `architectures` names.
    class: &'static str,
    decoder: fn(&mut Keys<'_>) -> DecoderConfig,
}

const FAMILIES: [Family; 13] = [
    Family { class: "LlamaForCausalLM", decoder: llama::decoder },
    Family { class: "MistralForCausalLM", decoder: mistral::decoder },
    Family { class: "MixtralForCausalLM", decoder: mixtral::decoder },
    Family { class: "Qwen2ForCausalLM", decoder: qwen2::decoder },
    Family { class: "Qwen3ForCausalLM", decoder: qwen3::decoder },
    Family { class: "Qwen3MoeForCausalLM", decoder: qwen3_moe::decoder },
    Family { class: "GemmaForCausalLM", decoder: gemma::decoder },
    Family { class: "Gemma2ForCausalLM", decoder: gemma2::decoder },
    Family { class: "Gemma3ForCausalLM", decoder: gemma3::decoder },
    Family { class: "Phi3ForCausalLM", decoder: phi3::decoder },
    Family { class: "Olmo2ForCausalLM", decoder: olmo2::decoder },
    Family { class: "SmolLM3ForCausalLM", decoder: smollm3::decoder },
    Family { class: "GPT2LMHeadModel", decoder: gpt2::decoder },
];

/// Every class that is known, as `architectures` names them.
pub fn known() -> Vec<&'static str> {
    FAMILIES.iter().map(|it| it.class).collect()
}

/// The class with a scalar head of the same family: `LlamaForSequenceClassification`.
fn classifier(class: &str) -> String {
    let family = class.trim_end_matches("ForCausalLM").trim_end_matches("LMHeadModel");
    format!("{family}ForSequenceClassification")
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
        let found = value["architectures"][0].as_str().unwrap_or("none");
        let is_named = |it: &&Family| it.class == found || classifier(it.class) == found;
        let Some(family) = FAMILIES.iter().find(is_named) else {
            let (path, found, known) = (path.to_path_buf(), found.to_string(), known());
            return Err(EngineError::UnknownArchitecture { path, found, known });
        };
        let mut keys = Keys::of(&value);
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

    #[test]
    fn a_class_has_a_classifier_beside_it() {
        assert_eq!(classifier("LlamaForCausalLM"), "LlamaForSequenceClassification");
        assert_eq!(classifier("GPT2LMHeadModel"), "GPT2ForSequenceClassification");
    }
}
