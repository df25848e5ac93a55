//! The way back: `tokenizer.json` and its companions as a GGUF says them. What a GGUF can't say is refused, or noted where
//! llama.cpp's converter leaves it out as well.

use serde_json::{Map, Value};

use super::pieces::{self, SPACE};
use super::rules::Rule;
use super::{CONTROL, GgufVocabulary, NORMAL, UNKNOWN, USER_DEFINED};
use crate::chat_template::default_of;

/// Token types besides: of SentencePiece's bytes, and of ids that no token has.
const BYTE: i64 = 6;
const UNUSED: i64 = 5;

/// Scores of tokens that are no pieces, as llama.cpp's converter has them.
const ADDED_SCORE: f32 = -1000.0;
const UNUSED_SCORE: f32 = -10_000.0;

/// A vocabulary to be written, fields as [`GgufVocabulary`]'s.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WrittenVocabulary {
    /// The kind of tokenizer.
    pub model: &'static str,
    /// The name of the rule that cuts text.
    pub pre: &'static str,
    /// By id.
    pub tokens: Vec<String>,
    /// By id.
    pub token_types: Vec<i64>,
    /// By id; none of byte-level BPE.
    pub scores: Vec<f32>,
    /// Best first; none of SentencePiece's.
    pub merges: Vec<String>,
    /// Special tokens by the file's names: `bos`, `eos`, `eot`, `unknown`, `padding`.
    pub special: Vec<(&'static str, usize)>,
    /// Whether a text begins with `bos`.
    pub add_bos: bool,
    /// Whether it ends with `eos`.
    pub add_eos: bool,
    /// Whether a stretch of text begins with a space, of SentencePiece's.
    pub add_space_prefix: Option<bool>,
    /// How conversations are written.
    pub chat_template: Option<String>,
    /// What a GGUF can't say and llama.cpp's converter leaves out.
    pub notes: Vec<String>,
}

/// Files of a folder, and what its model says.
#[derive(Debug, Clone, Copy)]
pub struct SourceFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer: &'a Value,
    /// `tokenizer_config.json`; null where there is none.
    pub tokenizer_config: &'a Value,
    /// `chat_template.jinja`.
    pub chat_template: Option<&'a str>,
    /// Ids that end generation.
    pub eos_ids: &'a [usize],
    /// Rows of the model's embedding.
    pub vocab_size: usize,
    /// `general.architecture`.
    pub architecture: &'a str,
}

/// # Errors
/// A tokenizer that a GGUF can't say: another model than BPE, another cut than those that have a name, merges that do not
/// follow from pieces, more tokens than the model has.
pub fn vocabulary(files: &SourceFiles<'_>) -> Result<WrittenVocabulary, String> {
    let (tokenizer, model) = (files.tokenizer, &files.tokenizer["model"]);
    // Older files do not say.
    let kind = model["type"].as_str().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(format!("its model is {kind}, and a GGUF file of these architectures holds BPE"));
    }
    let is_byte_level = mentions(&tokenizer["pre_tokenizer"], "ByteLevel");
    let mut made = tokens(files, !is_byte_level)?;
    if is_byte_level {
        let rule = Rule::of(tokenizer)?;
        (made.model, made.pre) = ("gpt2", rule.names[0]);
        made.merges = merges(model)?.into_iter().map(|[left, right]| format!("{left} {right}")).collect();
    } else {
        (made.model, made.pre) = ("llama", "default");
        of_pieces(files, &mut made)?;
    }
    special(files, &mut made)?;
    let in_config = template(&files.tokenizer_config["chat_template"], &mut made.notes);
    made.chat_template = files.chat_template.or(in_config).map(str::to_string);
    Ok(made)
}

