//! Linear layers, alone or with low-rank adapters beside their weights.

use burn::tensor::{DType, Tensor};
use fthost_kernels::{Activation, LoraLinear, LowRank, Prologue, geglu, lora_linears, rms_norm, swiglu};

use super::precision::{cast, weight_for};
use crate::adapters::dropout::Dropout;

/// The low-rank pair of one linear.
#[derive(Debug, Clone)]
pub struct LoraWeights {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    /// `alpha / rank`, or `alpha / sqrt(rank)` for rsLoRA.
    pub scaling: f64,
    /// Set by a training step for one micro-batch; `None` everywhere else.
    pub dropout: Option<Dropout>,
}

/// `x weight^T + bias`, plus the adapter's share where there is one.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`, as stored by Hugging Face.
    pub weight: Tensor<2>,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    /// The adapter.
    pub lora: Option<LoraWeights>,
}

impl Linear {
    /// `[T, in]` to `[T, out]`, in the type of `x`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        forward_all([self], x, Prologue::None, None)
    }

    /// The layer with its weights in `dtype`, as the fused operation takes it.
    fn layer(&self, dtype: DType) -> LoraLinear {
        let lora = self.lora.as_ref().map(|it| LowRank {
            a: cast(it.a.clone(), dtype),
            b: cast(it.b.clone(), dtype),
            scaling: it.scaling,
        });
        LoraLinear {
            weight: weight_for(self.weight.clone(), dtype),
            bias: self.bias.clone().map(|it| cast(it, dtype)),
            lora,
        }
    }
}

/// The outputs of `linears` side by side, plus `residual`: see [`lora_linears`].
pub fn forward_all<const N: usize>(
    linears: [&Linear; N],
    x: Tensor<2>,
    prologue: Prologue,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    let dtype = x.dtype();
    if linears.iter().all(|it| it.lora.as_ref().is_none_or(|it| it.dropout.is_none())) {
        return lora_linears(x, prologue, &linears.map(|it| it.layer(dtype)), residual);
    }
    // Each adapter drops other values of the input: base and adapters go separate ways.
    let base = linears.map(|it| LoraLinear { lora: None, ..it.layer(dtype) });
    let x = apply_prologue(x, prologue);
    let shares = linears.map(|it| match &it.lora {
        Some(lora) => dropped_share(lora, x.clone()),
        None => Tensor::zeros([x.dims()[0], it.weight.dims()[0]], (&x.device(), dtype)),
    });
    lora_linears(x, Prologue::None, &base, residual) + Tensor::cat(shares.to_vec(), 1)
}

/// `scaling (dropout(x) a^T) b^T`.
fn dropped_share(lora: &LoraWeights, x: Tensor<2>) -> Tensor<2> {
    let dtype = x.dtype();
    let x = match &lora.dropout {
        Some(dropout) => dropout.apply(x),
        None => x,
    };
    let share = x.matmul(cast(lora.a.clone(), dtype).transpose()).mul_scalar(lora.scaling);
    share.matmul(cast(lora.b.clone(), dtype).transpose())
}

fn apply_prologue(x: Tensor<2>, prologue: Prologue) -> Tensor<2> {
    match prologue {
        Prologue::None => x,
        Prologue::RmsNorm { weight, eps } => rms_norm(x, weight, eps),
        Prologue::Gated(activation) => {
            let width = x.dims()[1] / 2;
            let (gate, up) = (x.clone().narrow(1, 0, width), x.narrow(1, width, width));
            match activation {
                Activation::Silu => swiglu(gate, up),
                Activation::GeluTanh => geglu(gate, up),
            }
        }
    }
}
