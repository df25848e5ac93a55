//! Keys and values that stand before those of a block's sequences: prefix tuning (<https://arxiv.org/abs/2101.00190>), as they
//! are or, as its authors train them, made by a small network (PEFT's `prefix_projection`).
//!
//! Shapes: `n` = virtual tokens; `W` = `kv_heads * head_dim`; `E` = `encoder_hidden_size`.

use burn::tensor::Tensor;
use burn::tensor::module::linear;

use super::Parameter;

/// Part of the name of every weight that makes a prefix: what is saved is what they make.
const PROJECTION: &str = "prefix_projection";
/// Name of a block's own keys and values, behind its path.
const PREFIX: &str = "prefix";

/// A block's keys and values, `[n, 2 W]`.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one a block of the model, on the heap")]
pub enum Prefix {
    /// As they are.
    Plain(Tensor<2>),
    /// A linear of what [`PrefixEncoder`] gives: the block's rows of the network's last layer.
    Projected {
        /// `[2 W, E]`.
        weight: Tensor<2>,
        /// `[2 W]`.
        bias: Tensor<1>,
    },
}

impl Prefix {
    /// The keys and values; `encoded` is what the model's encoder gives, which a projected prefix has.
    pub fn rows(&self, encoded: Option<&Tensor<2>>) -> Tensor<2> {
        match self {
            Self::Plain(rows) => rows.clone(),
            Self::Projected { weight, bias } => {
                let encoded = encoded.expect("a model whose prefixes are projected has an encoder");
                linear(encoded.clone(), weight.clone().transpose(), Some(bias.clone()))
            }
        }
    }

    /// What is trained of it, in the block at `path`.
    pub fn visit(&mut self, path: &str, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        match self {
            Self::Plain(rows) => visit(&format!("{path}.{PREFIX}"), Parameter::Matrix(rows)),
            Self::Projected { weight, bias } => {
                visit(&format!("{path}.{PROJECTION}.transform.2.weight"), Parameter::Matrix(weight));
                visit(&format!("{path}.{PROJECTION}.transform.2.bias"), Parameter::Vector(bias));
            }
        }
    }
}

/// What the prefixes of all blocks are made of: an embedding a virtual token and the first layer of the network.
#[derive(Debug, Clone)]
pub struct PrefixEncoder {
    /// `[n, W]`.
    pub embedding: Tensor<2>,
    /// `[E, W]`.
    pub weight: Tensor<2>,
    /// `[E]`.
    pub bias: Tensor<1>,
}

impl PrefixEncoder {
    /// `[n, E]`.
    pub fn encoded(&self) -> Tensor<2> {
        linear(self.embedding.clone(), self.weight.clone().transpose(), Some(self.bias.clone())).tanh()
    }

    /// What is trained of it.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        visit(&format!("{PROJECTION}.embedding.weight"), Parameter::Matrix(&mut self.embedding));
        visit(&format!("{PROJECTION}.transform.0.weight"), Parameter::Matrix(&mut self.weight));
        visit(&format!("{PROJECTION}.transform.0.bias"), Parameter::Vector(&mut self.bias));
    }
}

/// Whether the weight `name` makes a prefix and is none.
pub fn is_of_projection(name: &str) -> bool {
    name.split('.').any(|it| it == PROJECTION)
}
