//! Finds the standard plugins that `plugins/build` has made, for `src/standard.rs` to carry.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

include!("standard_digest.rs");

fn main() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for folder in ["dist", "sets"] {
        println!("cargo:rerun-if-changed={}", plugins.join(folder).display());
        collect(&plugins, &plugins.join(folder), &mut files);
    }
    // Sets without their components would name what is not there.
    if !files.iter().any(|it| it.0.ends_with(".wasm")) {
        files.clear();
    }
    files.sort();
    let mut code = String::from(
        "/// Path below the folder of plugins, and contents.\nconst FILES: &[(&str, &[u8])] = &[\n",
    );
    for (name, path) in &files {
        writeln!(code, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())
            .expect("text grows");
    }
    code.push_str("];\n");
    let contents: Vec<Vec<u8>> =
        files.iter().map(|it| std::fs::read(&it.1).expect("it was just found")).collect();
    let named: Vec<(&str, &[u8])> =
        files.iter().zip(&contents).map(|(it, bytes)| (&*it.0, &**bytes)).collect();
    writeln!(code, "/// Of all files: taken here, so that no start of the program has to hash them.")
        .expect("text grows");
    writeln!(code, "const DIGEST: &str = {:?};", digest_of(&named)).expect("text grows");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("standard.rs");
    std::fs::write(out, code).expect("the build folder can be written");
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            println!("cargo:rerun-if-changed={}", path.display());
            collect(root, &path, files);
        } else if let Ok(name) = path.strip_prefix(root) {
            let parts: Vec<_> = name.iter().map(|it| it.to_string_lossy().into_owned()).collect();
            files.push((parts.join("/"), path));
        }
    }
}
