//! A GGUF file's vocabulary as `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`.
//!
//! A GGUF holds tokens with merges or scores; how text is cut before merging it only names, and what its model's
//! family does besides it does not say at all.

mod byte_level;
mod pieces;
mod rules;
mod written;

use serde_json::{Map, Value, json};

pub use written::{SourceFiles, WrittenVocabulary, vocabulary as written};

/// Token types of a GGUF (llama.cpp's `llama_token_type`). Control tokens and those that a user defined are found whole in a
/// text, before anything is cut.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// What a GGUF says of its tokenizer, keys as in the file, `tokenizer.ggml.` left out.
#[derive(Debug, Clone, Default)]
pub struct GgufVocabulary<'a> {
    /// `general.architecture`.
    pub architecture: Option<&'a str>,
    /// `model`: the kind of tokenizer.
    pub model: Option<&'a str>,
    /// `pre`: the name of the rule that cuts text.
    pub pre: Option<&'a str>,
    /// `tokens`, by id.
    pub tokens: Vec<&'a str>,
    /// `token_type`, by id; all normal where empty.
    pub token_types: Vec<i64>,
    /// `scores`, by id, of SentencePiece's pieces.
    pub scores: Vec<f32>,
    /// `merges`: `left right`, best first.
    pub merges: Vec<&'a str>,
    /// `bos_token_id`.
    pub bos: Option<u64>,
    /// `eos_token_id`.
    pub eos: Option<u64>,
    /// `unknown_token_id`.
    pub unknown: Option<u64>,
    /// `padding_token_id`.
    pub padding: Option<u64>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<&'a str>,
    /// The architecture's `context_length`.
    pub context_length: Option<u64>,
}

/// Files of a Hugging Face folder.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: Value,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Value,
    /// `chat_template.jinja`.
    pub chat_template: Option<String>,
}

/// Parts of `tokenizer.json` that differ from kind to kind.
struct Built {
    normalizer: Value,
    pre_tokenizer: Value,
    /// Besides what adds special tokens.
    post_processor: Option<Value>,
    decoder: Value,
    model: Value,
    added_tokens: Vec<Value>,
    /// Whether a text begins with the beginning-of-text token where the file does not say.
    adds_bos: bool,
}

impl GgufVocabulary<'_> {
    /// The files that tokenise as the model's own do.
    ///
    /// # Errors
    /// A kind of tokenizer or a rule that is not known here; tokens, types, merges or ids that don't fit together.
    pub fn to_files(&self) -> Result<TokenizerFiles, String> {
        let built = match self.model.unwrap_or("none") {
            "gpt2" => byte_level::build(self)?,
            "llama" => pieces::build(self)?,
            model => {
                return Err(format!(
                    "`tokenizer.ggml.model` = \"{model}\" is not known here (known: gpt2, which is byte-level BPE, and llama, which is SentencePiece's BPE)"
                ));
            }
        };
        let (bos, eos) = (self.token("bos", self.bos)?, self.token("eos", self.eos)?);
        let adds_bos = self.add_bos.unwrap_or(built.adds_bos) && bos.is_some();
        let adds_eos = self.add_eos.unwrap_or(false) && eos.is_some();
        let special = [adds_bos.then_some((bos, self.bos)), adds_eos.then_some((eos, self.eos))];
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": built.added_tokens,
            "normalizer": built.normalizer,
            "pre_tokenizer": built.pre_tokenizer,
            "post_processor": post_processor(built.post_processor, special),
            "decoder": built.decoder,
            "model": built.model,
        });
        let mut tokenizer_config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "add_prefix_space": false,
            "bos_token": bos,
            "eos_token": eos,
            "unk_token": self.token("unknown", self.unknown)?,
            "pad_token": self.token("padding", self.padding)?,
        });
        if let Some(length) = self.context_length {
            tokenizer_config["model_max_length"] = length.into();
        }
        let chat_template = self.chat_template.map(str::to_string);
        Ok(TokenizerFiles { tokenizer, tokenizer_config, chat_template })
    }

    /// Ids of tokens, in their order.
    fn vocab(&self) -> Result<Map<String, Value>, String> {
        if self.tokens.is_empty() {
            return Err("`tokenizer.ggml.tokens` is missing".to_string());
        }
        if !(self.token_types.is_empty() || self.token_types.len() == self.tokens.len()) {
            let (types, tokens) = (self.token_types.len(), self.tokens.len());
            return Err(format!("`tokenizer.ggml.token_type` has {types} values for {tokens} tokens"));
        }
        let mut vocab = Map::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(first) = vocab.insert((*token).to_string(), id.into()) {
                return Err(format!("`tokenizer.ggml.tokens`: `{token}` stands at {first} and at {id}"));
            }
        }
        Ok(vocab)
    }

    /// Tokens that are found whole in a text; `strips` says which take the blanks behind them.
    fn added_tokens(&self, strips: impl Fn(&str) -> bool) -> Vec<Value> {
        let mut added = Vec::new();
        for (id, (token, kind)) in self.tokens.iter().zip(&self.token_types).enumerate() {
            if matches!(*kind, UNKNOWN | CONTROL | USER_DEFINED) {
                added.push(json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": strips(token),
                    "normalized": false,
                    "special": *kind != USER_DEFINED,
                }));
            }
        }
        added
    }

    fn token(&self, name: &str, id: Option<u64>) -> Result<Option<&str>, String> {
        let Some(id) = id else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|it| self.tokens.get(it));
        let token = token.ok_or_else(|| {
            format!("`tokenizer.ggml.{name}_token_id` = {id}, and there are {} tokens", self.tokens.len())
        })?;
        Ok(Some(token))
    }

    /// The token that stands for what no other does.
    fn unknown_token(&self) -> Option<&str> {
        let position = self.token_types.iter().position(|it| *it == UNKNOWN);
        position.and_then(|it| self.tokens.get(it)).copied()
    }
}

