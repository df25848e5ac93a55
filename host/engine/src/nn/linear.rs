//! A linear layer, alone or with a low-rank adapter beside its weight.

use burn::tensor::Tensor;
use fthost_kernels::{linear, lora_linear};

use super::precision::cast;
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
        if let Some(lora) = &self.lora {
            let dtype = x.dtype();
            let (a, b) = (cast(lora.a.clone(), dtype), cast(lora.b.clone(), dtype));
            if let Some(dropout) = &lora.dropout {
                let share = dropout.apply(x.clone()).matmul(a.transpose());
                let share = share.mul_scalar(lora.scaling).matmul(b.transpose());
                return self.base(x) + share;
            }
            let weight = cast(self.weight.clone(), dtype);
            let bias = self.bias.clone().map(|it| cast(it, dtype));
            return lora_linear(x, weight, bias, a, b, lora.scaling);
        }
        self.base(x)
    }

    /// The layer without its adapter.
    fn base(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let y = linear(x, cast(self.weight.clone(), dtype));
        match &self.bias {
            Some(bias) => y + cast(bias.clone(), dtype).unsqueeze(),
            None => y,
        }
    }
}
