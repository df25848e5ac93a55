//! A model from a folder in Hugging Face's layout.

use std::borrow::Cow;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::safetensors::TensorFiles;
use crate::error::{EngineError, Result};
use crate::models::block::{BlockShape, FeedForward, Named};
use crate::models::decoder::{Mlp, NormKind, QkNorm};
use crate::models::mixture::{Expert, Mixture};
use crate::models::score::SCORE;
use crate::models::{Block, CausalLm, DecoderConfig, Norm, ScoreHead, ScoreRole};
use crate::nn::{FloatDtype, Linear};

/// Loads `config.json` and the safetensors beside it, as f32, onto `device`.
///
/// On the CPU, weights that are stored as f32 are the file's own pages until they are trained
/// ([`TensorFiles::in_place`]): the file must not be written to while the model is used.
///
/// # Errors
/// Everything [`DecoderConfig::read`] refuses; missing, mis-shaped, unknown or non-finite weights, by name.
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
    let mut config = DecoderConfig::read(&folder.join("config.json"))?;
    let files = TensorFiles::open_model(folder)?;
    let names = config.names;
    // A model that classifies predicts no tokens: nobody asks its embedding as a head.
    config.tie_word_embeddings |= files.contains(SCORE) && !files.contains(names.head);
    // Some files hold the trunk alone, whose names then lack their first part.
    let bare = |name: &str| name.split_once('.').map_or(name.to_string(), |it| it.1.to_string());
    let is_bare = !files.contains(names.embedding) && files.contains(&bare(names.embedding));
    let mut read = Vec::new();
    let mut model = build(&config, device, &mut |name, shape| {
        let name = if is_bare { bare(name) } else { name.to_string() };
        let found = match *shape {
            [length] if in_place => files.in_place(&name, [length]),
            [rows, columns] if in_place => files.in_place(&name, [rows, columns]),
            [length] => files.read(&name, [length]),
            [rows, columns] => files.read(&name, [rows, columns]),
            _ => unreachable!("a model has vectors and matrices"),
        };
        read.push(name);
        found
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
    // Files of tied models sometimes repeat the head; older ones store rotary frequencies and masks.
    let mut unknown = files.unknown(&read);
    unknown.retain(|name| {
        let is_buffer = BUFFERS.iter().any(|it| name.ends_with(it));
        !(is_buffer || config.tie_word_embeddings && name == names.head)
    });
    if !unknown.is_empty() {
        return Err(EngineError::UnknownTensors { folder: folder.to_path_buf(), names: unknown });
    }
    Ok(model)
}

/// What older files hold beside weights.
const BUFFERS: [&str; 3] = ["rotary_emb.inv_freq", "attn.bias", "attn.masked_bias"];

/// The values of one weight from its Hugging Face name and its shape as it is stored.
pub(crate) type Values<'a> = &'a mut dyn FnMut(&str, &[usize]) -> Result<TensorData>;

/// A model of `config` from the weights that `values` gives, asked for in the model's order.
///
/// # Errors
/// Those of `values`.
pub(crate) fn build(config: &DecoderConfig, device: &Device, values: Values<'_>) -> Result<CausalLm> {
    let mut reader = Reader { values, device, config };
    let (vocab, hidden, names) = (config.vocab_size, config.hidden_size, config.names);
    let embed_tokens = reader.matrix(names.embedding, [vocab, hidden])?;
    let positions = [config.max_position_embeddings, hidden];
    let embed_positions = names.positions.map(|it| reader.matrix(it, positions)).transpose()?;
    let blocks = (0..config.num_hidden_layers()).map(|layer| reader.block(layer)).collect::<Result<_>>()?;
    let norm = reader.norm("", names.final_norm, hidden)?;
    let lm_head = match config.tie_word_embeddings {
        true => None,
        false => Some(reader.matrix(names.head, [vocab, hidden])?),
    };
    let (config, compute_dtype) = (config.clone(), FloatDtype::F32);
    Ok(CausalLm { config, embed_tokens, embed_positions, blocks, norm, lm_head, score: None, compute_dtype })
}

struct Reader<'a> {
    values: Values<'a>,
    device: &'a Device,
    config: &'a DecoderConfig,
}

