//! `fthost doctor`: what this machine has for fthost.

use std::path::Path;

use fthost_run::{Result, doctor};

/// Prints a line a finding. What is missing is told, not an error: most of it is needed by some runs only.
pub fn run() -> Result<()> {
    for finding in doctor::examine(Path::new(".")) {
        let mark = if finding.fine { "ok" } else { "--" };
        println!("{mark}  {:<16} {}", finding.name, finding.found);
        if let Some(hint) = finding.hint {
            println!("    {:<16} hint: {hint}", "");
        }
    }
    Ok(())
}
