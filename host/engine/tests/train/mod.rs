//! Training: golden curves and invariants.

mod golden;
mod invariants;
mod resume;
pub mod support;
