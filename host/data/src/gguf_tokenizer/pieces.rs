//! `llama`: SentencePiece's BPE. The file has no merges but a score a piece, and merges are found again from them as
//! transformers finds them (`generate_merges`): every pair of pieces that makes a piece, in the order of what they make.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Built, GgufVocabulary, NORMAL, USER_DEFINED};

/// A space inside a piece.
pub(super) const SPACE: &str = "\u{2581}";

/// Characters of a piece, at most. Every split of every piece is tried, so that time and memory grow with the square of its
/// length; published vocabularies stay below 100, and a file's claim is no reason to spend gigabytes.
const LONGEST_PIECE: usize = 256;

/// # Errors
/// Pieces without scores, or without types; pieces that are too long.
pub(super) fn build(vocabulary: &GgufVocabulary<'_>) -> Result<Built, String> {
    let tokens = vocabulary.tokens.len();
    for (key, found) in [("scores", vocabulary.scores.len()), ("token_type", vocabulary.token_types.len())] {
        if found != tokens {
            return Err(format!("`tokenizer.ggml.{key}` has {found} values for {tokens} tokens"));
        }
    }
    check_lengths(vocabulary)?;
    let is_gemma = vocabulary.architecture.is_some_and(|it| it.starts_with("gemma"));
    let vocab = if is_gemma { respelled(vocabulary)? } else { vocabulary.vocab()? };
    let merges = merges(vocabulary, &vocab, is_gemma || says_nothing(vocabulary));
    let prefixed = vocabulary.add_space_prefix.unwrap_or(true);
    let is_phi3 = vocabulary.architecture == Some("phi3");
    let mut added_tokens = vocabulary.added_tokens(|token| is_phi3 && strips(token));
    if is_gemma {
        // As Gemma has them: runs of spaces are found by merging.
        for token in &mut added_tokens {
            if let Some(spelled) = token["content"].as_str().and_then(run_of_spaces) {
                token["content"] = spelled.into();
            }
        }
    }
    Ok(Built {
        normalizer: normalizer(prefixed),
        pre_tokenizer: Value::Null,
        post_processor: None,
        decoder: decoder(prefixed),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": vocabulary.unknown_token(),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": (0..=255).all(|byte| vocab.contains_key(&format!("<0x{byte:02X}>"))),
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges,
        }),
        added_tokens,
        // As llama.cpp has it.
        adds_bos: true,
    })
}

fn check_lengths(vocabulary: &GgufVocabulary<'_>) -> Result<(), String> {
    let mut pieces = vocabulary.tokens.iter().zip(&vocabulary.token_types).enumerate();
    let too_long = |(_, (token, kind)): &(usize, (&&str, &i64))| {
        matches!(**kind, NORMAL | USER_DEFINED) && token.chars().nth(LONGEST_PIECE).is_some()
    };
    match pieces.find(too_long) {
        Some((id, (token, _))) => Err(format!(
            "`tokenizer.ggml.tokens`: the piece at {id} has {} characters, and {LONGEST_PIECE} at most are known here",
            token.chars().count()
        )),
        None => Ok(()),
    }
}

/// Each stretch between special tokens begins with a space, where the file says so; spaces become visible.
pub(super) fn normalizer(prefixed: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    if !prefixed {
        return replace;
    }
    json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
}

fn decoder(prefixed: bool) -> Value {
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefixed {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": decoders})
}

/// Whether what follows a special token of Phi 3 loses its blanks. A file does not say; llama.cpp knows the model by name.
pub(super) fn strips(token: &str) -> bool {
    !["<unk>", "<s>", "<|endoftext|>"].contains(&token)
}

/// Gemma's runs of spaces, which the converter of llama.cpp spells with spaces, as they are merged.
fn run_of_spaces(token: &str) -> Option<String> {
    let is_run = !token.is_empty() && token.bytes().all(|it| it == b' ');
    is_run.then(|| SPACE.repeat(token.len()))
}

fn respelled(vocabulary: &GgufVocabulary<'_>) -> Result<Map<String, Value>, String> {
    let spelled: Vec<Option<String>> = vocabulary.tokens.iter().map(|it| run_of_spaces(it)).collect();
    let of = vocabulary.tokens.iter().zip(&spelled);
    let tokens = of.map(|(token, spelled)| spelled.as_deref().unwrap_or(token)).collect();
    GgufVocabulary { tokens, token_types: vocabulary.token_types.clone(), ..GgufVocabulary::default() }
        .vocab()
}

/// Whether all pieces have one score: so do files that were made of a `tokenizer.json` alone. SentencePiece numbers pieces by
/// their scores, so that the order is still known.
fn says_nothing(vocabulary: &GgufVocabulary<'_>) -> bool {
    let of = vocabulary.scores.iter().zip(&vocabulary.token_types);
    let mut scores = of.filter(|it| *it.1 == NORMAL).map(|it| *it.0);
    let first = scores.next();
    scores.all(|it| Some(it) == first)
}

/// Pairs, best first. What is made must be a piece that text can hold, and so must its parts; `by_position` takes pieces
/// in the file's order and not by their scores, which for Gemma say less, and of some files
/// nothing.
fn merges(
    vocabulary: &GgufVocabulary<'_>,
    vocab: &Map<String, Value>,
    by_position: bool,
) -> Vec<[String; 2]> {
    let mut pieces: HashMap<&str, usize> = HashMap::new();
    for (id, (token, kind)) in vocab.keys().zip(&vocabulary.token_types).enumerate() {
        let is_merged = *kind == NORMAL || by_position && *kind == USER_DEFINED;
        if is_merged {
            pieces.insert(token, id);
        }
    }
    let mut pairs = Vec::new();
    for token in vocab.keys().filter(|it| pieces.contains_key(it.as_str())) {
        let made = pieces[token.as_str()];
        let score = if by_position { -(made as f32) } else { vocabulary.scores[made] };
        let mut local = Vec::new();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(of_left), Some(of_right)) = (pieces.get(left), pieces.get(right)) {
                local.push(([*of_left, *of_right], score, [left, right]));
            }
        }
        local.sort_unstable_by_key(|it| it.0);
        pairs.extend(local.into_iter().map(|(_, score, pair)| (score, pair)));
    }
    // The longer part first, of equal scores.
    let lengths = |pair: &[&str; 2]| pair.map(|it| it.chars().count());
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| lengths(&b.1).cmp(&lengths(&a.1))));
    pairs.into_iter().map(|(_, pair)| pair.map(str::to_string)).collect()
}
