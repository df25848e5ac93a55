//! Training: golden curves and invariants.

mod golden;
mod invariants;
mod resume;
mod support;