impl Reader<'_> {
    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>> {
        Ok(Tensor::from_data((self.values)(name, &[length])?, self.device))
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>> {
        Ok(Tensor::from_data((self.values)(name, &shape)?, self.device))
    }

    fn norm(&mut self, prefix: &str, name: &'static str, width: usize) -> Result<Norm> {
        let (kind, eps) = (self.config.norm, self.config.norm_eps);
        let weight = self.vector(&format!("{prefix}{name}.weight"), width)?;
        let bias = (kind == NormKind::Layer).then(|| self.vector(&format!("{prefix}{name}.bias"), width));
        Ok(Norm { name, kind, weight, bias: bias.transpose()?, eps })
    }

    /// A linear of `[out, in]`, which may be stored the other way round.
    fn linear(
        &mut self,
        prefix: &str,
        name: impl Into<Cow<'static, str>>,
        shape: [usize; 2],
        bias: bool,
    ) -> Result<Named> {
        let (name, [rows, columns]) = (name.into(), shape);
        let path = format!("{prefix}{name}");
        let stored = if self.config.names.transposed { [columns, rows] } else { shape };
        let mut weight = self.matrix(&format!("{path}.weight"), stored)?;
        if self.config.names.transposed {
            // As values in order, not as a view: kernels read rows.
            weight = Tensor::from_data(weight.transpose().into_data(), self.device);
        }
        let bias = bias.then(|| self.vector(&format!("{path}.bias"), rows)).transpose()?;
        Ok((name, Linear { weight, bias, lora: None }))
    }

    /// Linears side by side: one of each width, or one of all.
    fn linears(
        &mut self,
        prefix: &str,
        names: &'static [&'static str],
        widths: &[usize],
        bias: bool,
    ) -> Result<Vec<Named>> {
        let hidden = self.config.hidden_size;
        let whole = [widths.iter().sum()];
        let widths = if names.len() == widths.len() { widths } else { &whole };
        let each = names.iter().zip(widths);
        each.map(|(name, width)| self.linear(prefix, *name, [*width, hidden], bias)).collect()
    }

    fn feed_forward(&mut self, path: &str, layer: usize) -> Result<FeedForward> {
        let (config, names) = (self.config, self.config.names);
        let (hidden, wide, bias) = (config.hidden_size, config.intermediate_size, config.biases.mlp);
        let activation = match config.mlp {
            Mlp::Gated(activation) => Some(activation),
            Mlp::Gelu => None,
        };
        let mixture = config.mixture.filter(|_| config.layers[layer].mixes);
        if let (Some(mixture), Some(names), Some(activation)) = (mixture, names.experts, activation) {
            let width = mixture.intermediate_size;
            let router = self.linear(path, names.router, [mixture.num_experts, hidden], false)?;
            let mut expert = |index: usize| {
                let name = |last: &str| format!("{}.{index}.{last}", names.list);
                let up = names.up.iter().map(|it| self.linear(path, name(it), [width, hidden], false));
                let up = up.collect::<Result<_>>()?;
                Ok(Expert { up, down: self.linear(path, name(names.down), [hidden, width], false)? })
            };
            let experts = (0..mixture.num_experts).map(&mut expert).collect::<Result<_>>()?;
            let mixture = Mixture { router, experts, config: mixture, activation };
            return Ok(FeedForward::Mixture(Box::new(mixture)));
        }
        let widths = vec![wide; if activation.is_some() { 2 } else { 1 }];
        Ok(FeedForward::Dense {
            up: self.linears(path, names.up, &widths, bias)?,
            down: self.linear(path, names.down, [hidden, wide], bias)?,
        })
    }

    fn block(&mut self, layer: usize) -> Result<Block> {
        let (config, names) = (self.config, self.config.names);
        let path = format!("{}.{layer}.", names.blocks);
        let (hidden, biases) = (config.hidden_size, config.biases);
        let widths = config.qkv_widths();
        let of_qk = match config.qk_norm {
            QkNorm::Off => None,
            QkNorm::Heads => Some([config.head_dim; 2]),
            QkNorm::Whole => Some([widths[0], widths[1]]),
        };
        let mut optional =
            |name: Option<&'static str>| name.map(|it| self.norm(&path, it, hidden)).transpose();
        let attention_norm = optional(names.attention_norm)?;
        let post_attention_norm = optional(names.post_attention_norm)?.map(Box::new);
        let mlp_norm = optional(names.mlp_norm)?;
        let post_mlp_norm = optional(names.post_mlp_norm)?.map(Box::new);
        let qk_norms = match of_qk {
            Some([q, k]) => {
                let norms =
                    [self.norm(&path, names.qk_norms[0], q)?, self.norm(&path, names.qk_norms[1], k)?];
                Some(Box::new(norms))
            }
            None => None,
        };
        Ok(Block {
            attention_norm,
            qkv: self.linears(&path, names.qkv, &widths, biases.qkv)?,
            qk_norms,
            output: self.linear(&path, names.output, [hidden, widths[0]], biases.output)?,
            post_attention_norm,
            mlp_norm,
            feed_forward: self.feed_forward(&path, layer)?,
            post_mlp_norm,
            shape: BlockShape {
                heads: [config.num_attention_heads, config.num_key_value_heads],
                head_dim: config.head_dim,
                qk_norm: config.qk_norm,
                scale: config.attention_scale,
                softcap: config.attn_logit_softcapping,
                mlp: config.mlp,
                layer: config.layers[layer],
            },
        })
    }
}
