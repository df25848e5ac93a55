//! Linear layers, alone or with low-rank adapters beside their weights.

use burn::tensor::{DType, Tensor};
use fthost_kernels::{Dropout, LoraLinear, LowRank, Prologue, lora_linears};

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
        forward_all(&[self], x, Prologue::None, None)
    }

    /// The layer with its weights in `dtype`, as the fused operation takes it.
    fn layer(&self, dtype: DType) -> LoraLinear {
        let lora = self.lora.as_ref().map(|it| LowRank {
            a: cast(it.a.clone(), dtype),
            b: cast(it.b.clone(), dtype),
            scaling: it.scaling,
            dropout: it.dropout.clone(),
        });
        LoraLinear {
            weight: weight_for(self.weight.clone(), dtype).into(),
            bias: self.bias.clone().map(|it| cast(it, dtype)),
            lora,
        }
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
    let layers: Vec<LoraLinear> = linears.iter().map(|it| it.layer(dtype)).collect();
    lora_linears(x, prologue, &layers, residual)
}
