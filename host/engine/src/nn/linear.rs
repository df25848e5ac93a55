//! Linear layers, alone or with low-rank adapters beside their weights.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use fthost_kernels::{
    Dropout, LoraLinear, LowRank, Prologue, Weight, lora_linears, lora_linears_for_gradients,
};

use super::dora::Magnitude;
use super::ia3::Ia3;
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
        let (of_a, of_b) = (beside(origin.a.clone(), &a), beside(origin.negative_b.clone(), &a));
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
    /// What multiplies the input or the output.
    pub ia3: Option<Box<Ia3>>,
}

impl Linear {
    /// Without an adapter.
    pub fn new(weight: Weight, bias: Option<Tensor<1>>) -> Self {
        Self { weight, bias, lora: None, ia3: None }
    }

    /// The factor of the input, or of the output, where there is one.
    fn scale(&self, of_input: bool, dtype: DType) -> Option<Tensor<1>> {
        let ia3 = self.ia3.as_ref().filter(|it| it.is_feedforward == of_input);
        ia3.map(|it| it.vector(dtype))
    }

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

/// [`forward_all`], or [`forward_for_gradients`].
pub type ForwardAll = fn(&[&Linear], Tensor<2>, Prologue, Option<Tensor<2>>) -> Tensor<2>;

/// As [`forward_all`], of a result whose values nobody asks for: see [`lora_linears_for_gradients`]. Where a factor's gradient needs
/// them they are computed.
pub fn forward_for_gradients(
    linears: &[&Linear],
    x: Tensor<2>,
    prologue: Prologue,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    match linears.iter().all(|it| it.ia3.is_none()) {
        true => unscaled(lora_linears_for_gradients, linears, x, prologue, residual),
        false => forward_all(linears, x, prologue, residual),
    }
}

/// The outputs of `linears` side by side, plus `residual`: see [`lora_linears`].
pub fn forward_all(
    linears: &[&Linear],
    x: Tensor<2>,
    prologue: Prologue,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    if linears.iter().all(|it| it.ia3.is_none()) {
        return unscaled(lora_linears, linears, x, prologue, residual);
    }
    let dtype = x.dtype();
    let scaled = if linears.iter().any(|it| it.scale(true, dtype).is_some()) {
        // They no longer have one input.
        let each = linears.iter().map(|it| match it.scale(true, dtype) {
            Some(scale) => {
                let (x, prologue) = scaled_input(scale, x.clone(), prologue.clone());
                unscaled(lora_linears, &[it], x, prologue, None)
            }
            None => unscaled(lora_linears, &[it], x.clone(), prologue.clone(), None),
        });
        Tensor::cat(each.collect(), 1)
    } else {
        unscaled(lora_linears, linears, x, prologue, None)
    };
    let factors: Vec<Option<Tensor<1>>> = linears.iter().map(|it| it.scale(false, dtype)).collect();
    let scaled = match factors.iter().any(Option::is_some) {
        true => scaled.clone() * side_by_side(factors, linears, 1.0, &scaled),
        false => scaled,
    };
    residual.into_iter().fold(scaled, |scaled, residual| residual + scaled)
}

/// What a linear is given, and what is done to it first, so that it sees its input times `scale`.
fn scaled_input(scale: Tensor<1>, x: Tensor<2>, prologue: Prologue) -> (Tensor<2>, Prologue) {
    let scale = beside(scale, &x);
    match prologue {
        Prologue::None => (x * scale.unsqueeze(), Prologue::None),
        Prologue::RmsNorm { weight, eps } => {
            let weight = beside(weight, &scale) * scale;
            (x, Prologue::RmsNorm { weight, eps })
        }
        // `act(gate) (up s)` is `(act(gate) up) s`.
        Prologue::Gated(activation) => {
            let gate = cast(Tensor::ones(scale.dims(), &scale.device()), scale.dtype());
            (x * Tensor::cat(vec![gate, scale], 0).unsqueeze(), Prologue::Gated(activation))
        }
    }
}

/// `it` with a graph where `like` has one: a tensor with a graph and one without can't meet.
pub(crate) fn beside<const D: usize, const E: usize>(it: Tensor<D>, like: &Tensor<E>) -> Tensor<D> {
    if like.is_autodiff() && !it.is_autodiff() { it.autodiff() } else { it }
}

/// One vector, `[1, sum of the linears' out]`, of those that linears have, `silent` where one has none.
fn side_by_side(of: Vec<Option<Tensor<1>>>, linears: &[&Linear], silent: f32, like: &Tensor<2>) -> Tensor<2> {
    let (device, dtype) = (like.device(), like.dtype());
    let each = of.into_iter().zip(linears).map(|(given, linear)| match given {
        Some(given) => cast(beside(given, like), dtype),
        None => cast(Tensor::full([linear.weight.dims()[0]], silent, &device), dtype),
    });
    Tensor::cat(each.collect(), 0).unsqueeze()
}

/// [`forward_all`] but for factors of inputs and outputs; by `product` where nothing is done to what it gives.
fn unscaled(
    product: fn(Tensor<2>, Prologue, &[LoraLinear], Option<Tensor<2>>) -> Tensor<2>,
    linears: &[&Linear],
    x: Tensor<2>,
    prologue: Prologue,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    let dtype = x.dtype();
    let mut layers: Vec<LoraLinear> = linears.iter().map(|it| it.layer(dtype)).collect();
    let factors: Vec<Option<Tensor<1>>> = linears.iter().map(|it| it.factor()).collect();
    if factors.iter().all(Option::is_none) {
        return product(x, prologue, &layers, residual);
    }
    // Neither bias nor residual is scaled.
    let biases: Vec<Option<Tensor<1>>> = layers.iter_mut().map(|it| it.bias.take()).collect();
    let output = lora_linears(x, prologue, &layers, None);
    let has_bias = biases.iter().any(Option::is_some);
    let scaled = output.clone() * side_by_side(factors, linears, 1.0, &output);
    let biased = if has_bias { scaled + side_by_side(biases, linears, 0.0, &output) } else { scaled };
    residual.into_iter().fold(biased, |biased, residual| residual + biased)
}
