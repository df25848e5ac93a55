//! Weights on disk: reading models, writing whole folders or none.

pub mod gguf;
pub mod init;
pub mod load;
mod moments;
pub mod safetensors;
pub mod training;

pub use init::init_model;
pub use load::{load_model, load_model_to_train};
pub use safetensors::StoredDtype;
