//! Optimisers, learning-rate schedules and clipping, with torch's semantics.

pub mod adamw;
pub mod clip;
mod paged;
pub mod schedule;

pub use adamw::{AdamW, AdamWConfig, MomentStorage};
pub use clip::clip_scale;
pub use paged::PagedMoments;
pub use schedule::{Schedule, ScheduleConfig};
