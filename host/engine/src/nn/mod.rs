//! Layers shared by the model families.

pub mod dora;
pub mod ia3;
pub mod linear;
pub mod precision;
pub mod rope;

pub use dora::Magnitude;
pub use ia3::Ia3;
pub use linear::{Linear, LoraWeights};
pub use precision::{DecodeWeights, FloatDtype};
pub use rope::{Rope, RopeScaling};
