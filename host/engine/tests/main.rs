//! Goldens and invariants of the engine. One binary, so that Burn is linked once.

mod adapters;
mod models;
mod support;
mod train;
