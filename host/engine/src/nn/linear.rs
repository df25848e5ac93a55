//! Linear layers, alone or with low-rank adapters beside their weights.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use fthost_kernels::{Dropout, LoraLinear, LowRank, Prologue, Weight, lora_linears};

use super::dora::Magnitude;
use super::precision::{cast, weight_for};

/// The low-rank pair of one linear.
#[derive(Debug, Clone)]
pub struct LoraWeights {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    /// `alpha / rank`, or `alpha / sqrt(rank)` for rsLoRA.
    pub scaling: f64,
    /// DoRA's lengths.
    pub magnitude: Option<Box<Magnitude>>,
    /// What the pair began with, where that is a part of the weight.
    pub origin: Option<Box<Origin>>,
    /// Set by a training step for one micro-batch; `None` everywhere else.
    pub dropout: Option<Dropout>,
}

/// A frozen pair whose product is taken off that of another: see [`crate::adapters::init`].
#[derive(Debug, Clone)]
pub struct Origin {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`, with the other sign.
    pub negative_b: Tensor<2>,
}

impl LoraWeights {
    /// The pair that is computed with: what it began with stands below and beside it, where there is such.
    pub fn pair(&self) -> [Tensor<2>; 2] {
        let (a, b) = (self.a.clone(), self.b.clone());
        let Some(origin) = &self.origin else { return [a, b] };
        // A tensor with a graph and one without can't meet.
        let beside = |it: &Tensor<2>| if a.is_autodiff() { it.clone().autodiff() } else { it.clone() };
        let (of_a, of_b) = (beside(&origin.a), beside(&origin.negative_b));
        [Tensor::cat(vec![a, of_a], 0), Tensor::cat(vec![b, of_b], 1)]
    }
}

/// `x weight^T + bias`, plus the adapter's share where there is one.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`, as stored by Hugging Face; one that is no tensor is frozen.
    pub weight: Weight,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    /// The adapter.
    pub lora: Option<LoraWeights>,
}

impl Linear {
    /// `[T, in]` to `[T, out]`, in the type of `x`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        forward_all(&[self], x, Prologue::None, None)
    }

    /// Finds the norms that DoRA divides by once for all calls.
    pub(crate) fn fix_norms(&mut self) {
        let norm = self.lora.as_ref().and_then(|it| it.norms(&self.weight));
        if let Some(magnitude) = self.lora.as_mut().and_then(|it| it.magnitude.as_mut()) {
            magnitude.norm = norm;
        }
    }

    /// What each output is times before bias and residual, `[out]`.
    fn factor(&self) -> Option<Tensor<1>> {
        self.lora.as_ref().and_then(|it| it.factor(&self.weight))
    }

    /// The layer with its weights in `dtype`, as the fused operation takes it.
    fn layer(&self, dtype: DType) -> LoraLinear {
        let weight = match &self.weight {
            Weight::Dense(it) => weight_for(it.clone(), dtype).into(),
            Weight::Packed(it) => Arc::clone(it).into(),
        };
        let lora = self.lora.as_ref().map(|it| {
            let [a, b] = it.pair().map(|it| cast(it, dtype));
            LowRank { a, b, scaling: it.scaling, dropout: it.dropout.clone() }
        });
        LoraLinear { weight, bias: self.bias.clone().map(|it| cast(it, dtype)), lora }
    }
}

/// The outputs of `linears` side by side, plus `residual`: see [`lora_linears`].
pub fn forward_all(
    linears: &[&Linear],
    x: Tensor<2>,
    prologue: Prologue,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    let dtype = x.dtype();
    let mut layers: Vec<LoraLinear> = linears.iter().map(|it| it.layer(dtype)).collect();
    let factors: Vec<Option<Tensor<1>>> = linears.iter().map(|it| it.factor()).collect();
    if factors.iter().all(Option::is_none) {
        return lora_linears(x, prologue, &layers, residual);
    }
    // Neither bias nor residual is scaled.
    let biases: Vec<Option<Tensor<1>>> = layers.iter_mut().map(|it| it.bias.take()).collect();
    let output = lora_linears(x, prologue, &layers, None);
    let filled = |of: Vec<Option<Tensor<1>>>, silent: f32| -> Tensor<2> {
        let device = output.device();
        let each = of.into_iter().zip(linears).map(|(given, linear)| match given {
            Some(given) => cast(given, dtype),
            None => cast(Tensor::full([linear.weight.dims()[0]], silent, &device), dtype),
        });
        Tensor::cat(each.collect(), 0).unsqueeze()
    };
    let has_bias = biases.iter().any(Option::is_some);
    let scaled = output.clone() * filled(factors, 1.0);
    let biased = if has_bias { scaled + filled(biases, 0.0) } else { scaled };
    residual.into_iter().fold(biased, |biased, residual| residual + biased)
}
