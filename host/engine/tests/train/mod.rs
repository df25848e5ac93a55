//! Training: golden curves and invariants.

mod golden;
mod in_place;
mod invariants;
mod optimizer;
mod prefix;
mod resume;
pub mod support;
