//! A mixture of experts in place of a feed-forward layer: <https://arxiv.org/abs/2101.03961>, as transformers'
//! `modeling_mixtral.py` and `modeling_qwen3_moe.py` compute it. Each token is seen by the few experts that a router finds most
//! likely; an expert that no token is sent to costs nothing, and learns nothing.
//!
//! Shapes: `T` = tokens; `D` = `hidden_size`; `E` = experts.

use burn::tensor::{DType, IndexingUpdateOp, Tensor, TensorData, activation};
use fthost_kernels::{Activation, Prologue};

use super::block::Named;
use super::causal_lm::ids_tensor;
use super::decoder::MixtureConfig;
use crate::nn::linear::{Linear, forward_all};
use crate::nn::precision::cast;

/// A router and its experts.
#[derive(Debug, Clone)]
pub struct Mixture {
    /// `[E, D]`.
    pub router: Named,
    /// `E` of them.
    pub experts: Vec<Expert>,
    /// How tokens are sent.
    pub config: MixtureConfig,
    /// Between an expert's linears.
    pub activation: Activation,
}

/// A feed-forward layer among others.
#[derive(Debug, Clone)]
pub struct Expert {
    /// To gate and up, side by side.
    pub up: Vec<Named>,
    /// Back to the stream's width.
    pub down: Named,
}

impl Mixture {
    /// `[T, D]`, normalised, to what is added to the stream.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let device = x.device().inner();
        let probs = activation::softmax(cast(self.router.1.forward(x.clone()), DType::F32), 1);
        let chosen = self.chosen(&probs);
        let mask = TensorData::new(chosen.mask, probs.dims());
        let mut shares = probs * Tensor::from_data(mask, &device);
        if self.config.norm_topk_prob {
            shares = shares.clone() / shares.sum_dim(1);
        }
        let mut sum = Tensor::zeros(x.dims(), (&device, x.dtype()));
        for (index, (expert, tokens)) in self.experts.iter().zip(&chosen.tokens).enumerate() {
            if tokens.is_empty() {
                continue;
            }
            let ids = ids_tensor(tokens, &device);
            let share = shares.clone().select(0, ids.clone()).narrow(1, index, 1);
            let found = expert.forward(x.clone().select(0, ids.clone()), self.activation);
            let weighted = found * cast(share, x.dtype());
            sum = sum.select_assign(0, ids, weighted, IndexingUpdateOp::Add);
        }
        sum
    }

    /// The most likely experts of each token; of equally likely ones the first.
    fn chosen(&self, probs: &Tensor<2>) -> Chosen {
        let [tokens, experts] = probs.dims();
        let values = probs.clone().inner().try_into_vec_as::<f32>().expect("a float tensor is read as f32");
        let mut chosen = Chosen { mask: vec![0.0; tokens * experts], tokens: vec![Vec::new(); experts] };
        let mut order: Vec<usize> = Vec::with_capacity(experts);
        for (token, probs) in values.chunks_exact(experts).enumerate() {
            order.clear();
            order.extend(0..experts);
            order.sort_by(|a, b| probs[*b].total_cmp(&probs[*a]));
            for expert in &order[..self.config.num_experts_per_tok] {
                chosen.mask[token * experts + expert] = 1.0;
                chosen.tokens[*expert].push(token as u32);
            }
        }
        chosen
    }

    /// Every linear: the router, then expert by expert.
    pub fn linears(&self) -> impl Iterator<Item = &Named> {
        let experts = self.experts.iter().flat_map(|it| it.up.iter().chain([&it.down]));
        [&self.router].into_iter().chain(experts)
    }

    /// As [`Mixture::linears`].
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Named> {
        let experts = self.experts.iter_mut().flat_map(|it| it.up.iter_mut().chain([&mut it.down]));
        [&mut self.router].into_iter().chain(experts)
    }
}

/// Which tokens go where.
struct Chosen {
    /// 1 where a token is sent to an expert, `[T, E]`.
    mask: Vec<f32>,
    /// By expert.
    tokens: Vec<Vec<u32>>,
}

impl Expert {
    fn forward(&self, x: Tensor<2>, activation: Activation) -> Tensor<2> {
        let up: Vec<&Linear> = self.up.iter().map(|it| &it.1).collect();
        let up = forward_all(&up, x, Prologue::None, None);
        forward_all(&[&self.down.1], up, Prologue::Gated(activation), None)
    }
}
