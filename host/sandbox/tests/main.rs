//! The sandbox against real components: the standard plugins, and guests that mean it harm.
//!
//! Components come from `plugins/build`.

mod contracts;
mod hostile;
mod policy;
mod refused;
mod standard;
mod support;
