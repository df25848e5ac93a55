//! The sandbox against real components: the standard plugins, and guests that mean it harm.
//!
//! Components come from `plugins/build`.

mod hostile;
mod refused;
mod standard;
mod support;
