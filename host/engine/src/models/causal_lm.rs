//! A causal language model of any family: embedding, blocks, final norm, head.
//!
//! Shapes: `T` = tokens of the micro-batch, sequences end to end; `D` = `hidden_size`; `V` = `vocab_size`.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fthost_data::Batch;
use fthost_kernels::{
    LinearCrossEntropy, Softcap, TokenLogps, Weight, linear, linear_cross_entropy, token_logps,
};

use super::block::{Block, BlockContext, RopeTables};
use super::decoder::DecoderConfig;
use super::norm::Norm;
use super::parameter::Parameter;
use super::part::Part;
use super::prefix::PrefixEncoder;
use super::score::ScoreHead;
use super::trained::Trained;
use crate::nn::precision::cast;
use crate::nn::{DecodeWeights, FloatDtype, Rope};
use crate::quant::QuantConfig;
use crate::shard::Shards;

/// A model: embedding, blocks, final norm, and a head unless the embedding serves as one.
#[derive(Debug, Clone)]
pub struct CausalLm {
    /// What `config.json` says.
    pub config: DecoderConfig,
    /// `[V, D]`; bf16 where it is frozen and stored so, as the head is.
    pub embed_tokens: Tensor<2>,
    /// `[max_position_embeddings, D]`, where positions are learned.
    pub embed_positions: Option<Tensor<2>>,
    /// Virtual tokens as they stand before every sequence, `[n, D]`: prompt tuning.
    pub prompt: Option<Box<Tensor<2>>>,
    /// What projected prefixes are made of.
    pub prefix_encoder: Option<Box<PrefixEncoder>>,
    /// From input to output.
    pub blocks: Vec<Block>,
    /// After the last block.
    pub norm: Norm,
    /// `[V, D]`; `None` where `tie_word_embeddings`.
    pub lm_head: Option<Tensor<2>>,
    /// Trained beside whatever else is, where there is one.
    pub score: Option<ScoreHead>,
    /// Which weights are.
    pub trained: Trained,
    /// What this rank has of a model that is shared with others.
    pub shards: Option<Arc<Shards>>,
    /// What the blocks compute in; what is trained of them is f32.
    pub compute_dtype: FloatDtype,
}

/// What predicts tokens: logits are `hidden weight^T`, bounded where `softcap` says so.
#[derive(Debug, Clone)]
pub struct TokenHead {
    /// `[V, D]`.
    pub weight: Tensor<2>,
    /// Bound of the logits.
    pub softcap: Option<f64>,
}

/// What stands on the trunk, as a loss is given it: tracked where it is trained.
#[derive(Debug, Clone)]
pub struct Heads {
    /// What predicts tokens.
    pub tokens: TokenHead,
    /// The scalar head, where there is one.
    pub score: Option<ScoreHead>,
}

impl TokenHead {
    /// Log-probabilities of `targets`, one a row of `hidden`, `[S, D]`, under logits divided by `temperature`.
    pub fn token_logps(self, hidden: Tensor<2>, targets: &[u32], temperature: f64) -> TokenLogps {
        match self.softcap {
            Some(cap) => {
                let softcap = Softcap { cap, scale: 1.0 / temperature };
                token_logps(hidden, self.weight, Some(softcap), targets)
            }
            // The head is linear: hidden states over the temperature give logits over the temperature.
            None if temperature != 1.0 => {
                token_logps(hidden.div_scalar(temperature), self.weight, None, targets)
            }
            None => token_logps(hidden, self.weight, None, targets),
        }
    }

    /// Cross-entropy with `targets`, one a row of `hidden`, `[S, D]`.
    pub fn cross_entropy(self, hidden: Tensor<2>, targets: &[u32]) -> LinearCrossEntropy {
        let softcap = self.softcap.map(|cap| Softcap { cap, scale: 1.0 });
        linear_cross_entropy(hidden, self.weight, softcap, targets)
    }
}

impl CausalLm {
    /// The device the weights live on, without autodiff.
    pub fn device(&self) -> Device {
        self.norm.weight.device().inner()
    }

    /// Ids and positions, `[T]` each, to `[T, D]`, in the type the blocks compute in.
    pub fn embed(&self, input_ids: &[u32], position_ids: &[u32]) -> Tensor<2> {
        let device = self.device();
        let embedded = self.embed_tokens.clone().select(0, ids_tensor(input_ids, &device));
        let mut embedded = cast(embedded, DType::F32);
        if let Some(scale) = self.config.embedding_scale {
            embedded = embedded.mul_scalar(scale);
        }
        if let Some(positions) = &self.embed_positions {
            embedded = embedded + positions.clone().select(0, ids_tensor(position_ids, &device));
        }
        cast(embedded, self.compute_dtype.into())
    }

    /// What the blocks share, with the tables that `tables` makes of each rotary embedding.
    pub(crate) fn context_with(
        &self,
        tables: impl Fn(&Rope) -> RopeTables,
        cu_seqlens: Arc<[usize]>,
        parents: Arc<[Option<usize>]>,
    ) -> BlockContext {
        let dtype = self.compute_dtype.into();
        let ropes = self.config.ropes.iter().map(tables);
        let ropes = ropes.map(|(cos, sin)| (cast(cos, dtype), cast(sin, dtype))).collect();
        BlockContext { ropes, cu_seqlens, parents, encoded: self.encoded_prefix() }
    }

    /// As [`CausalLm::forward`], the hidden states alone.
    pub fn hidden(&self, batch: &Batch) -> Tensor<2> {
        self.forward(batch).0
    }

