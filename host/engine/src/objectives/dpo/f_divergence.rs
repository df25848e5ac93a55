//! What a ratio of policy to reference is worth: f-DPO, <https://arxiv.org/abs/2309.16240>, table 1.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::{Deserialize, Serialize};

/// Scores are `f'(u)` of the divergence, `u` being policy over reference; constants that cancel are as in TRL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum FDivergence {
    /// `log u`: DPO as it was published.
    #[default]
    ReverseKl,
    /// `1 - 1 / u`.
    ForwardKl,
    /// `log(2 u / (1 + u))`.
    JsDivergence,
    /// `(u^(a-1) - 1) / (a - 1)`, which is `log u` at `a = 1`. The exponent is kept below 80, as in TRL.
    AlphaDivergence,
}

impl FDivergence {
    /// Scores of log-ratios, `[P]`.
    pub(super) fn scores(self, logratios: Tensor<1>, alpha: f64) -> Tensor<1> {
        match self {
            Self::ForwardKl => logratios.neg().exp().neg().add_scalar(1.0),
            Self::JsDivergence => log_sigmoid(logratios).add_scalar(std::f64::consts::LN_2),
            Self::AlphaDivergence if (alpha - 1.0).abs() >= 1e-6 => {
                let power = logratios.mul_scalar(alpha - 1.0).clamp_max(80.0).exp();
                power.sub_scalar(1.0).div_scalar(alpha - 1.0)
            }
            Self::ReverseKl | Self::AlphaDivergence => logratios,
        }
    }
}
