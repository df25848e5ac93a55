//! A model's parts put together from weights that somebody gives, asked for in the model's order.

use std::borrow::Cow;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use fthost_kernels::Weight;

use crate::error::Result;
use crate::models::block::{BlockShape, FeedForward, Named};
use crate::models::decoder::{Mlp, NormKind, QkNorm};
use crate::models::mixture::{Expert, Mixture};
use crate::models::{Block, CausalLm, DecoderConfig, Norm, Part, Trained};
use crate::nn::{FloatDtype, Linear};
use crate::shard::{Mesh, Shards};

/// Where weights come from, by their Hugging Face names.
pub(crate) trait Source {
    /// The values of a weight in f32; `shape` is as it is stored.
    fn values(&mut self, name: &str, shape: &[usize]) -> Result<TensorData>;

    /// Embedding, head or router: a matrix in the type that frozen ones are stored in.
    fn matrix(&mut self, name: &str, shape: [usize; 2], device: &Device) -> Result<Tensor<2>> {
        Ok(Tensor::from_data(self.values(name, &shape)?, device))
    }

    /// Says that nobody has what was asked for so far in place any more.
    fn let_go(&mut self) {}

    /// The weight of a linear, `[out, in]`.
    fn linear(&mut self, name: &str, shape: [usize; 2], device: &Device) -> Result<Weight> {
        Ok(self.matrix(name, shape, device)?.into())
    }
}

/// Who shares a model while it is loaded, and what will be trained of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sharing<'a> {
    pub mesh: &'a Mesh,
    pub trained: &'a Trained,
}

/// A model of `config` from the weights of `source`. Where it is shared, a part is let go of, but for this rank's stretches,
/// before the next one is read.
///
/// # Errors
/// Those of `source`.
pub(crate) fn build(
    config: &DecoderConfig,
    device: &Device,
    source: &mut dyn Source,
    sharing: Option<Sharing<'_>>,
) -> Result<CausalLm> {
    let (vocab, hidden, names) = (config.vocab_size, config.hidden_size, config.names);
    let embed_tokens = source.matrix(names.embedding, [vocab, hidden], device)?;
    let positions = [config.max_position_embeddings, hidden];
    let embed_positions = names.positions.map(|it| source.values(it, &positions)).transpose()?;
    let embed_positions = embed_positions.map(|it| Tensor::from_data(it, device));
    let mut reader = Reader { source, device, config };
    let mut model = CausalLm {
        config: config.clone(),
        embed_tokens,
        embed_positions,
        prompt: None,
        prefix_encoder: None,
        blocks: Vec::with_capacity(config.num_hidden_layers()),
        // Read behind the blocks.
        norm: Norm::unread(names.final_norm, config, device),
        lm_head: None,
        score: None,
        trained: sharing.map_or(Trained::Base, |it| it.trained.clone()),
        shards: None,
        compute_dtype: FloatDtype::F32,
    };
    let mut shards = sharing.map(|it| Shards::new(it.mesh));
    let mut read = |model: &mut CausalLm, part: Part, source: &mut dyn Source| {
        if let Some(shards) = &mut shards {
            shards.take(model, part);
            if shards.mesh.shares_weights() {
                source.let_go();
            }
        }
    };
    read(&mut model, Part::Embedding, reader.source);
    for layer in 0..config.num_hidden_layers() {
        model.blocks.push(reader.block(layer)?);
        read(&mut model, Part::Block(layer), reader.source);
    }
    model.norm = reader.norm("", names.final_norm, hidden)?;
    if !config.tie_word_embeddings {
        model.lm_head = Some(reader.source.matrix(names.head, [vocab, hidden], device)?);
    }
    read(&mut model, Part::Head, reader.source);
    model.shards = shards.map(Arc::new);
    Ok(model)
}

struct Reader<'a> {
    source: &'a mut dyn Source,
    device: &'a Device,
    config: &'a DecoderConfig,
}

impl Reader<'_> {
    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>> {
        Ok(Tensor::from_data(self.source.values(name, &[length])?, self.device))
    }

    fn norm(&mut self, prefix: &str, name: &'static str, width: usize) -> Result<Norm> {
        let (kind, eps) = (self.config.norm, self.config.norm_eps);
        let weight = self.vector(&format!("{prefix}{name}.weight"), width)?;
        let bias = (kind == NormKind::Layer).then(|| self.vector(&format!("{prefix}{name}.bias"), width));
        Ok(Norm { name, kind, weight, bias: bias.transpose()?, eps })
    }

    /// A linear of `[out, in]`.
    fn linear(
        &mut self,
        prefix: &str,
        name: impl Into<Cow<'static, str>>,
        shape: [usize; 2],
        bias: bool,
    ) -> Result<Named> {
        let name = name.into();
        let path = format!("{prefix}{name}");
        let weight = self.source.linear(&format!("{path}.weight"), shape, self.device)?;
        let bias = bias.then(|| self.vector(&format!("{path}.bias"), shape[0])).transpose()?;
        Ok((name, Linear::new(weight, bias)))
    }

    /// What sends tokens to experts: too small to be worth fewer bits, and too much depends on it.
    fn router(&mut self, prefix: &str, name: &'static str, shape: [usize; 2]) -> Result<Named> {
        let weight = self.source.matrix(&format!("{prefix}{name}.weight"), shape, self.device)?;
        Ok((name.into(), Linear::new(weight.into(), None)))
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
            let router = self.router(path, names.router, [mixture.num_experts, hidden])?;
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
            prefix: None,
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
