//! A norm of the trunk, of whichever kind the family has.

use burn::tensor::{DType, Device, Tensor};
use fthost_kernels::{Prologue, layer_norm, rms_norm};

use super::decoder::{DecoderConfig, NormKind};
use super::parameter::Parameter;
use crate::nn::precision::cast;

/// A norm with its weight.
#[derive(Debug, Clone)]
pub struct Norm {
    /// The last parts of its Hugging Face name, without `.weight`.
    pub name: &'static str,
    /// Formula.
    pub kind: NormKind,
    /// As wide as what is normalised.
    pub weight: Tensor<1>,
    /// Of [`NormKind::Layer`].
    pub bias: Option<Tensor<1>>,
    /// Added to the mean square, or to the variance.
    pub eps: f64,
}

impl Norm {
    /// One whose weights are still to be read.
    pub(crate) fn unread(name: &'static str, config: &DecoderConfig, device: &Device) -> Self {
        let weight = Tensor::zeros([1], device);
        Self { name, kind: config.norm, weight, bias: None, eps: config.norm_eps }
    }

    /// The factor of what is normalised, in `dtype`.
    fn factor(&self, dtype: DType) -> Tensor<1> {
        let weight = match self.kind {
            NormKind::RmsPlusOne => self.weight.clone().add_scalar(1.0),
            NormKind::Rms | NormKind::Layer => self.weight.clone(),
        };
        cast(weight, dtype)
    }

    /// `[T, width]` to the same.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let factor = self.factor(x.dtype());
        match (self.kind, &self.bias) {
            (NormKind::Layer, Some(bias)) => {
                let bias = cast(bias.clone(), x.dtype());
                layer_norm(x, factor, bias, self.eps)
            }
            _ => rms_norm(x, factor, self.eps),
        }
    }

    /// The norm before linears: what they are given, and what they do to it first.
    pub fn before(&self, x: Tensor<2>) -> (Tensor<2>, Prologue) {
        match self.kind {
            // Not fused: its output is kept.
            NormKind::Layer => (self.forward(x), Prologue::None),
            NormKind::Rms | NormKind::RmsPlusOne => {
                let weight = self.factor(x.dtype());
                (x, Prologue::RmsNorm { weight, eps: self.eps })
            }
        }
    }

    /// Its weights; `path` is what stands before its name, with a dot.
    pub fn visit(&mut self, path: &str, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        visit(&format!("{path}{}.weight", self.name), Parameter::Vector(&mut self.weight));
        if let Some(bias) = &mut self.bias {
            visit(&format!("{path}{}.bias", self.name), Parameter::Vector(bias));
        }
    }
}
