//! Embeds the SDK and the contract, for machines that have the program without its source tree.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What a plugin is compiled against, from the repository's root.
const EMBEDDED: [&str; 6] = [
    "plugin-sdk/Cargo.toml",
    "plugin-sdk/Cargo.lock",
    "plugin-sdk/src",
    "plugin-sdk/macros",
    "plugin-sdk/examples",
    "wit",
];

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = here.ancestors().nth(2).expect("host/authoring lies two folders down").to_path_buf();
    let mut files = Vec::new();
    for name in EMBEDDED {
        println!("cargo::rerun-if-changed={}", root.join(name).display());
        collect(&root.join(name), &mut files);
    }
    files.sort();
    let mut code = String::from("const FILES: &[(&str, &[u8])] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&root).expect("below the root").to_string_lossy().replace('\\', "/");
        writeln!(code, "    ({name:?}, include_bytes!({:?})),", file).expect("a string grows");
    }
    code.push_str("];\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("sdk_files.rs"), code).expect("OUT_DIR is writable");
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_path_buf());
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Not what a build left there; older contracts are the host's business; example packages are to be read.
        let example = path.ends_with("examples") && entry.path().is_dir();
        if !example && !name.starts_with('.') && !["target", "released"].contains(&name.as_str()) {
            collect(&entry.path(), files);
        }
    }
}
