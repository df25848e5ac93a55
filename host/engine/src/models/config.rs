//! `config.json` of the Llama family, as transformers 4 and 5 write it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{EngineError, Result};
use crate::nn::{Rope, RopeScaling};

/// What `architectures` may name.
const KNOWN: &str = "LlamaForCausalLM";
/// What a reward model names.
const CLASSIFIER: &str = "LlamaForSequenceClassification";

/// The keys of `config.json` that decide what is computed. Others are kept by whoever copies the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; the query heads if absent.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` if absent.
    pub head_dim: Option<usize>,
    /// Context length.
    pub max_position_embeddings: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// The head shares the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Biases on the attention's linears.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases on the feed-forward linears.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Standard deviation of freshly drawn weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
    /// transformers 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// transformers 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Value>,
    /// transformers 5: theta and scaling in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Value>,
}

fn default_initializer_range() -> f64 {
    0.02
}

/// Keys that change what is computed and are known at one value only.
fn unsupported(value: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    if value["hidden_act"].as_str().is_some_and(|it| it != "silu") {
        problems.push(format!("`hidden_act` = {} is not known here (known: \"silu\")", value["hidden_act"]));
    }
    for (key, holder) in [("", value), ("rope_parameters.", &value["rope_parameters"])] {
        let partial = &holder["partial_rotary_factor"];
        if partial.as_f64().is_some_and(|it| it != 1.0) {
            problems.push(format!("`{key}partial_rotary_factor` = {partial} is not known here (known: 1)"));
        }
    }
    problems
}

impl LlamaConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// An unknown architecture, a key of the wrong type, or every impossible value at once.
    pub fn read(path: &Path) -> Result<Self> {
        let json = |source| EngineError::Json { path: path.to_path_buf(), source };
        let text = std::fs::read_to_string(path).map_err(EngineError::io("read", path))?;
        let value: Value = serde_json::from_str(&text).map_err(json)?;
        let found = value["architectures"][0].as_str().unwrap_or("none").to_string();
        if found != KNOWN && found != CLASSIFIER {
            return Err(EngineError::UnknownArchitecture { path: path.to_path_buf(), found, known: KNOWN });
        }
        let problems = unsupported(&value);
        if !problems.is_empty() {
            return Err(EngineError::Invalid { what: format!("`{}`", path.display()), problems });
        }
        let config: Self = serde_json::from_value(value).map_err(json)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let mut problems = Vec::new();
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        problems.extend(sizes.iter().filter(|it| it.1 == 0).map(|it| format!("`{}` must be > 0", it.0)));
        if problems.is_empty() {
            if !self.num_attention_heads.is_multiple_of(self.kv_heads()) {
                problems.push(format!(
                    "`num_attention_heads` must be a multiple of `num_key_value_heads`, got {} and {}",
                    self.num_attention_heads,
                    self.kv_heads()
                ));
            }
            if self.head_dim() == 0 || !self.head_dim().is_multiple_of(2) {
                problems.push(format!("`head_dim` must be even and > 0, got {}", self.head_dim()));
            }
            if let Err(problem) = self.rope() {
                problems.push(problem);
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(EngineError::Invalid { what: format!("`{}`", path.display()), problems })
    }

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or_else(|| self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Tokens of a sequence at most: `max_position_embeddings`, times the factor where rotary scaling stretches it.
    ///
    /// `linear` and `dynamic` leave `max_position_embeddings` at what the model was first trained on; `llama3` does not.
    pub fn context_length(&self) -> usize {
        let factor = match self.rope().map(|it| it.scaling) {
            Ok(RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor }) => factor.max(1.0),
            _ => 1.0,
        };
        (self.max_position_embeddings as f64 * factor) as usize
    }

    /// The rotary embedding.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn rope(&self) -> std::result::Result<Rope, String> {
        let parameters =
            self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()).filter(|it| !it.is_null());
        let theta =
            parameters.and_then(|it| it["rope_theta"].as_f64()).or(self.rope_theta).unwrap_or(10_000.0);
        let scaling = match parameters {
            None => RopeScaling::Default,
            Some(parameters) => {
                let mut parameters = parameters.clone();
                let kind = ["rope_type", "type"].iter().find_map(|key| parameters[*key].as_str());
                let kind = kind.unwrap_or("default").to_string();
                parameters["rope_type"] = Value::String(kind);
                serde_json::from_value(parameters).map_err(|error| format!("`rope_scaling`: {error}"))?
            }
        };
        Ok(Rope {
            theta,
            head_dim: self.head_dim(),
            max_position_embeddings: self.max_position_embeddings,
            scaling,
        })
    }
}
