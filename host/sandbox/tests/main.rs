//! The sandbox against real components: the standard plugins, and guests that mean it harm.
//!
//! Components come from `plugins/build`.

mod contracts;
mod fuzzed;
mod hostile;
mod mirror;
mod policy;
mod refused;
mod standard;
mod support;
