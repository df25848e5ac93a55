//! AdamW: <https://arxiv.org/abs/1711.05101>, step by step as `torch.optim.AdamW` computes it.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// `[optimizer.adamw]` of a run file; defaults are torch's, the learning rate apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay, of matrices only: norms and biases are left alone, as in transformers' `Trainer`.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { learning_rate: 2e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamWConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |key: &str, value: f64, fine: bool, bound: &str| {
            if !fine {
                problems.push(format!("`{key}` must be {bound}, got `{value}`"));
            }
        };
        check("learning_rate", self.learning_rate, self.learning_rate > 0.0, "> 0");
        check("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "in [0, 1)");
        check("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "in [0, 1)");
        check("eps", self.eps, self.eps > 0.0, "> 0");
        check("weight_decay", self.weight_decay, self.weight_decay >= 0.0, ">= 0");
        problems
    }
}

/// First and second moment of one parameter, flat.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Running mean of the gradient, `[len]`.
    pub first: Tensor<1>,
    /// Running mean of its square, `[len]`.
    pub second: Tensor<1>,
}

/// The optimizer: moments by parameter name, made when a parameter is first updated.
#[derive(Debug, Clone, Default)]
pub struct AdamW {
    /// Updates done.
    pub updates: u64,
    /// State, in the order of names.
    pub moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// Opens the next update; every parameter follows by [`AdamW::update`].
    pub fn begin(&mut self) {
        self.updates += 1;
    }

    /// The new value of a parameter. `learning_rate` is that of this step and parameter; `gradient` is clipped.
    ///
    /// Matrices decay, vectors do not.
    pub fn update<const D: usize>(
        &mut self,
        config: &AdamWConfig,
        learning_rate: f64,
        name: &str,
        value: Tensor<D>,
        gradient: Tensor<D>,
    ) -> Tensor<D> {
        let shape = value.dims();
        let length: usize = shape.iter().product();
        let gradient = gradient.reshape([length]);
        let fresh = || {
            let zeros = Tensor::zeros_like(&gradient);
            Moments { first: zeros.clone(), second: zeros }
        };
        let Moments { first, second } = self.moments.remove(name).unwrap_or_else(fresh);
        let first = first.mul_scalar(config.beta1) + gradient.clone().mul_scalar(1.0 - config.beta1);
        let second = second.mul_scalar(config.beta2) + gradient.square().mul_scalar(1.0 - config.beta2);
        let updates = self.updates as i32;
        let (correction1, correction2) = (1.0 - config.beta1.powi(updates), 1.0 - config.beta2.powi(updates));
        let denominator = second.clone().sqrt().div_scalar(correction2.sqrt()).add_scalar(config.eps);
        let change = (first.clone() / denominator).mul_scalar(learning_rate / correction1).reshape(shape);
        self.moments.insert(name.to_string(), Moments { first, second });
        let decay = if D > 1 { learning_rate * config.weight_decay } else { 0.0 };
        value.mul_scalar(1.0 - decay) - change
    }
}