/// The template that [`crate::ChatTemplate`] takes; a list's others are noted.
fn template<'a>(found: &'a Value, notes: &mut Vec<String>) -> Option<&'a str> {
    for other in found.as_array().into_iter().flatten().filter(|it| it["name"] != "default") {
        let name = other["name"].as_str().unwrap_or_default();
        notes.push(format!(
            "the chat template `{name}` is left out: of `chat_template` in `tokenizer_config.json` only `default` is written"
        ));
    }
    default_of(found)
}

/// Whether a part of a tokenizer is of a type, or holds one that is.
fn mentions(part: &Value, kind: &str) -> bool {
    let parts = part["pretokenizers"].as_array();
    part["type"] == kind || parts.is_some_and(|it| it.iter().any(|it| mentions(it, kind)))
}

/// Tokens and their types.
fn tokens(files: &SourceFiles<'_>, of_pieces: bool) -> Result<WrittenVocabulary, String> {
    let model = &files.tokenizer["model"];
    let vocab = model["vocab"].as_object().ok_or("`model.vocab` is missing")?;
    let unknown = model["unk_token"].as_str();
    let mut found: Vec<Option<(String, i64)>> = vec![None; files.vocab_size];
    let mut put = |id: &Value, token: &str, kind: i64| {
        let id = id.as_u64().and_then(|it| usize::try_from(it).ok());
        let id = id.ok_or_else(|| format!("`{token}` has no id"))?;
        let size = files.vocab_size;
        let place = found.get_mut(id).ok_or_else(|| {
            format!("`{token}` has the id {id}, and the model {size} tokens (`vocab_size` in `config.json`)")
        })?;
        *place = Some((token.to_string(), kind));
        Ok::<_, String>(())
    };
    for (token, id) in vocab {
        let is_byte = of_pieces && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        put(id, token, if is_byte { BYTE } else { NORMAL })?;
    }
    let mut stripping = Vec::new();
    let is_phi3 = of_pieces && files.architecture == "phi3";
    for added in files.tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let token = added["content"].as_str().unwrap_or_default();
        let is_unknown = of_pieces && Some(token) == unknown;
        let kind = match added["special"] == true {
            _ if is_unknown => UNKNOWN,
            true => CONTROL,
            false => USER_DEFINED,
        };
        // As the converter spells them: they are looked for in plain text.
        let spelled =
            if of_pieces && kind == USER_DEFINED { token.replace(SPACE, " ") } else { token.to_string() };
        put(&added["id"], &spelled, kind)?;
        let known = is_phi3 && pieces::strips(token);
        if added["lstrip"] == true || (added["rstrip"] == true) != known {
            stripping.push(format!("`{token}`"));
        }
    }
    let mut made = WrittenVocabulary::default();
    if let Some(first) = stripping.first() {
        let more = match stripping.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        made.notes.push(format!(
            "{first}{more}: that blanks beside them belong to them (`lstrip`, `rstrip`) a GGUF file can't say"
        ));
    }
    for (id, place) in found.into_iter().enumerate() {
        let (token, kind) = place.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED));
        made.tokens.push(token);
        made.token_types.push(kind);
    }
    Ok(made)
}

/// Pairs that are merged, best first: texts, or lists of two in newer files.
fn merges(model: &Value) -> Result<Vec<[&str; 2]>, String> {
    let all = model["merges"].as_array().ok_or("`model.merges` is missing")?;
    let told = |index: usize| format!("`model.merges` {index} is no pair");
    all.iter().enumerate().map(|(index, it)| pair(it).ok_or_else(|| told(index))).collect()
}

fn pair(merge: &Value) -> Option<[&str; 2]> {
    match merge {
        Value::String(text) => text.split_once(' ').map(|it| [it.0, it.1]),
        Value::Array(parts) => match &parts[..] {
            [Value::String(left), Value::String(right)] => Some([left, right]),
            _ => None,
        },
        _ => None,
    }
}

