//! A linear layer, alone or with a low-rank adapter beside its weight.

use burn::tensor::Tensor;
use fthost_kernels::lora_linear;

/// The low-rank pair of one linear.
#[derive(Debug, Clone)]
pub struct LoraWeights {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    /// `alpha / rank`, or `alpha / sqrt(rank)` for rsLoRA.
    pub scaling: f64,
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
    /// `[T, in]` to `[T, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        if let Some(lora) = &self.lora {
            let (a, b) = (lora.a.clone(), lora.b.clone());
            return lora_linear(x, self.weight.clone(), self.bias.clone(), a, b, lora.scaling);
        }
        let y = x.matmul(self.weight.clone().transpose());
        match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        }
    }
}
