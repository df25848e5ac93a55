//! Whole runs, in process. One binary, a module a subject.

mod bases;
mod dynamic;
mod estimate;
mod judges;
mod kto;
mod packing;
mod policy;
mod ppo;
mod preference;
mod quant;
mod reference;
mod resume;
mod rewards;
mod support;