/// Scores that give the merges, of SentencePiece's BPE.
fn of_pieces(files: &SourceFiles<'_>, made: &mut WrittenVocabulary) -> Result<(), String> {
    let (tokenizer, model) = (files.tokenizer, &files.tokenizer["model"]);
    if model["byte_fallback"] != true {
        return Err(
            "its BPE knows no bytes (`byte_fallback`), and a GGUF file has no form for it".to_string()
        );
    }
    let prefixed = prefix(tokenizer, &mut made.notes)?;
    made.add_space_prefix = Some(prefixed);
    let source = merges(model)?;
    let mut ranks: Map<String, Value> = Map::new();
    for [left, right] in &source {
        let rank = ranks.len();
        ranks.entry(format!("{left}{right}")).or_insert(rank.into());
    }
    let last = ranks.len();
    let score = |(id, (token, kind)): (usize, (&String, &i64))| match *kind {
        UNUSED => UNUSED_SCORE,
        CONTROL | USER_DEFINED => ADDED_SCORE,
        NORMAL => -(ranks.get(token).and_then(Value::as_u64).map_or(last + id, |it| it as usize) as f32),
        _ => 0.0,
    };
    made.scores = made.tokens.iter().zip(&made.token_types).enumerate().map(score).collect();
    let read = made.view(files.architecture).to_files()?.tokenizer;
    let found = merges(&read["model"])?;
    if !same_merges(&source, &found) {
        return Err("its merges do not follow from its pieces, as SentencePiece's do, and a GGUF file has no form for them".to_string());
    }
    Ok(())
}

