//! The Llama family: <https://arxiv.org/abs/2302.13971>, as transformers' `modeling_llama.py` computes it.
//!
//! Shapes: `T` = tokens of the micro-batch, sequences end to end; `D` = `hidden_size`; `V` = `vocab_size`.

use std::sync::Arc;

use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};
use fthost_data::Batch;
use fthost_kernels::{Activation, AttentionConfig, Prologue, linear, qkv_attention, rms_norm};

use super::config::LlamaConfig;
use super::score::ScoreHead;
use crate::nn::linear::forward_all;
use crate::nn::precision::cast;
use crate::nn::{DecodeWeights, FloatDtype, Linear, Rope};

/// Name of the embedding's weight.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the final norm's weight.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Name of the head's weight.
pub const HEAD: &str = "lm_head.weight";

/// A model: embedding, blocks, final norm, and a head unless the embedding serves as one.
#[derive(Debug, Clone)]
pub struct CausalLm {
    /// `config.json`.
    pub config: LlamaConfig,
    /// `[V, D]`.
    pub embed_tokens: Tensor<2>,
    /// From input to output.
    pub blocks: Vec<Block>,
    /// `[D]`.
    pub norm: Tensor<1>,
    /// `[V, D]`; `None` where `tie_word_embeddings`.
    pub lm_head: Option<Tensor<2>>,
    /// Trained beside whatever else is, where there is one.
    pub score: Option<ScoreHead>,
    /// Rotary embedding.
    pub rope: Rope,
    /// What the blocks compute in; weights are f32.
    pub compute_dtype: FloatDtype,
}

/// One transformer block: the unit of everything that manages memory.
#[derive(Debug, Clone)]
pub struct Block {
    /// `[D]`.
    pub input_layernorm: Tensor<1>,
    /// `[heads * head_dim, D]`.
    pub q_proj: Linear,
    /// `[kv_heads * head_dim, D]`.
    pub k_proj: Linear,
    /// `[kv_heads * head_dim, D]`.
    pub v_proj: Linear,
    /// `[D, heads * head_dim]`.
    pub o_proj: Linear,
    /// `[D]`.
    pub post_attention_layernorm: Tensor<1>,
    /// `[intermediate_size, D]`.
    pub gate_proj: Linear,
    /// `[intermediate_size, D]`.
    pub up_proj: Linear,
    /// `[D, intermediate_size]`.
    pub down_proj: Linear,
    /// Epsilon of both norms.
    pub rms_norm_eps: f64,
    /// Width of a head.
    pub head_dim: usize,
}

/// What every block of one forward pass shares.
#[derive(Debug, Clone)]
pub struct BlockContext {
    /// `[T, head_dim / 2]`.
    pub cos: Tensor<2>,
    /// `[T, head_dim / 2]`.
    pub sin: Tensor<2>,
    /// Start of each segment and, last, `T`.
    pub cu_seqlens: Arc<[usize]>,
    /// As [`AttentionConfig::parents`].
    pub parents: Arc<[Option<usize>]>,
}

/// A parameter as a visitor meets it.
pub enum Parameter<'a> {
    /// Norms and biases.
    Vector(&'a mut Tensor<1>),
    /// Weights, embeddings and adapters.
    Matrix(&'a mut Tensor<2>),
}

impl Parameter<'_> {
    /// Shape.
    pub fn dims(&self) -> Vec<usize> {
        match self {
            Parameter::Vector(tensor) => tensor.dims().to_vec(),
            Parameter::Matrix(tensor) => tensor.dims().to_vec(),
        }
    }

    /// Number of values.
    pub fn length(&self) -> usize {
        self.dims().iter().product()
    }

    /// Makes the parameter a leaf of a new graph.
    pub fn track(self) {
        match self {
            Parameter::Vector(tensor) => *tensor = tensor.clone().autodiff().require_grad(),
            Parameter::Matrix(tensor) => *tensor = tensor.clone().autodiff().require_grad(),
        }
    }

    /// The gradient of a leaf, flat, `[length]`; zeros where the graph does not reach it.
    pub fn gradient(&self, graph: &Gradients) -> Tensor<1> {
        let (found, device) = match self {
            Parameter::Vector(tensor) => (tensor.grad(graph).map(Tensor::inner), tensor.device()),
            Parameter::Matrix(tensor) => {
                (tensor.grad(graph).map(|it| it.inner().flatten(0, 1)), tensor.device())
            }
        };
        found.unwrap_or_else(|| Tensor::zeros([self.length()], &device.inner()))
    }

    /// Shape and values.
    pub fn to_f32(&self) -> (Vec<usize>, Vec<f32>) {
        fn values<const D: usize>(tensor: &Tensor<D>) -> (Vec<usize>, Vec<f32>) {
            let values = tensor.clone().inner().try_into_vec_as::<f32>();
            (tensor.dims().to_vec(), values.expect("a float tensor is read as f32"))
        }
        match self {
            Parameter::Vector(tensor) => values(tensor),
            Parameter::Matrix(tensor) => values(tensor),
        }
    }
}

