//! Frozen linears in fewer bits: how a run asks for them, and how bitsandbytes stores them. What is computed with them is in
//! `fthost-kernels`.

pub mod bitsandbytes;
mod config;

pub use config::{FourBitOptions, Int8Options, QuantConfig};
