//! What the standard builders and augmenters share.

pub mod ask;
pub mod check;
pub mod columns;
pub mod conversation;
pub mod example;
pub mod likeness;
pub mod random;
pub mod script;
pub mod template;
