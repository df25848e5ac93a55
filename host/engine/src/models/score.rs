//! A scalar head on the trunk: what a reward model says of a sequence, or a value model of each of its states. Not the
//! head that predicts tokens.
//!
//! Shapes: `S` = states that are asked; `D` = `hidden_size`.

use burn::tensor::{Device, Tensor};

use super::parameter::Parameter;

/// Name of the scalar head's weight, as in Hugging Face's models for sequence classification and TRL's value models.
pub const SCORE: &str = "score.weight";
/// Name of its bias.
pub const SCORE_BIAS: &str = "score.bias";

/// What a scalar head is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreRole {
    /// A reward model: the head belongs to the model, and is saved with it.
    Reward,
    /// A value model: the head serves training, and is kept in checkpoints only.
    Value,
}

/// `hidden weight^T + bias`, in f32 as everything after the final norm.
#[derive(Debug, Clone)]
pub struct ScoreHead {
    /// `[1, D]`.
    pub weight: Tensor<2>,
    /// `[1]`; a reward model has none, as Hugging Face's have none.
    pub bias: Option<Tensor<1>>,
    /// What it is for.
    pub role: ScoreRole,
}

impl ScoreHead {
    /// A head that has learned nothing: everything is worth 0.
    ///
    /// Zero, and not small random values as in Hugging Face's models: the head is linear, so that its own gradient does
    /// not vanish there, while what it sends into the trunk begins at nothing instead of at noise.
    pub fn zeros(role: ScoreRole, width: usize, device: &Device) -> Self {
        let bias = (role == ScoreRole::Value).then(|| Tensor::zeros([1], device));
        Self { weight: Tensor::zeros([1, width], device), bias, role }
    }

    /// `[S, D]` to `[S]`.
    pub fn forward(&self, hidden: Tensor<2>) -> Tensor<1> {
        let scores = hidden.matmul(self.weight.clone().transpose()).squeeze_dim::<1>(1);
        match &self.bias {
            Some(bias) => scores + bias.clone(),
            None => scores,
        }
    }

    /// Weight and bias, with their names.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        visit(SCORE, Parameter::Matrix(&mut self.weight));
        if let Some(bias) = &mut self.bias {
            visit(SCORE_BIAS, Parameter::Vector(bias));
        }
    }
}
