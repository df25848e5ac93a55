//! Where models come from, and what is done with their files.

pub mod folder;
pub mod import;
pub mod init;
pub mod inspect;
pub mod merge;

pub use fthost_engine::checkpoint::StoredDtype;
