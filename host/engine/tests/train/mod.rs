//! Training: golden curves and invariants.

mod golden;
mod invariants;
mod optimizer;
mod resume;
pub mod support;