impl Block {
    /// Queries, keys and values side by side, not rotated: `[T, (heads + 2 kv_heads) * head_dim]`.
    pub fn projected(&self, x: Tensor<2>) -> Tensor<2> {
        let norm = self.norm(&self.input_layernorm, x.dtype());
        forward_all([&self.q_proj, &self.k_proj, &self.v_proj], x, norm, None)
    }

    /// Heads, and heads of keys and values.
    fn heads(&self) -> [usize; 2] {
        [&self.q_proj, &self.k_proj].map(|it| it.weight.dims()[0] / self.head_dim)
    }

    /// How the block's heads attend.
    pub fn attention_config(&self, context: &BlockContext) -> AttentionConfig {
        let scale = (self.head_dim as f64).powf(-0.5);
        let (cu_seqlens, parents) = (context.cu_seqlens.clone(), context.parents.clone());
        AttentionConfig { cu_seqlens, parents, scale, window: None }
    }

    fn norm(&self, weight: &Tensor<1>, dtype: DType) -> Prologue {
        Prologue::RmsNorm { weight: cast(weight.clone(), dtype), eps: self.rms_norm_eps }
    }

    /// The block after attention: `x` and what attention mixed, `[T, heads * head_dim]`, to the block's output.
    pub fn finish(&self, x: Tensor<2>, mixed: Tensor<2>) -> Tensor<2> {
        let x = forward_all([&self.o_proj], mixed, Prologue::None, Some(x));
        let norm = self.norm(&self.post_attention_layernorm, x.dtype());
        let gate_up = forward_all([&self.gate_proj, &self.up_proj], x.clone(), norm, None);
        forward_all([&self.down_proj], gate_up, Prologue::Gated(Activation::Silu), Some(x))
    }

    /// `[T, D]` to `[T, D]`.
    pub fn forward(&self, x: Tensor<2>, context: &BlockContext) -> Tensor<2> {
        let ([heads, kv_heads], config) = (self.heads(), self.attention_config(context));
        let (cos, sin) = (context.cos.clone(), context.sin.clone());
        let mixed = qkv_attention(self.projected(x.clone()), cos, sin, heads, kv_heads, &config);
        self.finish(x, mixed)
    }

    /// Every base weight of the block, which is the model's `layer`th.
    pub fn visit_base(&mut self, layer: usize, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        let prefix = format!("model.layers.{layer}");
        let norm = format!("{prefix}.input_layernorm.weight");
        visit(&norm, Parameter::Vector(&mut self.input_layernorm));
        let norm = format!("{prefix}.post_attention_layernorm.weight");
        visit(&norm, Parameter::Vector(&mut self.post_attention_layernorm));
        for (name, linear) in self.linears_mut() {
            visit(&format!("{prefix}.{name}.weight"), Parameter::Matrix(&mut linear.weight));
            if let Some(bias) = &mut linear.bias {
                visit(&format!("{prefix}.{name}.bias"), Parameter::Vector(bias));
            }
        }
    }

    /// Every adapter weight of the block.
    pub fn visit_lora(&mut self, layer: usize, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        for (name, linear) in self.linears_mut() {
            if let Some(lora) = &mut linear.lora {
                let path = format!("model.layers.{layer}.{name}");
                visit(&format!("{path}.lora_A.weight"), Parameter::Matrix(&mut lora.a));
                visit(&format!("{path}.lora_B.weight"), Parameter::Matrix(&mut lora.b));
            }
        }
    }

