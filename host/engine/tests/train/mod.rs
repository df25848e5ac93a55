//! Training: golden curves and invariants.

mod golden;
mod in_place;
mod invariants;
mod kto;
mod optimizer;
mod ppo;
mod prefix;
pub mod resume;
mod reward;
pub mod support;
