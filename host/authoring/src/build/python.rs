//! Python: componentize-py in a virtual environment of the cache folder. `-s` answers WASI's imports by traps, so that the
//! component has none.

use std::path::Path;
use std::process::Command;

use super::Workshop;
use super::tools::{python_with, run};
use super::world::{self, WORLD};
use crate::error::{Result, io};
use crate::package::Package;

const VERSION: &str = "0.25.0";

pub(super) fn component(package: &Package, workshop: &Workshop<'_>, scratch: &Path) -> Result<Vec<u8>> {
    let wit = world::write(package, scratch)?;
    let python = match std::env::var_os("FTHOST_COMPONENTIZE_PY") {
        Some(_) => None,
        None => Some(python_with(workshop, "componentize-py", VERSION, "build plugins in Python")?),
    };
    let mut command = match (&python, std::env::var_os("FTHOST_COMPONENTIZE_PY")) {
        (_, Some(program)) => Command::new(program),
        (Some(python), None) => Command::new(python.with_file_name("componentize-py")),
        (None, None) => unreachable!("one of the two was chosen above"),
    };
    let out = scratch.join("component.wasm");
    (workshop.say)("componentize-py (takes half a minute)");
    command.arg("-d").arg(&wit).args(["-w", WORLD, "componentize", "-s", "plugin", "-p"]);
    command.arg(package.folder.join("src")).arg("-o").arg(&out);
    run("componentize-py", &mut command, "what Python said stands above; modules must be pure Python")?;
    std::fs::read(&out).map_err(io("read", &out))
}
