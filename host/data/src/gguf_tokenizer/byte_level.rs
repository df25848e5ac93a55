//! `gpt2`: byte-level BPE, with the merges that the file has.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::rules::{Rule, byte_level};
use super::{Built, GgufVocabulary};

/// # Errors
/// A rule that is not known here; merges that don't fit the tokens.
pub(super) fn build(vocabulary: &GgufVocabulary<'_>) -> Result<Built, String> {
    let rule = Rule::named(vocabulary.pre)?;
    let vocab = vocabulary.vocab()?;
    let merges = merges(vocabulary, &vocab)?;
    Ok(Built {
        normalizer: rule.normalizer(),
        pre_tokenizer: rule.pre_tokenizer(),
        post_processor: Some(byte_level(true, false, true)),
        decoder: byte_level(true, true, true),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": rule.ignore_merges,
            "vocab": vocab,
            "merges": merges,
        }),
        added_tokens: vocabulary.added_tokens(|_| false),
        adds_bos: rule.adds_bos,
    })
}

fn merges(vocabulary: &GgufVocabulary<'_>, vocab: &Map<String, Value>) -> Result<Vec<[String; 2]>, String> {
    let mut pairs = Vec::with_capacity(vocabulary.merges.len());
    let mut seen = HashSet::new();
    for (index, merge) in vocabulary.merges.iter().enumerate() {
        let refuse = |reason: &str| Err(format!("`tokenizer.ggml.merges` {index}, `{merge}`: {reason}"));
        let Some((left, right)) = merge.split_once(' ') else { return refuse("two parts are expected") };
        let merged = format!("{left}{right}");
        if let Some(missing) = [left, right, &merged].iter().find(|it| !vocab.contains_key(**it)) {
            return refuse(&format!("`{missing}` is no token"));
        }
        // Only the first of two equal merges counts.
        if seen.insert((left, right)) {
            pairs.push([left.to_string(), right.to_string()]);
        }
    }
    Ok(pairs)
}
