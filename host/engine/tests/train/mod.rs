//! Training: golden curves and invariants.

mod golden;
mod in_place;
mod invariants;
mod optimizer;
mod ppo;
mod prefix;
mod resume;
mod reward;
pub mod support;
