//! A model from a folder in Hugging Face's layout.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::safetensors::TensorFiles;
use crate::error::{EngineError, Result};
use crate::models::llama::HEAD;
use crate::models::score::SCORE;
use crate::models::{Block, CausalLm, LlamaConfig, ScoreHead, ScoreRole};
use crate::nn::{FloatDtype, Linear, Rope};

/// Loads `config.json` and the safetensors beside it, as f32, onto `device`.
///
/// On the CPU, weights that are stored as f32 are the file's own pages until they are trained
/// ([`TensorFiles::in_place`]): the file must not be written to while the model is used.
///
/// # Errors
/// Everything [`LlamaConfig::read`] refuses; missing, mis-shaped, unknown or non-finite weights, by name.
pub fn load_model(folder: &Path, device: &Device) -> Result<CausalLm> {
    load(folder, device, true)
}

/// As [`load_model`], for a model whose every weight is about to be trained: each is read into memory of its own, so
/// that the file's pages and what they were copied to do not both count.
///
/// # Errors
/// As [`load_model`].
pub fn load_model_to_train(folder: &Path, device: &Device) -> Result<CausalLm> {
    load(folder, device, false)
}

fn load(folder: &Path, device: &Device, in_place: bool) -> Result<CausalLm> {
    let config_path = folder.join("config.json");
    let mut config = LlamaConfig::read(&config_path)?;
    let rope = config.rope().map_err(|problem| EngineError::Invalid {
        what: format!("`{}`", config_path.display()),
        problems: vec![problem],
    })?;
    let files = TensorFiles::open_model(folder)?;
    // A model that classifies predicts no tokens: nobody asks its embedding as a head.
    config.tie_word_embeddings |= files.contains(SCORE) && !files.contains(HEAD);
    let mut read = Vec::new();
    let mut model = build(&config, rope, device, &mut |name, shape| {
        read.push(name.to_string());
        match *shape {
            [length] if in_place => files.in_place(name, [length]),
            [rows, columns] if in_place => files.in_place(name, [rows, columns]),
            [length] => files.read(name, [length]),
            [rows, columns] => files.read(name, [rows, columns]),
            _ => unreachable!("a model has vectors and matrices"),
        }
    })?;
    if files.contains(SCORE) {
        let weight = files.read(SCORE, [1, config.hidden_size])?;
        read.push(SCORE.to_string());
        model.score = Some(ScoreHead {
            weight: Tensor::from_data(weight, device),
            bias: None,
            role: ScoreRole::Reward,
        });
    }
    // Files of tied models sometimes repeat the head; older ones store the rotary frequencies.
    let mut unknown = files.unknown(&read);
    unknown.retain(|name| {
        !(name.ends_with("rotary_emb.inv_freq") || config.tie_word_embeddings && name == "lm_head.weight")
    });
    if !unknown.is_empty() {
        return Err(EngineError::UnknownTensors { folder: folder.to_path_buf(), names: unknown });
    }
    Ok(model)
}

/// The values of one weight from its Hugging Face name and its shape.
pub(crate) type Values<'a> = &'a mut dyn FnMut(&str, &[usize]) -> Result<TensorData>;

/// A model of `config` from the weights that `values` gives, asked for in the model's order.
///
/// # Errors
/// Those of `values`.
pub(crate) fn build(
    config: &LlamaConfig,
    rope: Rope,
    device: &Device,
    values: Values<'_>,
) -> Result<CausalLm> {
    let mut reader = Reader { values, device };
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let embed_tokens = reader.matrix("model.embed_tokens.weight", [vocab, hidden])?;
    let blocks =
        (0..config.num_hidden_layers).map(|layer| reader.block(config, layer)).collect::<Result<_>>()?;
    let norm = reader.vector("model.norm.weight", hidden)?;
    let lm_head = match config.tie_word_embeddings {
        true => None,
        false => Some(reader.matrix("lm_head.weight", [vocab, hidden])?),
    };
    let (config, compute_dtype) = (config.clone(), FloatDtype::F32);
    Ok(CausalLm { config, embed_tokens, blocks, norm, lm_head, score: None, rope, compute_dtype })
}

struct Reader<'a> {
    values: Values<'a>,
    device: &'a Device,
}

impl Reader<'_> {
    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>> {
        Ok(Tensor::from_data((self.values)(name, &[length])?, self.device))
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>> {
        Ok(Tensor::from_data((self.values)(name, &shape)?, self.device))
    }

    fn linear(&mut self, name: &str, shape: [usize; 2], bias: bool) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), shape)?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), shape[0])).transpose()?;
        Ok(Linear { weight, bias, lora: None })
    }

    fn block(&mut self, config: &LlamaConfig, layer: usize) -> Result<Block> {
        let prefix = format!("model.layers.{layer}");
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) =
            (config.num_attention_heads * config.head_dim(), config.kv_heads() * config.head_dim());
        let (attention, mlp) = (config.attention_bias, config.mlp_bias);
        Ok(Block {
            input_layernorm: self.vector(&format!("{prefix}.input_layernorm.weight"), hidden)?,
            q_proj: self.linear(&format!("{prefix}.self_attn.q_proj"), [queries, hidden], attention)?,
            k_proj: self.linear(&format!("{prefix}.self_attn.k_proj"), [keys, hidden], attention)?,
            v_proj: self.linear(&format!("{prefix}.self_attn.v_proj"), [keys, hidden], attention)?,
            o_proj: self.linear(&format!("{prefix}.self_attn.o_proj"), [hidden, queries], attention)?,
            post_attention_layernorm: self
                .vector(&format!("{prefix}.post_attention_layernorm.weight"), hidden)?,
            gate_proj: self.linear(&format!("{prefix}.mlp.gate_proj"), [wide, hidden], mlp)?,
            up_proj: self.linear(&format!("{prefix}.mlp.up_proj"), [wide, hidden], mlp)?,
            down_proj: self.linear(&format!("{prefix}.mlp.down_proj"), [hidden, wide], mlp)?,
            rms_norm_eps: config.rms_norm_eps,
            head_dim: config.head_dim(),
        })
    }
}
