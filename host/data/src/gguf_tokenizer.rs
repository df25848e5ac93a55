//! A GGUF file's vocabulary as `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`.
//!
//! A GGUF holds tokens and merges; how text is cut before merging it only names (`tokenizer.ggml.pre`). Each name's
//! rule stands here as the model's own `tokenizer.json` has it: SmolLM2 takes digits one by one, Llama 3 three at a
//! time, Qwen2 normalises to NFC. A name without a rule is refused, as any other rule would give other tokens.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

/// Token types of a GGUF (llama.cpp's `llama_token_type`) that are found whole in a text, before anything is cut.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// What a GGUF says of its tokenizer, keys as in the file, `tokenizer.ggml.` left out.
#[derive(Debug, Clone, Default)]
pub struct GgufVocabulary<'a> {
    /// `model`: the kind of tokenizer.
    pub model: Option<&'a str>,
    /// `pre`: the name of the rule that cuts text.
    pub pre: Option<&'a str>,
    /// `tokens`, by id.
    pub tokens: Vec<&'a str>,
    /// `token_type`, by id; all normal where empty.
    pub token_types: Vec<i64>,
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

/// How text is cut into what is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PreTokenizer {
    Gpt2,
    Smollm,
    Llama3,
    Qwen2,
}

/// Names in `tokenizer.ggml.pre`. llama.cpp's converter knows a model by how it cuts a probe, so names of one rule
/// are one. `default` is what files say that were made before there were names.
const PRE_TOKENIZERS: [(&str, PreTokenizer); 8] = [
    ("default", PreTokenizer::Gpt2),
    ("gpt-2", PreTokenizer::Gpt2),
    ("smollm", PreTokenizer::Smollm),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("qwen2", PreTokenizer::Qwen2),
    ("deepseek-r1-qwen", PreTokenizer::Qwen2),
];

impl PreTokenizer {
    fn named(pre: Option<&str>) -> Result<Self, String> {
        let pre = pre.unwrap_or("default");
        let found = PRE_TOKENIZERS.iter().find(|it| it.0 == pre);
        found.map(|it| it.1).ok_or_else(|| {
            let known: Vec<&str> = PRE_TOKENIZERS.iter().map(|it| it.0).collect();
            format!("`tokenizer.ggml.pre` = \"{pre}\" is not known here (known: {})", known.join(", "))
        })
    }

    fn normalizer(self) -> Value {
        if self == Self::Qwen2 { json!({"type": "NFC"}) } else { Value::Null }
    }

    fn pre_tokenizer(self) -> Value {
        match self {
            Self::Gpt2 => byte_level(false, true, true),
            Self::Smollm => json!({
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": true},
                    byte_level(false, true, true),
                ],
            }),
            Self::Llama3 => split(r"\p{N}{1,3}", true),
            Self::Qwen2 => split(r"\p{N}", false),
        }
    }

    /// Whether a piece that is a token whole is taken as it is, not merged.
    fn ignore_merges(self) -> bool {
        self == Self::Llama3
    }

    /// Whether a text begins with the beginning-of-text token where the file does not say.
    fn adds_bos(self) -> bool {
        self == Self::Llama3
    }
}

fn byte_level(add_prefix_space: bool, trim_offsets: bool, use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": trim_offsets,
        "use_regex": use_regex,
    })
}

/// Words with what stands before them, `numbers`, punctuation, line ends, blanks: the cut of tiktoken's `cl100k_base`.
fn split(numbers: &str, trim_offsets: bool) -> Value {
    let pattern = [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        numbers,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ];
    json!({
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern.join("|")}, "behavior": "Isolated", "invert": false},
            byte_level(false, trim_offsets, false),
        ],
    })
}

impl GgufVocabulary<'_> {
    /// The files that tokenise as the model's own do.
    ///
    /// # Errors
    /// A kind of tokenizer or a rule that is not known here; tokens, types, merges or ids that don't fit together.
    pub fn to_files(&self) -> Result<TokenizerFiles, String> {
        let model = self.model.unwrap_or("none");
        if model != "gpt2" {
            return Err(format!(
                "`tokenizer.ggml.model` = \"{model}\" is not known here (known: gpt2, which is byte-level BPE)"
            ));
        }
        let pre = PreTokenizer::named(self.pre)?;
        let vocab = self.vocab()?;
        let merges = self.merges(&vocab)?;
        let (bos, eos) = (self.token("bos", self.bos)?, self.token("eos", self.eos)?);
        let adds_bos = self.add_bos.unwrap_or(pre.adds_bos()) && bos.is_some();
        let adds_eos = self.add_eos.unwrap_or(false) && eos.is_some();
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added_tokens(),
            "normalizer": pre.normalizer(),
            "pre_tokenizer": pre.pre_tokenizer(),
            "post_processor": post_processor(
                adds_bos.then_some((bos, self.bos)),
                adds_eos.then_some((eos, self.eos)),
            ),
            "decoder": byte_level(true, true, true),
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": pre.ignore_merges(),
                "vocab": vocab,
                "merges": merges,
            },
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

    fn merges(&self, vocab: &Map<String, Value>) -> Result<Vec<[String; 2]>, String> {
        let mut pairs = Vec::with_capacity(self.merges.len());
        let mut seen = HashSet::new();
        for (index, merge) in self.merges.iter().enumerate() {
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

    fn added_tokens(&self) -> Vec<Value> {
        let mut added = Vec::new();
        for (id, (token, kind)) in self.tokens.iter().zip(&self.token_types).enumerate() {
            if matches!(*kind, CONTROL | USER_DEFINED) {
                added.push(json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": *kind == CONTROL,
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
}

/// A special token and its id.
type Special<'a> = (Option<&'a str>, Option<u64>);

/// What is added around a text where special tokens are asked for.
fn post_processor(bos: Option<Special<'_>>, eos: Option<Special<'_>>) -> Value {
    let bytes = byte_level(true, false, true);
    if bos.is_none() && eos.is_none() {
        return bytes;
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
    json!({"type": "Sequence", "processors": [bytes, template]})
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
        for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
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

    #[test]
    fn what_does_not_fit_together_is_told() {
        let told = [
            GgufVocabulary { model: Some("llama"), ..vocabulary() },
            GgufVocabulary { pre: Some("tekken"), ..vocabulary() },
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
