//! What the program ends with where it does not end well.

use std::fmt::Display;

use fthost_authoring::AuthorError;
use fthost_run::RunError;

/// A message for a person, and an exit code for a program.
#[derive(Debug)]
pub struct Stop {
    /// None where all was said already.
    pub message: Option<String>,
    /// As `fthost --help` lists them.
    pub code: u8,
}

impl Stop {
    fn new(message: impl Display, code: u8) -> Self {
        Self { message: Some(message.to_string()), code }
    }

    /// Something was looked at and found wanting; what it is stands in the output.
    pub fn failed() -> Self {
        Self { message: None, code: 1 }
    }
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        Self::new(&error, error.exit_code())
    }
}

impl From<AuthorError> for Stop {
    fn from(error: AuthorError) -> Self {
        Self::new(&error, error.exit_code())
    }
}
