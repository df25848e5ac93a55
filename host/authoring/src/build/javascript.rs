//! JavaScript: componentize-js through its own interface, in a folder of the cache, with every feature that would need WASI
//! switched off.

use std::path::Path;
use std::process::Command;

use super::Workshop;
use super::tools::{installed, need, run};
use super::world::{self, WORLD};
use crate::error::{Result, io};
use crate::package::Package;

const VERSION: &str = "0.23.0";
const SCRIPT: &str = include_str!("componentize.mjs");

pub(super) fn component(package: &Package, workshop: &Workshop<'_>, scratch: &Path) -> Result<Vec<u8>> {
    let wit = world::write(package, scratch)?;
    let purpose = "build plugins in JavaScript";
    let node = need(&["node", "nodejs"], purpose, "install Node.js 20 or newer: https://nodejs.org")?;
    let folder = installed(workshop, &format!("componentize-js-{VERSION}"), |folder| {
        let npm = need(&["npm"], purpose, "install npm, which comes with Node.js")?;
        let path = folder.join("package.json");
        std::fs::write(&path, "{\"private\": true, \"type\": \"module\"}\n").map_err(io("write", &path))?;
        let wanted = format!("@bytecodealliance/componentize-js@{VERSION}");
        let mut command = Command::new(npm);
        command.args(["install", "--no-audit", "--no-fund", "--silent", &wanted]).current_dir(folder);
        run(
            &format!("npm install {wanted}"),
            &mut command,
            "npm's registry must be reachable once; what is installed is kept",
        )?;
        Ok(())
    })?;
    let script = folder.join("componentize.mjs");
    std::fs::write(&script, SCRIPT).map_err(io("write", &script))?;
    let out = std::path::absolute(scratch.join("component.wasm")).map_err(io("find", scratch))?;
    let source = package.folder.join("src/plugin.js");
    let source = std::path::absolute(&source).map_err(io("find", &source))?;
    let wit = std::path::absolute(&wit).map_err(io("find", &wit))?;
    (workshop.say)("componentize-js (takes half a minute)");
    let mut command = Command::new(node);
    command.arg(&script).arg(source).arg(wit).arg(WORLD).arg(&out).current_dir(&folder);
    run("componentize-js", &mut command, "what JavaScript said stands above")?;
    std::fs::read(&out).map_err(io("read", &out))
}
