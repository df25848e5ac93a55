//! What the standard builders and augmenters share.

pub mod ask;
pub mod columns;
pub mod conversation;
pub mod example;
pub mod random;
pub mod template;
