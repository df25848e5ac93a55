//! Rust: cargo with the guests' toolchain, which `plugins/toolchain` installs.

use std::path::{Path, PathBuf};
use std::process::Command;

use fthost_data::digest::hex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::tools::{need, run_aloud};
use super::{Language, Workshop};
use crate::error::{AuthorError, Result, io};
use crate::package::Package;
use crate::sdk::Sdk;

/// Finds or installs the toolchain; the program carries the source tree's own script.
const TOOLCHAIN: &str = include_str!("../../../../plugins/toolchain");

/// `env.sh` sets compiler, linker and FTHOST_GUEST_ARGS; `$@` is ours.
const CARGO: &str = r#". "$0"; exec cargo "$@""#;
const CARGO_RUSTC: &str = r#". "$0"; exec cargo rustc --release --lib --quiet --message-format=json-render-diagnostics $FTHOST_GUEST_ARGS "$@""#;

pub(super) fn component(package: &Package, workshop: &Workshop<'_>, sdk: &Sdk) -> Result<Vec<u8>> {
    need(&["cargo"], "build plugins in Rust", "install Rust 1.95 or newer: https://rustup.rs")?;
    let env = environment(workshop)?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target).join("guests"),
        None => workshop.cache_dir.join("guest-target"),
    };
    let target = std::path::absolute(&target).map_err(io("find", &target))?;
    let manifest = package.folder.join(Language::Rust.source());
    let manifest = std::path::absolute(&manifest).map_err(io("find", &manifest))?;
    forget_other_sdk(&env, &manifest, &target, sdk)?;
    (workshop.say)("cargo rustc --release (the first build compiles what plugins share)");
    // Cargo names what it builds by name and version alone: two folders of one name would take each other's component.
    let place = hex(&Sha256::digest(manifest.to_string_lossy().as_bytes()));
    let mut command = shell(CARGO_RUSTC, &env, &target);
    command.arg("--manifest-path").arg(&manifest).args(["--", "-C", &format!("metadata={}", &place[..16])]);
    let hint = "the compiler's messages stand above; `cargo test` compiles the same sources for this machine";
    let printed = run_aloud("cargo rustc", &mut command, hint)?;
    let path = artefact(&printed, &manifest).ok_or_else(|| AuthorError::Componentize {
        path: manifest.clone(),
        reason: "cargo made no `.wasm`; `[lib]` needs `crate-type = [\"cdylib\"]`".into(),
    })?;
    std::fs::read(&path).map_err(io("read", &path))
}

fn shell(script: &str, env: &Path, target: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(env).env("CARGO_TARGET_DIR", target);
    command
}

/// `env.sh` of the toolchain, installed where it is absent.
fn environment(workshop: &Workshop<'_>) -> Result<PathBuf> {
    let home = match std::env::var_os("FTHOST_WASM_HOME") {
        Some(home) => PathBuf::from(home),
        None => workshop.cache_dir.join("wasm-toolchain"),
    };
    let env = home.join("env.sh");
    if !env.is_file() {
        (workshop.say)("installing the toolchain for guests in Rust");
        let script = tempfile::NamedTempFile::new().map_err(io("write", Path::new("a temporary file")))?;
        std::fs::write(script.path(), TOOLCHAIN).map_err(io("write", script.path()))?;
        let mut command = Command::new("bash");
        command.arg(script.path()).env("FTHOST_WASM_HOME", &home);
        run_aloud("installing the guests' toolchain", &mut command, "its own hint stands above")?;
    }
    Ok(env)
}

/// Packages share a target folder, in which an SDK is known by its version alone: another one of the same version is
/// compiled anew.
fn forget_other_sdk(env: &Path, manifest: &Path, target: &Path, sdk: &Sdk) -> Result<()> {
    let (mark, digest) = (target.join("fthost-sdk.digest"), sdk.digest()?);
    let known = std::fs::read_to_string(&mark).ok();
    if known.as_deref() == Some(&digest) {
        return Ok(());
    }
    if known.is_some() {
        let mut command = shell(CARGO, env, target);
        command.args(["clean", "--quiet", "--release", "--target", "wasm32-unknown-unknown"]);
        command
            .args(["-p", "fthost-plugin-sdk", "-p", "fthost-plugin-macros", "--manifest-path"])
            .arg(manifest);
        run_aloud("cargo clean", &mut command, "remove the folder of the guests' target")?;
    }
    std::fs::create_dir_all(target).map_err(io("make", target))?;
    std::fs::write(&mark, digest).map_err(io("write", &mark))
}

/// The `.wasm` of the package at `manifest` among cargo's messages.
fn artefact(printed: &[u8], manifest: &Path) -> Option<PathBuf> {
    let messages = printed.split(|it| *it == b'\n').filter_map(|it| serde_json::from_slice::<Value>(it).ok());
    let ours = |it: &Value| {
        it["reason"] == "compiler-artifact" && it["manifest_path"].as_str().map(Path::new) == Some(manifest)
    };
    let files = messages.filter(ours).filter_map(|it| it["filenames"].as_array().cloned()).flatten();
    files
        .filter_map(|it| it.as_str().map(PathBuf::from))
        .find(|it| it.extension().is_some_and(|it| it == "wasm"))
}