/// Whether two lists make the same tokens in the same order, of the same pairs.
fn same_merges(a: &[[&str; 2]], b: &[[&str; 2]]) -> bool {
    let made = |pairs: &[[&str; 2]]| {
        let mut made: Vec<String> = pairs.iter().map(|it| it.concat()).collect();
        made.dedup();
        made
    };
    let sorted = |pairs: &[[&str; 2]]| {
        let mut pairs: Vec<[String; 2]> = pairs.iter().map(|it| it.map(str::to_string)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    };
    made(a) == made(b) && sorted(a) == sorted(b)
}

/// Whether a space is put before a text.
fn prefix(tokenizer: &Value, notes: &mut Vec<String>) -> Result<bool, String> {
    let (normalizer, cut) = (&tokenizer["normalizer"], &tokenizer["pre_tokenizer"]);
    // Gemma's, which finds no space to cut at.
    let cuts_nothing = cut.is_null() || cut["type"] == "Split" && cut["pattern"]["String"] == " ";
    for prefixed in [true, false] {
        if cuts_nothing && *normalizer == pieces::normalizer(prefixed) {
            return Ok(prefixed);
        }
    }
    if normalizer.is_null()
        && cut["type"] == "Metaspace"
        && cut["replacement"] == SPACE
        // Absent, it means true to the library.
        && cut["split"] == false
    {
        let scheme = cut["prepend_scheme"].as_str().unwrap_or("always");
        if scheme != "never" {
            notes.push(format!(
                "a space is put before a text (`prepend_scheme` = \"{scheme}\"), and by readers of a GGUF file before each stretch between special tokens, and before a space as well"
            ));
        }
        return Ok(scheme != "never");
    }
    Err("`tokenizer.json` normalises or cuts text in a way that a GGUF file has no form for".to_string())
}

/// Special tokens, and which of them are added to a text.
fn special(files: &SourceFiles<'_>, made: &mut WrittenVocabulary) -> Result<(), String> {
    for (name, key) in
        [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")]
    {
        let token = &files.tokenizer_config[key];
        let token = token.as_str().or(token["content"].as_str());
        let id = token.and_then(|token| made.tokens.iter().position(|it| it == token));
        made.special.extend(id.map(|it| (name, it)));
    }
    // A file has one besides the end of a text: that of a turn.
    let mut ends: Vec<usize> = Vec::new();
    for id in files.eos_ids {
        let is_eos = made.special.iter().any(|it| it.0 == "eos" && it.1 == *id);
        if !is_eos && !ends.contains(id) {
            ends.push(*id);
        }
    }
    let of_turn = ends.iter().position(|it| *it < made.tokens.len()).map(|at| ends.remove(at));
    made.special.extend(of_turn.map(|it| ("eot", it)));
    made.notes.extend(ends.into_iter().map(|id| {
        format!("that {id} ends generation (`eos_token_id` in `generation_config.json`) a GGUF file can't say besides")
    }));
    let (before, behind) = &around(files.tokenizer)?;
    let is = |name: &str, ids: &[u32]| {
        let id = made.special.iter().find(|it| it.0 == name).map(|it| it.1);
        ids.is_empty() || ids.len() == 1 && Some(ids[0] as usize) == id
    };
    if !is("bos", before) || !is("eos", behind) {
        return Err(format!(
            "it puts the tokens {before:?} before a text and {behind:?} behind it, and a GGUF file has `bos_token` and `eos_token` for that"
        ));
    }
    (made.add_bos, made.add_eos) = (!before.is_empty(), !behind.is_empty());
    Ok(())
}

/// Ids that are put before a text and behind it.
fn around(tokenizer: &Value) -> Result<(Vec<u32>, Vec<u32>), String> {
    let told = |error: tokenizers::Error| error.to_string();
    let mut tokenizer: tokenizers::Tokenizer =
        serde_json::from_value(tokenizer.clone()).map_err(|error| error.to_string())?;
    // A folder's own would add ids, or cut those that are looked for.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(told)?;
    let ids = |special: bool| tokenizer.encode("a", special).map(|it| it.get_ids().to_vec()).map_err(told);
    let (plain, all) = (ids(false)?, ids(true)?);
    let last = all.len().checked_sub(plain.len());
    let at = last.and_then(|last| (0..=last).find(|it| all[*it..].starts_with(&plain)));
    let at = at.ok_or_else(|| {
        format!("with special tokens `a` is {all:?}, which does not hold {plain:?}, what it is without (`post_processor` in `tokenizer.json`)")
    })?;
    Ok((all[..at].to_vec(), all[at + plain.len()..].to_vec()))
}

impl WrittenVocabulary {
    /// As it is read again.
    pub fn view<'a>(&'a self, architecture: &'a str) -> GgufVocabulary<'a> {
        let id = |name: &str| self.special.iter().find(|it| it.0 == name).map(|it| it.1 as u64);
        GgufVocabulary {
            architecture: Some(architecture),
            model: Some(self.model),
            pre: Some(self.pre),
            tokens: self.tokens.iter().map(String::as_str).collect(),
            token_types: self.token_types.clone(),
            scores: self.scores.clone(),
            merges: self.merges.iter().map(String::as_str).collect(),
            bos: id("bos"),
            eos: id("eos"),
            unknown: id("unknown"),
            padding: id("padding"),
            add_bos: Some(self.add_bos),
            add_eos: Some(self.add_eos),
            add_space_prefix: self.add_space_prefix,
            chat_template: self.chat_template.as_deref(),
            context_length: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn byte_level() -> Value {
        let bytes =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        json!({
            "version": "1.0", "normalizer": null, "pre_tokenizer": bytes, "decoder": bytes, "post_processor": null,
            "added_tokens": [{"id": 3, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": true,
                              "normalized": false, "special": true}],
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
        })
    }

    /// Bytes, `ab` and `aba`, a space before a text.
    fn of_pieces(merges: Value) -> Value {
        let mut vocab: Map<String, Value> = (0..256).map(|it| (format!("<0x{it:02X}>"), it.into())).collect();
        for (index, piece) in ["a", "b", "ab", "aba", "\u{2581}"].iter().enumerate() {
            vocab.insert((*piece).to_string(), (256 + index).into());
        }
        let mut made = byte_level();
        made["added_tokens"] = json!([]);
        made["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false});
        made["model"] = json!({"type": "BPE", "byte_fallback": true, "vocab": vocab, "merges": merges});
        made
    }

    fn made(tokenizer: &Value, vocab_size: usize) -> Result<WrittenVocabulary, String> {
        let tokenizer_config = json!({"eos_token": {"content": "<end>"}});
        let files = SourceFiles {
            tokenizer,
            tokenizer_config: &tokenizer_config,
            chat_template: Some("{{ messages }}"),
            eos_ids: &[3, 2],
            vocab_size,
            architecture: "llama",
        };
        vocabulary(&files)
    }

    #[test]
    fn what_a_folder_says_is_written() {
        let found = made(&byte_level(), 5).unwrap();
        assert_eq!((found.model, found.pre), ("gpt2", "gpt-2"));
        assert_eq!(found.tokens, ["a", "b", "ab", "<end>", "[PAD4]"]);
        assert_eq!(found.token_types, [NORMAL, NORMAL, NORMAL, CONTROL, UNUSED]);
        assert_eq!(found.special, [("eos", 3), ("eot", 2)]);
        assert_eq!((found.add_bos, found.add_eos), (false, false));
        assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
        let found = made(&of_pieces(json!(["a b", "ab a"])), 261).unwrap();
        assert_eq!((found.model, found.add_space_prefix), ("llama", Some(true)));
        assert!(found.notes[0].contains("prepend_scheme"), "{:?}", found.notes);
    }

    /// Templates in a list, further ids that end generation, and a folder that pads and truncates.
    #[test]
    fn what_is_left_out_is_noted() {
        let mut tokenizer = byte_level();
        tokenizer["padding"] = json!({"strategy": {"Fixed": 8}, "direction": "Left", "pad_to_multiple_of": null,
            "pad_id": 1, "pad_type_id": 0, "pad_token": "b"});
        tokenizer["truncation"] =
            json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
        let templates = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        let tokenizer_config = json!({"eos_token": "<end>", "chat_template": templates});
        let files = SourceFiles {
            tokenizer: &tokenizer,
            tokenizer_config: &tokenizer_config,
            chat_template: None,
            eos_ids: &[9, 3, 2, 1, 2],
            vocab_size: 5,
            architecture: "llama",
        };
        let found = vocabulary(&files).unwrap();
        assert_eq!(found.special, [("eos", 3), ("eot", 2)]);
        assert_eq!((found.add_bos, found.add_eos), (false, false));
        assert_eq!(found.chat_template.as_deref(), Some("d"));
        let noted = |text: &str| found.notes.iter().any(|it| it.contains(text));
        assert!(noted("that 9 ends") && noted("that 1 ends") && noted("`tool_use`"), "{:?}", found.notes);
        // Words are cut at spaces where `split` is not said.
        let mut cuts = of_pieces(json!(["a b", "ab a"]));
        cuts["pre_tokenizer"].as_object_mut().unwrap().remove("split");
        assert!(made(&cuts, 261).is_err());
    }

    #[test]
    fn what_a_file_has_no_form_for_is_told() {
        let with = |key: &str, value: Value| {
            let mut made = byte_level();
            *made.pointer_mut(key).unwrap() = value;
            made
        };
        let bos = json!({"type": "TemplateProcessing", "pair": [], "single": [
            {"SpecialToken": {"id": "ab", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"ab": {"id": "ab", "ids": [2], "tokens": ["ab"]}}});
        let told = [
            made(&with("/model/type", json!("Unigram")), 5),
            made(&with("/normalizer", json!({"type": "NFKC"})), 5),
            made(&with("/pre_tokenizer/add_prefix_space", json!(true)), 5),
            made(&with("/model/merges", json!(["ab"])), 5),
            made(&with("/post_processor", bos), 5),
            made(&byte_level(), 3),
            // A merge that pieces imply is missing.
            made(&of_pieces(json!(["a b"])), 261),
        ];
        insta::assert_snapshot!(told.map(|it| it.unwrap_err()).join("\n"));
    }
}
