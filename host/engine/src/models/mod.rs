//! One file a family; field names are those of Hugging Face's `config.json`.

pub mod config;
pub mod llama;
pub mod score;

pub use config::LlamaConfig;
pub use llama::{Block, BlockContext, CausalLm, Parameter};
pub use score::{SCORE, SCORE_BIAS, ScoreHead, ScoreRole};
