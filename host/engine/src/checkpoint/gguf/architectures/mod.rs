//! Architectures of GGUF files, one file a group of relatives: what its metadata keys mean in `config.json`, and back.
//! Names of weights are the same for all of them ([`super::slots`]).
//!
//! What a file holds is as llama.cpp's `convert_hf_to_gguf.py` writes it.

mod common;
mod gemma;
mod gpt2;
mod llama;
mod olmo2;
mod phi3;
mod qwen;
mod rope;
mod smollm3;

use serde_json::Value as Json;

use super::GgufFile;
use super::entries::Entry;
use super::keys::{Asked, Keys};
use crate::models::DecoderConfig;

/// One architecture.
pub(super) struct Architecture {
    /// As `general.architecture` has it; keys begin with it.
    pub name: &'static str,
    /// Whether positions rotate neighbouring pairs, so that rows of queries and keys are stored in another order.
    pub reordered: bool,
    /// Classes that are written so.
    classes: &'static [&'static str],
    /// `config.json`, its special tokens and its `dtype` apart.
    read: fn(&mut Keys<'_>) -> Json,
    /// The keys that say it.
    write: fn(&DecoderConfig, &mut Out),
}

/// Keys and tensors of a file to be written, those of its architecture.
#[derive(Default)]
pub(super) struct Out {
    pub entries: Vec<(String, Entry)>,
    /// Tensors that are no weights.
    pub factors: Vec<(String, Vec<f32>)>,
    /// What can't be said.
    pub problems: Vec<String>,
}

impl Out {
    fn size(&mut self, key: &str, size: usize) {
        match u32::try_from(size) {
            Ok(size) => self.entries.push((key.to_string(), Entry::Whole(size))),
            Err(_) => self.problems.push(format!("`{key}` = {size} is too large")),
        }
    }

    fn number(&mut self, key: &str, number: f64) {
        self.entries.push((key.to_string(), Entry::Number(number as f32)));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.entries.push((key.to_string(), text.into()));
    }

    fn flags(&mut self, key: &str, flags: Vec<bool>) {
        self.entries.push((key.to_string(), Entry::Truths(flags)));
    }

    fn factors(&mut self, tensor: &str, factors: &[f64]) {
        self.factors.push((tensor.to_string(), factors.iter().map(|it| *it as f32).collect()));
    }
}

const ARCHITECTURES: [&Architecture; 11] = [
    &llama::LLAMA,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi3::PHI3,
    &gpt2::GPT2,
    &olmo2::OLMO2,
    &smollm3::SMOLLM3,
];

/// That of a name.
pub(super) fn named(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.into_iter().find(|it| it.name == name)
}

/// That which a class is written as.
///
/// # Panics
/// For a class of no family: every family has one, which a test holds.
pub(super) fn of_class(class: &str) -> &'static Architecture {
    let found = ARCHITECTURES.into_iter().find(|it| it.classes.contains(&class));
    found.expect("every family has an architecture")
}

/// Every name that is known.
pub(super) fn known() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|it| it.name).collect()
}

impl Architecture {
    /// `config.json` as the metadata has it, and what is wrong with it.
    pub fn config(&self, file: &GgufFile) -> (Json, Asked) {
        let mut keys = Keys::of(file, self.name);
        let mut config = (self.read)(&mut keys);
        for (key, of_file) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")]
        {
            config[key] = file.whole(&format!("tokenizer.ggml.{of_file}_token_id")).into();
        }
        config["tie_word_embeddings"] = (!keys.holds("output.weight")).into();
        (config, keys.finish())
    }

    /// What a file says of a model.
    pub fn metadata(&self, config: &DecoderConfig) -> Out {
        let mut out = Out::default();
        (self.write)(config, &mut out);
        for (key, _) in &mut out.entries {
            *key = format!("{}.{key}", self.name);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_written_as_one_architecture() {
        for class in crate::models::family::known() {
            let count = ARCHITECTURES.iter().filter(|it| it.classes.contains(&class)).count();
            assert_eq!(count, 1, "{class}");
        }
    }
}
