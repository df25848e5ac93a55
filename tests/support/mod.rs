//! Shared by the modules of this binary: where the repository is, what git tracks, how the program is run.

pub mod model;
pub mod mpirun;
pub mod namespaces;
pub mod registry;
pub mod workplace;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository, named from its root.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file that belongs to the repository: what git tracks, and what it would track once added.
pub fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the repository's files");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let mut files: Vec<PathBuf> = names.split('\0').filter(|it| !it.is_empty()).map(PathBuf::from).collect();
    // A file deleted but not yet committed is still in git's index.
    files.retain(|it| root().join(it).exists());
    files.sort();
    files.dedup();
    files
}

/// The files below `folder` whose name ends in `.extension`; templates are no sources before they are rendered.
pub fn files_below(folder: &str, extension: &str) -> Vec<PathBuf> {
    let chosen = |it: &PathBuf| {
        it.starts_with(folder)
            && it.extension().is_some_and(|it| it == extension)
            && !it.starts_with("host/authoring/templates")
    };
    files().into_iter().filter(chosen).collect()
}

/// Runs the `fthost` program from the root of the repository.
pub fn fthost(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fthost"))
        .args(args)
        .current_dir(root())
        .output()
        .expect("the fthost program starts")
}
