//! Goldens and invariants of the engine. One binary, so that Burn is linked once.

mod adapters;
mod checkpoint;
#[cfg(any(feature = "cuda", feature = "cubecl-cpu"))]
mod cube;
mod estimate;
mod generate;
mod models;
mod objectives;
mod parallel;
mod quant;
mod support;
mod train;
