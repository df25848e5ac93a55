//! The operations a fine-tuning step is made of, one folder each.
//!
//! Every public function has a `*_reference` of plain tensor operations beside it, which tests and benches
//! compare with. Tokens are flattened: `T` is every token of a micro-batch, sequences end to end.

pub mod attention;
pub mod linear;
pub mod linear_cross_entropy;
pub mod lora_linear;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;

pub use attention::attention;
pub use linear::linear;
pub use linear_cross_entropy::{LinearCrossEntropy, linear_cross_entropy, token_logps};
pub use lora_linear::lora_linear;
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use swiglu::swiglu;