/// A special token and its id.
type Special<'a> = (Option<&'a str>, Option<u64>);

/// What is added around a text where special tokens are asked for.
fn post_processor(first: Option<Value>, [bos, eos]: [Option<Special<'_>>; 2]) -> Value {
    if bos.is_none() && eos.is_none() {
        return first.unwrap_or_default();
    }
    let special = |it: &Special<'_>, part: u8| json!({"SpecialToken": {"id": it.0, "type_id": part}});
    let around = |text: &str, part: u8| {
        let mut parts: Vec<Value> = bos.iter().map(|it| special(it, part)).collect();
        parts.push(json!({"Sequence": {"id": text, "type_id": part}}));
        parts.extend(eos.iter().map(|it| special(it, part)));
        parts
    };
    let (single, second) = (around("A", 0), around("B", 1));
    let pair: Vec<Value> = single.iter().cloned().chain(second).collect();
    let mut tokens = Map::new();
    for (token, id) in bos.iter().chain(&eos) {
        let token = token.unwrap_or_default();
        tokens.insert(token.to_string(), json!({"id": token, "ids": [id], "tokens": [token]}));
    }
    let template =
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens});
    match first {
        Some(first) => json!({"type": "Sequence", "processors": [first, template]}),
        None => template,
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;

    fn vocabulary() -> GgufVocabulary<'static> {
        GgufVocabulary {
            model: Some("gpt2"),
            pre: Some("smollm"),
            tokens: vec!["<end>", "a", "b", "ab", "<tool>"],
            token_types: vec![3, 1, 1, 1, 4],
            merges: vec!["a b"],
            eos: Some(0),
            ..GgufVocabulary::default()
        }
    }

    fn loaded(vocabulary: &GgufVocabulary<'_>) -> tokenizers::Tokenizer {
        serde_json::from_value(vocabulary.to_files().unwrap().tokenizer).unwrap()
    }

    /// Oracle: llama.cpp's expressions under the Python module regex, `tests/golden/generate/gguf_import.py`.
    #[test]
    fn text_is_cut_as_each_name_says() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden/gguf/pre_tokenizers.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for pre in ["gpt-2", "olmo", "smollm", "llama-bpe", "dbrx", "qwen2", "qwen35", "gpt-4o", "tekken"] {
            let tokenizer = loaded(&GgufVocabulary { pre: Some(pre), ..vocabulary() });
            for (index, text) in golden["texts"].as_array().unwrap().iter().enumerate() {
                let mut normalized: tokenizers::NormalizedString = text.as_str().unwrap().into();
                if let Some(normalizer) = tokenizer.get_normalizer() {
                    tokenizers::Normalizer::normalize(normalizer, &mut normalized).unwrap();
                }
                let text = normalized.get().to_string();
                let mut cut: PreTokenizedString = text.as_str().into();
                tokenizer.get_pre_tokenizer().unwrap().pre_tokenize(&mut cut).unwrap();
                let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
                let pieces: Vec<&str> = splits.iter().map(|it| &text[it.1.0..it.1.1]).collect();
                assert_eq!(json!(pieces), golden["pieces"][pre][index], "{pre}, text {index}");
            }
        }
    }

    #[test]
    fn control_tokens_are_special_and_tools_are_found_whole() {
        let tokenizer = loaded(&vocabulary());
        let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids("ab<end>ba<tool>"), [3, 0, 2, 1, 4]);
        assert_eq!(tokenizer.decode(&[3, 0, 4], true).unwrap(), "ab<tool>");
    }

    #[test]
    fn the_beginning_is_added_where_the_file_or_its_kind_says() {
        let with = |pre, add_bos| GgufVocabulary { pre: Some(pre), bos: Some(0), add_bos, ..vocabulary() };
        let ids = |it: &GgufVocabulary<'_>| loaded(it).encode("ab", true).unwrap().get_ids().to_vec();
        assert_eq!(ids(&with("smollm", None)), [3]);
        assert_eq!(ids(&with("smollm", Some(true))), [0, 3]);
        assert_eq!(ids(&with("llama-bpe", None)), [0, 3]);
        assert_eq!(ids(&with("llama-bpe", Some(false))), [3]);
        let both = GgufVocabulary { add_eos: Some(true), ..with("qwen2", Some(true)) };
        assert_eq!(ids(&both), [0, 3, 0]);
    }

    /// SentencePiece's pieces: a space before a text, bytes for what is no piece, and special tokens of Phi 3 that take the
    /// blanks behind them.
    #[test]
    fn pieces_are_merged_by_their_scores() {
        let bytes: Vec<String> = (0..=255).map(|it| format!("<0x{it:02X}>")).collect();
        let mut tokens = vec!["<unk>", "<s>", "</s>"];
        tokens.extend(bytes.iter().map(String::as_str));
        tokens.extend(["\u{2581}", "a", "b", "ab", "\u{2581}a", "<|user|>"]);
        let mut token_types = vec![2, 3, 3];
        token_types.extend([6; 256]);
        token_types.extend([1, 1, 1, 1, 1, 3]);
        // `ab` is better than what begins with a space.
        let mut scores = vec![0.0; 259];
        scores.extend([-3.0, -4.0, -5.0, 0.0, -1.0, -1000.0]);
        let of = |architecture, add_space_prefix| GgufVocabulary {
            architecture: Some(architecture),
            model: Some("llama"),
            tokens: tokens.clone(),
            token_types: token_types.clone(),
            scores: scores.clone(),
            bos: Some(1),
            eos: Some(2),
            add_space_prefix,
            ..GgufVocabulary::default()
        };
        let ids =
            |it: &GgufVocabulary<'_>, text: &str| loaded(it).encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids(&of("llama", None), "ab a"), [1, 259, 262, 263]);
        assert_eq!(ids(&of("llama", Some(false)), "ab a"), [1, 262, 263]);
        assert_eq!(ids(&of("llama", None), "<|user|> a!"), [1, 264, 259, 263, 3 + 0x21]);
        assert_eq!(ids(&of("phi3", None), "<|user|> a!"), [1, 264, 263, 3 + 0x21]);
        // Of one score, pieces are taken in their order.
        let mut alike = of("llama", None);
        alike.scores = vec![-1000.0; alike.scores.len()];
        assert_eq!(ids(&alike, "ab a"), [1, 259, 262, 263]);
        let decoded = loaded(&of("llama", None)).decode(&[1, 259, 262, 263, 3 + 0x21], true).unwrap();
        assert_eq!(decoded, "ab a!");
    }

    #[test]
    fn pieces_without_bound_are_refused() {
        let of = |length: usize| {
            let long = "a".repeat(length);
            let vocabulary = GgufVocabulary {
                model: Some("llama"),
                tokens: vec!["a", &long],
                token_types: vec![1, 1],
                scores: vec![0.0; 2],
                ..GgufVocabulary::default()
            };
            vocabulary.to_files().map(|_| ())
        };
        assert_eq!(of(256), Ok(()));
        let told = of(257).unwrap_err();
        assert!(told.contains("piece at 1 has 257 characters"), "{told}");
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let told = [
            GgufVocabulary { model: Some("bert"), ..vocabulary() },
            GgufVocabulary { model: Some("llama"), ..vocabulary() },
            GgufVocabulary { pre: Some("poro-chat"), ..vocabulary() },
            GgufVocabulary { tokens: vec![], ..vocabulary() },
            GgufVocabulary { tokens: vec!["a", "b", "ab", "a", "c"], ..vocabulary() },
            GgufVocabulary { token_types: vec![1], ..vocabulary() },
            GgufVocabulary { merges: vec!["ab"], ..vocabulary() },
            GgufVocabulary { merges: vec!["a a"], ..vocabulary() },
            GgufVocabulary { eos: Some(5), ..vocabulary() },
        ]
        .map(|it| it.to_files().unwrap_err());
        insta::assert_snapshot!(told.join("\n"));
    }
}
