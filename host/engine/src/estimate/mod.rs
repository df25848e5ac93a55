//! What a run takes before it is started: bytes of weights, gradients, moments, activations and generation, and floating
//! point operations. Pure arithmetic on shapes; nothing is loaded, and what a program needs besides is the caller's part.

mod adapted;
mod block;
mod flops;
mod memory;
pub mod scaling;
mod shape;

pub use block::{BlockNumbers, numbers};
pub use flops::{Segment, forward as forward_flops, head as head_flops, step as step_flops};
pub use memory::{
    BatchTokens, GenerationMemory, Held, Sampling, StepMemory, StepShape, WeightBytes, blocks, blocks_again,
    generation, moments, pass, step, tile, weights,
};
pub use shape::{BlockWeights, FeedForwardShape, LinearShape, ModelShape, Role, WeightShape};
