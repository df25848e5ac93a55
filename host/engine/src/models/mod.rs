//! One file a family, which says what its `config.json` means; what is computed stands in [`decoder`], [`block`] and
//! [`causal_lm`], once for all of them.

pub mod block;
pub mod causal_lm;
pub mod decoder;
pub mod family;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod keys;
mod llama;
mod mistral;
mod mixtral;
pub mod mixture;
pub mod norm;
mod olmo2;
pub mod parameter;
pub mod part;
mod phi3;
pub mod prefix;
mod qwen2;
mod qwen3;
mod qwen3_moe;
pub mod score;
mod smollm3;
pub mod trained;
pub mod virtual_tokens;

pub use block::{Block, BlockContext};
pub use causal_lm::{CausalLm, Heads, TokenHead};
pub use decoder::DecoderConfig;
pub use norm::Norm;
pub use parameter::Parameter;
pub use part::Part;
pub use prefix::{Prefix, PrefixEncoder};
pub use score::{SCORE, SCORE_BIAS, ScoreHead, ScoreRole};
pub use trained::Trained;