    /// What is trained of the block: the whole base, or the adapters.
    pub fn visit_trained(
        &mut self,
        trains_base: bool,
        layer: usize,
        visit: &mut dyn FnMut(&str, Parameter<'_>),
    ) {
        if trains_base { self.visit_base(layer, visit) } else { self.visit_lora(layer, visit) }
    }

    /// Every linear, in the order of [`Block::linears_mut`].
    pub fn linears(&self) -> [&Linear; 7] {
        [
            &self.q_proj,
            &self.k_proj,
            &self.v_proj,
            &self.o_proj,
            &self.gate_proj,
            &self.up_proj,
            &self.down_proj,
        ]
    }

    /// Every linear with the last parts of its Hugging Face name.
    pub fn linears_mut(&mut self) -> [(&'static str, &mut Linear); 7] {
        [
            ("self_attn.q_proj", &mut self.q_proj),
            ("self_attn.k_proj", &mut self.k_proj),
            ("self_attn.v_proj", &mut self.v_proj),
            ("self_attn.o_proj", &mut self.o_proj),
            ("mlp.gate_proj", &mut self.gate_proj),
            ("mlp.up_proj", &mut self.up_proj),
            ("mlp.down_proj", &mut self.down_proj),
        ]
    }
}

impl CausalLm {
    /// The device the weights live on, without autodiff.
    pub fn device(&self) -> Device {
        self.norm.device().inner()
    }

    /// `[T]` ids to `[T, D]`, in the type the blocks compute in.
    pub fn embed(&self, input_ids: &[u32]) -> Tensor<2> {
        let embedded = self.embed_tokens.clone().select(0, ids_tensor(input_ids, &self.device()));
        cast(embedded, self.compute_dtype.into())
    }

    /// What the blocks share for `batch`.
    pub fn context(&self, batch: &Batch) -> BlockContext {
        let (cos, sin) = self.rope.tables(&batch.position_ids, &self.device());
        let dtype = self.compute_dtype.into();
        let (cos, sin) = (cast(cos, dtype), cast(sin, dtype));
        let parents = batch.parents.as_slice().into();
        BlockContext { cos, sin, cu_seqlens: batch.cu_seqlens.as_slice().into(), parents }
    }

    /// Hidden states after the final norm, `[T, D]`.
    pub fn hidden(&self, batch: &Batch) -> Tensor<2> {
        let context = self.context(batch);
        let x = self.blocks.iter().fold(self.embed(&batch.input_ids), |x, block| block.forward(x, &context));
        self.final_norm(x)
    }

    /// The norm after the last block, `[T, D]` to `[T, D]`, in f32: the head and the loss are.
    pub fn final_norm(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(cast(x, DType::F32), self.norm.clone(), self.config.rms_norm_eps)
    }

    /// The head's weight, `[V, D]`.
    pub fn head_weight(&self) -> Tensor<2> {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens).clone()
    }

    /// `[T, D]` to `[T, V]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        linear(hidden, self.head_weight())
    }

    /// Every weight that is trained: the adapter's where there is one, otherwise all; and a scalar head's, last.
    pub fn visit_trained(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        if self.has_lora() {
            self.visit_lora(visit)
        } else {
            self.visit_base(visit)
        }
        self.visit_score(visit);
    }

    /// The scalar head, where there is one.
    pub fn visit_score(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        if let Some(score) = &mut self.score {
            score.visit(visit);
        }
    }

    /// Final norm and, where it has a weight of its own, the head.
    pub fn visit_head(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        visit(FINAL_NORM, Parameter::Vector(&mut self.norm));
        if let Some(head) = &mut self.lm_head {
            visit(HEAD, Parameter::Matrix(head));
        }
    }

    /// Every base weight with its Hugging Face name, in a fixed order; adapters and a scalar head apart.
    pub fn visit_base(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        visit(EMBEDDING, Parameter::Matrix(&mut self.embed_tokens));
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            block.visit_base(layer, visit);
        }
        self.visit_head(visit);
    }

    /// Every adapter weight as PEFT names it below `base_model.model.`, in a fixed order.
    pub fn visit_lora(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            block.visit_lora(layer, visit);
        }
    }

    /// Stores the blocks' linear weights, which must be frozen, in `dtype`: half the memory in bf16, rounded once.
    /// Embedding, head and norms stay f32.
    pub fn store_linears(&mut self, dtype: FloatDtype) {
        for block in &mut self.blocks {
            for (_, linear) in block.linears_mut() {
                linear.weight.inplace(|it| cast(it, dtype.into()));
            }
        }
    }

    /// The model as it generates: its linear weights and its head in `weights`. Embedding, norms and adapters, and all of
    /// it for [`DecodeWeights::F32`], are shared with `self`.
    pub fn for_decoding(&self, weights: DecodeWeights) -> Self {
        let mut model = self.clone();
        if weights == DecodeWeights::F32 {
            return model;
        }
        for block in &mut model.blocks {
            for (_, linear) in block.linears_mut() {
                linear.weight.inplace(|it| weights.of(it));
            }
        }
        model.lm_head = Some(weights.of(self.head_weight()));
        model
    }

    /// The base model alone; its weights are shared with `self`.
    pub fn without_lora(&self) -> Self {
        let mut model = self.clone();
        for block in &mut model.blocks {
            block.linears_mut().into_iter().for_each(|(_, linear)| linear.lora = None);
        }
        model
    }

    /// Whether an adapter is attached.
    pub fn has_lora(&self) -> bool {
        self.blocks.iter().any(|block| block.linears().iter().any(|linear| linear.lora.is_some()))
    }
}

/// Token ids as a tensor, `[len]`.
pub fn ids_tensor(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.iter().map(|&it| it as i32).collect();
    let length = ids.len();
    Tensor::from_data(TensorData::new(ids, [length]), device)
}
