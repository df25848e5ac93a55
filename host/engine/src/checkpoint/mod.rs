//! Weights on disk: reading models, writing whole folders or none.

mod build;
pub mod gguf;
pub mod init;
pub mod load;
mod moments;
pub mod safetensors;
mod save;
mod saving;
mod shards;
mod stretches;
mod trained;
pub mod training;
pub mod write;

pub use init::init_model;
pub use load::{LoadConfig, load_model, load_model_as, load_shared};
pub use save::{SaveConfig, save_model};
pub use write::StoredDtype;
