//! Layers shared by the model families.

pub mod linear;
pub mod rope;

pub use linear::{Linear, LoraWeights};
pub use rope::{Rope, RopeScaling};
