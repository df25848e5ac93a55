//! Records, the roles that plugins play, and the way from text to batches of tokens.
//!
//! Plain types only: this crate sees neither Burn nor wasmtime, so a role can be played by a component
//! (`fthost-sandbox`) or by a closure in a test, and the engine can be fed by either.

pub mod batch;
pub mod chat_template;
pub mod digest;
pub mod encode;
pub mod error;
pub mod failure;
pub mod gguf_tokenizer;
pub mod host_model;
pub mod mismatched;
pub mod pack;
mod prefix;
pub mod preview;
pub mod record;
pub mod reward_sum;
pub mod role;
pub mod rows;
pub mod sampler;
pub mod source;
pub mod token_rows;
pub mod tokenizer;

pub use batch::{BAD, Batch, GOOD, IGNORED, Place, Sequence, Targets, TokenRow};
pub use chat_template::{ChatTemplate, Rendered};
pub use error::{DataError, Result};
pub use failure::{Failure, OnFailure, RoleError, Then};
pub use host_model::{HostModel, ModelName, Sampling, TextLogprob};
pub use mismatched::mismatched;
pub use pack::Layout;
pub use preview::{Preview, Segment};
pub use record::{
    Columns, Completion, Content, Example, Message, Origin, PreferencePair, Prompt, Provenance, Record, Role,
};
pub use reward_sum::{RewardTerm, reward_sum};
pub use role::{
    Augmented, Augmenter, BuildOutcome, Candidate, DataBuilder, Detail, Direction, EvalSample, Evaluator,
    Finish, Group, Metric, Occasion, Outcome, PluginIdentity, Purpose, Reward, Score,
};
pub use token_rows::{MappedRow, TokenRows};
pub use tokenizer::{Encoded, Tokenizer};
