//! `tokenizer.json` with the special tokens its companions name.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::chat_template::ChatTemplate;
use crate::error::{DataError, Result};

/// A model's tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    folder: PathBuf,
    /// Of the model beside it, where its `config.json` says.
    vocab_size: Option<u64>,
    /// Beginning of a text, where the model has one.
    pub bos_token: Option<String>,
    /// End of a text.
    pub eos_token: Option<String>,
    /// Every id that ends generation: `generation_config.json`'s, and the end of a text.
    pub eos_ids: Vec<u32>,
    /// How conversations are written, where the model says.
    pub chat_template: Option<ChatTemplate>,
}

/// Text as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, `[len]`.
    pub ids: Vec<u32>,
    /// Bytes of the text each token stands for, `[len]`.
    pub offsets: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and the chat template of a folder, and from
    /// `config.json` how many tokens the model has.
    ///
    /// # Errors
    /// A missing or damaged `tokenizer.json`; the companions may be absent, not damaged.
    pub fn load(folder: &Path) -> Result<Self> {
        let fail = |reason: String| DataError::Tokenizer { folder: folder.to_path_buf(), reason };
        let inner = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json"))
            .map_err(|error| fail(format!("`tokenizer.json`: {error}")))?;
        let config = optional_json(folder, "tokenizer_config.json").map_err(fail)?;
        let generation = optional_json(folder, "generation_config.json").map_err(fail)?;
        let model = optional_json(folder, "config.json").map_err(fail)?;
        let named = |key: &str| {
            let token = &config[key];
            token.as_str().or(token["content"].as_str()).map(str::to_string)
        };
        let (bos_token, eos_token) = (named("bos_token"), named("eos_token"));
        let mut eos_ids: Vec<u32> = match &generation["eos_token_id"] {
            Value::Array(ids) => ids.iter().filter_map(Value::as_u64).map(|it| it as u32).collect(),
            id => id.as_u64().map(|it| it as u32).into_iter().collect(),
        };
        eos_ids.extend(eos_token.as_deref().and_then(|token| inner.token_to_id(token)));
        eos_ids.sort_unstable();
        eos_ids.dedup();
        let chat_template = ChatTemplate::find(folder, &config, bos_token.as_deref(), eos_token.as_deref())?;
        let vocab_size = model["vocab_size"].as_u64();
        Ok(Self {
            inner,
            folder: folder.to_path_buf(),
            vocab_size,
            bos_token,
            eos_token,
            eos_ids,
            chat_template,
        })
    }

    /// Tokens of `text` as it stands: special tokens in it are recognised, none is added.
    ///
    /// # Errors
    /// What the tokenizer can't encode, and a token that the model beside it does not have.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        let encoding = self.inner.encode(text, false).map_err(|error| DataError::Tokenizer {
            folder: "tokenizer.json".into(),
            reason: error.to_string(),
        })?;
        let ids = encoding.get_ids().to_vec();
        // Tokens that no text holds may be more than the model has: Gemma's are.
        let unknown = self.vocab_size.and_then(|size| ids.iter().find(|it| u64::from(**it) >= size));
        if let Some(id) = unknown {
            let (token, size) = (self.inner.id_to_token(*id), self.vocab_size.unwrap_or_default());
            let token = token.unwrap_or_default();
            let reason = format!(
                "`{token}` has the id {id}, and the model {size} tokens (`vocab_size` in `config.json`)\nhint: the tokenizer is that of another model, or the model's embedding was not made larger for it"
            );
            return Err(DataError::Tokenizer { folder: self.folder.clone(), reason });
        }
        Ok(Encoded { ids, offsets: encoding.get_offsets().to_vec() })
    }

    /// Text of `ids`, special tokens left out where asked.
    ///
    /// # Errors
    /// Ids the tokenizer does not know.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.inner.decode(ids, skip_special_tokens).map_err(|error| DataError::Tokenizer {
            folder: "tokenizer.json".into(),
            reason: error.to_string(),
        })
    }

    /// Id of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

fn optional_json(folder: &Path, name: &str) -> std::result::Result<Value, String> {
    match std::fs::read_to_string(folder.join(name)) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| format!("`{name}`: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(format!("`{name}`: {error}")),
    }
}
