//! Weights on disk: reading models, writing whole folders or none.

pub mod load;
pub mod safetensors;
pub mod training;

pub use load::load_model;
