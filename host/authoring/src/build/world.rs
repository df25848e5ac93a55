//! The world of one package: the contract's files, and a world of the package's roles.
//!
//! Python and JavaScript import their whole world, so the imports that need a grant are in it only where the manifest
//! wants one.

use std::path::{Path, PathBuf};

use crate::error::{Result, io};
use crate::package::Package;
use crate::sdk;

/// The world's name.
pub(super) const WORLD: &str = "this-plugin";

/// Writes the contract and the package's world to `scratch/wit`.
pub(super) fn write(package: &Package, scratch: &Path) -> Result<PathBuf> {
    let folder = scratch.join("wit");
    std::fs::create_dir_all(&folder).map_err(io("make", &folder))?;
    for (name, text) in sdk::contract() {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(io("write", &path))?;
    }
    let path = folder.join("this-plugin.wit");
    std::fs::write(&path, text(package)).map_err(io("write", &path))?;
    Ok(folder)
}

fn text(package: &Package) -> String {
    // The package's own line, as the contract's files have it.
    let host = sdk::text("wit/host.wit");
    let line = host.lines().find(|it| it.starts_with("package ")).expect("the contract names its package");
    let includes = package.manifest.roles.iter().map(|it| format!("  include {it};\n"));
    let model = package.manifest.grants.any().then(|| "  include with-model;\n".to_string());
    format!("{line}\n\nworld {WORLD} {{\n{}}}\n", includes.chain(model).collect::<String>())
}
