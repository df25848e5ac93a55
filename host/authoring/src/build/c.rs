//! C: bindings by wit-bindgen, compiled by zig's C compiler, which brings a C library for WebAssembly; made a component
//! here.

use std::path::{Path, PathBuf};
use std::process::Command;

use wit_bindgen_core::Files;
use wit_parser::Resolve;

use super::Workshop;
use super::tools::{python_with, run};
use super::world::{self, WORLD};
use crate::error::{AuthorError, Result, io};
use crate::package::Package;

/// The version of the PyPI package.
const ZIG: &str = "0.17.1";

pub(super) fn component(package: &Package, workshop: &Workshop<'_>, scratch: &Path) -> Result<Vec<u8>> {
    let wit = world::write(package, scratch)?;
    let bindings = bindings(&wit, &scratch.join("bindings"))?;
    let mut command = match std::env::var_os("FTHOST_ZIG") {
        Some(zig) => Command::new(zig),
        None => {
            let python = python_with(workshop, "ziglang", ZIG, "build plugins in C")?;
            let mut command = Command::new(python);
            command.args(["-m", "ziglang"]);
            command
        }
    };
    let core = scratch.join("core.wasm");
    (workshop.say)("zig cc");
    command.args(["cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-Oz", "-Wall", "-std=c11", "-I"]);
    command.arg(scratch.join("bindings")).arg("-I").arg(package.folder.join("src"));
    command.args(sources(&package.folder.join("src"))?).args(bindings).arg("-o").arg(&core);
    run("zig cc", &mut command, "the compiler's messages stand above")?;
    let module = std::fs::read(&core).map_err(io("read", &core))?;
    let encoded =
        wit_component::ComponentEncoder::default().module(&module).and_then(|it| it.validate(true).encode());
    encoded.map_err(|error| {
        let mut reason = format!("{error:#}");
        if reason.contains("wasi_snapshot_preview1") {
            reason += "; no plugin is given WASI: leave out `printf`, files, clocks and the like";
        }
        AuthorError::Componentize { path: package.folder.join("src/plugin.c"), reason }
    })
}

/// Every `.c` of the folder, by name.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(io("read", folder))?;
    let mut sources: Vec<PathBuf> = entries.flatten().map(|it| it.path()).collect();
    sources.retain(|it| it.extension().is_some_and(|it| it == "c"));
    sources.sort();
    Ok(sources)
}

/// Writes header, source and object file of the world's bindings; gives what the compiler is to be told of.
fn bindings(wit: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let broken = |error: &dyn std::fmt::Display| AuthorError::Componentize {
        path: wit.to_path_buf(),
        reason: error.to_string(),
    };
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).map_err(|error| broken(&error))?;
    let world = resolve.select_world(&[package], Some(WORLD)).map_err(|error| broken(&error))?;
    let mut files = Files::default();
    let mut generator = wit_bindgen_c::Opts::default().build();
    generator.generate(&mut resolve, world, &mut files).map_err(|error| broken(&error))?;
    std::fs::create_dir_all(folder).map_err(io("make", folder))?;
    let mut compiled = Vec::new();
    for (name, bytes) in files.iter() {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(io("write", &path))?;
        if path.extension().is_some_and(|it| it == "c" || it == "o") {
            compiled.push(path);
        }
    }
    Ok(compiled)
}
