//! How byte-level BPE cuts a text before it merges. A GGUF only names the rule (`tokenizer.ggml.pre`); each name's rule stands
//! here as the models' own `tokenizer.json` have it. Other rules give other tokens, so a name that is not here is refused.

use serde_json::{Value, json};

/// A rule and its names: llama.cpp's converter knows a model by how it cuts a probe, so models of one rule may be named
/// differently, and names of one rule are one.
#[derive(Debug)]
pub(super) struct Rule {
    /// The first is the one that is written.
    pub names: &'static [&'static str],
    /// Text is normalised to NFC.
    nfc: bool,
    cut: Cut,
    /// A piece that is a token whole is taken as it is, not merged.
    pub ignore_merges: bool,
    /// A text begins with the beginning-of-text token where the file does not say.
    pub adds_bos: bool,
}

#[derive(Debug)]
enum Cut {
    /// GPT-2's words.
    Words,
    /// The same, after digits were taken one by one.
    DigitsAndWords,
    /// A regular expression, whose matches are pieces.
    Split(&'static [&'static str]),
}

/// Contractions, as tiktoken's expressions have them.
const CONTRACTIONS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const BLANKS: [&str; 3] = [r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"];

/// Words with what stands before them, numbers of up to three digits, punctuation, line ends, blanks: tiktoken's
/// `cl100k_base`.
const THREE_DIGITS: Cut = Cut::Split(&[
    CONTRACTIONS,
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    BLANKS[0],
    BLANKS[1],
    BLANKS[2],
]);
/// The same with digits one by one.
const ONE_DIGIT: Cut = Cut::Split(&[
    CONTRACTIONS,
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"\p{N}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    BLANKS[0],
    BLANKS[1],
    BLANKS[2],
]);
/// The same with marks as parts of words.
const ONE_DIGIT_AND_MARKS: Cut = Cut::Split(&[
    CONTRACTIONS,
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r"\p{N}",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    BLANKS[0],
    BLANKS[1],
    BLANKS[2],
]);
/// Words cut before capitals, with contractions behind them: tiktoken's `o200k_base`.
const CAPITALS: Cut = Cut::Split(&[
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    BLANKS[0],
    BLANKS[1],
    BLANKS[2],
]);
/// The same without contractions and with digits one by one: Mistral's.
const TEKKEN: Cut = Cut::Split(&[
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"\p{N}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    BLANKS[0],
    BLANKS[1],
    BLANKS[2],
]);

const PLAIN: Rule = Rule { names: &[], nfc: false, cut: Cut::Words, ignore_merges: false, adds_bos: false };

/// Every rule. `default` is what files say that were made before there were names.
pub(super) const RULES: [Rule; 9] = [
    Rule { names: &["gpt-2", "default"], ..PLAIN },
    // That of GPT-NeoX.
    Rule { names: &["olmo"], nfc: true, ..PLAIN },
    Rule { names: &["smollm"], cut: Cut::DigitsAndWords, ..PLAIN },
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3"],
        cut: THREE_DIGITS,
        ignore_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    // OLMo 2 and Phi 4; SmolLM 3.
    Rule { names: &["dbrx", "smaug-bpe"], cut: THREE_DIGITS, ..PLAIN },
    Rule { names: &["qwen2", "deepseek-r1-qwen"], nfc: true, cut: ONE_DIGIT, ..PLAIN },
    Rule { names: &["qwen35"], nfc: true, cut: ONE_DIGIT_AND_MARKS, ..PLAIN },
    // Phi 4 mini.
    Rule { names: &["gpt-4o"], cut: CAPITALS, ..PLAIN },
    // Mistral Nemo and what came after it.
    Rule { names: &["tekken"], cut: TEKKEN, ignore_merges: true, adds_bos: true, ..PLAIN },
];

impl Rule {
    /// That of a name.
    pub fn named(pre: Option<&str>) -> Result<&'static Self, String> {
        let pre = pre.unwrap_or("default");
        RULES.iter().find(|it| it.names.contains(&pre)).ok_or_else(|| {
            let known: Vec<&str> = RULES.iter().flat_map(|it| it.names).copied().collect();
            format!("`tokenizer.ggml.pre` = \"{pre}\" is not known here (known: {})", known.join(", "))
        })
    }

    /// That of a `tokenizer.json`.
    pub fn of(tokenizer: &Value) -> Result<&'static Self, String> {
        let ignores = tokenizer["model"]["ignore_merges"] == true;
        let (normalizer, cut) = (alike(&tokenizer["normalizer"]), alike(&tokenizer["pre_tokenizer"]));
        let same = |it: &&Self| {
            (alike(&it.normalizer()), alike(&it.pre_tokenizer())) == (normalizer.clone(), cut.clone())
                && it.ignore_merges == ignores
        };
        RULES.iter().find(same).ok_or_else(|| {
            let known: Vec<&str> = RULES.iter().map(|it| it.names[0]).collect();
            format!("`tokenizer.json` cuts text in a way that has no name here (known: {})", known.join(", "))
        })
    }

    pub fn normalizer(&self) -> Value {
        if self.nfc { json!({"type": "NFC"}) } else { Value::Null }
    }

    pub fn pre_tokenizer(&self) -> Value {
        let sequence =
            |first: Value, last: Value| json!({"type": "Sequence", "pretokenizers": [first, last]});
        match self.cut {
            Cut::Words => byte_level(false, true, true),
            Cut::DigitsAndWords => {
                sequence(json!({"type": "Digits", "individual_digits": true}), byte_level(false, true, true))
            }
            Cut::Split(parts) => sequence(
                json!({
                    "type": "Split",
                    "pattern": {"Regex": parts.join("|")},
                    "behavior": "Isolated",
                    "invert": false,
                }),
                byte_level(false, true, false),
            ),
        }
    }
}

/// A part of a tokenizer without what changes no token: several spellings are one.
fn alike(part: &Value) -> Value {
    let mut part = part.clone();
    if let Some(parts) = part["normalizers"].as_array().filter(|it| it.len() == 1) {
        return alike(&parts[0]);
    }
    if let Some(parts) = part.get_mut("pretokenizers").and_then(Value::as_array_mut) {
        parts.iter_mut().for_each(|it| *it = alike(it));
    }
    let kind = part["type"].as_str().unwrap_or_default().to_string();
    if kind == "ByteLevel" {
        // What older files leave out.
        let regex = part["use_regex"] != false;
        part["use_regex"] = regex.into();
        part["trim_offsets"] = Value::Null;
    }
    // The expressions match all of a text, so that what is cut out is what is kept.
    if kind == "Split" && part["behavior"] == "Removed" && part["invert"] == true {
        part["behavior"] = "Isolated".into();
        part["invert"] = false.into();
    }
    part
}

pub(super) fn byte_level(add_prefix_space: bool, trim_offsets: bool, use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": trim_offsets,
        "use_regex": use_regex,
    })
}
