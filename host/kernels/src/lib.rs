//! The operations a fine-tuning step is made of, one folder each.
//!
//! Every public function has a `*_reference` of plain tensor operations beside it, which tests and benches
//! compare with. On Burn's CPU backend and f32 an operation runs its own forward and hand-written backward;
//! everywhere else it is its reference. Tokens are flattened: `T` is every token of a micro-batch, sequences
//! end to end.

mod extension;
mod flex;
mod gate;
mod matrix;
mod simd;

#[cfg(test)]
mod check;

pub mod adamw;
pub mod attention;
pub mod dropout;
pub mod geglu;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod linear_cross_entropy;
pub mod lora_linear;
pub mod packed;
pub mod pull_back;
pub mod rms_norm;
pub mod rope;
pub mod softmax;
pub mod swiglu;

pub use adamw::{AdamWStep, BlockMoments, Moments, adamw, adamw8bit, global_norm};
pub use attention::{
    AttentionConfig, PagedAttentionConfig, PagedSequence, Pages, attention, paged_qkv_attention,
    qkv_attention,
};
pub use dropout::Dropout;
pub use gate::Activation;
pub use geglu::geglu;
pub use gelu::gelu;
pub use layer_norm::layer_norm;
pub use linear::{int8, linear};
pub use linear_cross_entropy::{LinearCrossEntropy, Softcap, TokenLogps, linear_cross_entropy, token_logps};
pub use lora_linear::{
    LoraLinear, LowRank, Prologue, Weight, lora_linear, lora_linears, lora_linears_for_gradients,
};
pub use packed::four_bit::{Absmax, FourBit, FourBitConfig, FourBitKind};
pub use packed::ggml::{GgmlBlocks, GgmlError, GgmlType};
pub use packed::int8_rows::Int8Rows;
pub use packed::{Packed, packed_linear};
pub use pull_back::pull_back;
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use softmax::{Softmax, most_likely};
pub use swiglu::swiglu;