    /// The norm after the last block, `[T, D]` to `[T, D]`, in f32: the head and the loss are.
    pub fn final_norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.norm.forward(cast(x, DType::F32))
    }

    /// The head's weight, `[V, D]`.
    pub fn head_weight(&self) -> Tensor<2> {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens).clone()
    }

    /// What predicts tokens.
    pub fn token_head(&self) -> TokenHead {
        TokenHead { weight: self.head_weight(), softcap: self.config.final_logit_softcapping }
    }

    /// What stands on the trunk.
    pub(crate) fn heads(&self) -> Heads {
        Heads { tokens: self.token_head(), score: self.score.clone() }
    }

    /// `[T, D]` to `[T, V]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = linear(hidden, self.head_weight());
        match self.config.final_logit_softcapping {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        }
    }

    /// What stands before the name of a weight of the `layer`th block.
    pub fn block_path(&self, layer: usize) -> String {
        format!("{}.{layer}", self.config.names.blocks)
    }

    /// Every weight that is trained: the adapter's where there is one and what is trained with it, otherwise all; and a scalar
    /// head's, last.
    pub fn visit_trained(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        Part::all(self.blocks.len()).for_each(|part| part.visit_trained(self, visit));
    }

    /// What is trained of the `layer`th block.
    pub fn visit_trained_block(&mut self, layer: usize, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        let path = self.block_path(layer);
        self.blocks[layer].visit_trained(&self.trained, &path, visit);
    }

    /// What is trained behind the last block.
    pub fn visit_trained_head(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        let trained = self.trained.clone();
        self.visit_head(&mut trained.only(visit));
        self.visit_score(visit);
    }

    /// Whether anything below the blocks is trained.
    pub(crate) fn trains_below_blocks(&self) -> bool {
        let names = self.config.names;
        let embeddings = [Some(names.embedding), names.positions].into_iter().flatten();
        self.prompt.is_some() || embeddings.into_iter().any(|it| self.trained.selects(it))
    }

    /// Whether the embedding is trained as the head that it is, too.
    pub(crate) fn trains_tied_head(&self) -> bool {
        self.lm_head.is_none() && self.trained.selects(self.config.names.embedding)
    }

    /// The scalar head, where there is one.
    pub fn visit_score(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        if let Some(score) = &mut self.score {
            score.visit(visit);
        }
    }

    /// Final norm and, where it has a weight of its own, the head.
    pub fn visit_head(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        self.norm.visit("", visit);
        if let Some(head) = &mut self.lm_head {
            visit(self.config.names.head, Parameter::Matrix(head));
        }
    }

    /// The embedding, and that of positions where they are learned.
    pub fn visit_embedding(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        let names = self.config.names;
        visit(names.embedding, Parameter::Matrix(&mut self.embed_tokens));
        if let (Some(name), Some(positions)) = (names.positions, &mut self.embed_positions) {
            visit(name, Parameter::Matrix(positions));
        }
    }

    /// Every base weight with its Hugging Face name, in a fixed order; adapters and a scalar head apart.
    pub fn visit_base(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        Part::all(self.blocks.len()).for_each(|part| part.visit_base(self, visit));
    }

    /// The model as it generates: its linear weights and its head in `weights`. What is packed stays so. Embedding, norms and
    /// adapters, and all of it for [`DecodeWeights::F32`], are shared with `self`.
    pub fn for_decoding(&self, weights: DecodeWeights) -> Self {
        let mut model = self.whole();
        for (_, linear) in model.blocks.iter_mut().flat_map(|it| it.linears_mut()) {
            // They do not change while a model decodes.
            linear.fix_norms();
        }
        if weights == DecodeWeights::F32 {
            return model;
        }
        for block in &mut model.blocks {
            for (_, linear) in block.linears_mut() {
                if let Some(weight) = linear.weight.dense_mut() {
                    weight.inplace(|it| weights.of(it));
                }
            }
        }
        model.lm_head = Some(weights.of(self.head_weight()));
        model
    }

    /// Packs the linears that `quant` packs and that are not yet, one after the other; not a mixture's routers.
    pub fn pack(&mut self, quant: &QuantConfig) {
        let names = self.config.names;
        let router = names.experts.map(|it| it.router);
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            for (name, linear) in block.linears_mut() {
                let path = format!("{}.{layer}.{name}", names.blocks);
                let Weight::Dense(weight) = &linear.weight else { continue };
                if Some(name) != router && quant.packs(&path) {
                    let shape = weight.dims();
                    let values = weight.clone().inner().try_into_vec_as::<f32>();
                    let values = values.expect("a float tensor is read as f32");
                    linear.weight = Weight::Packed(quant.pack(&values, shape).into());
                }
            }
        }
    }

    /// Whether weights of it are in fewer bits than a tensor has.
    pub fn is_packed(&self) -> bool {
        let mut linears = self.blocks.iter().flat_map(|it| it.linears());
        linears.any(|(_, linear)| matches!(linear.weight, Weight::Packed(_)))
    }

    /// Whether an adapter is attached.
    pub fn has_adapter(&self) -> bool {
        matches!(self.trained, Trained::Adapter(_))
    }
}

/// Token ids as a tensor, `[len]`.
pub fn ids_tensor(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.iter().map(|&it| it as i32).collect();
    let length = ids.len();
    Tensor::from_data(TensorData::new(ids, [length]), device)
}
