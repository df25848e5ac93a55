//! Plugins as their authors see them: a package is scaffolded, built in one of four languages, tested by its cases and by
//! what holds for every plugin, tried on data and timed.
//!
//! Everything runs in the sandbox that a training run uses; nothing here sees the engine.

pub mod bench;
pub mod build;
mod canned;
mod cases;
mod checks;
pub mod compare;
pub mod error;
pub mod package;
mod play;
pub mod scaffold;
pub mod sdk;
pub mod session;
pub mod test;
pub mod trial;
pub mod watch;

pub use bench::{BenchReport, bench};
pub use build::{Built, Language, Workshop, build};
pub use compare::Difference;
pub use error::{AuthorError, Result};
pub use package::Package;
pub use scaffold::{Scaffold, Scaffolded};
pub use session::Session;
pub use test::{Outcome, TestReport, test};
pub use trial::{Trial, Trials, try_on};
pub use watch::Watch;

pub use fthost_sandbox::RoleKind;
