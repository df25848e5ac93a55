//! Where this program keeps what it can make again.

use std::path::{Path, PathBuf};

/// `fthost` in the user's cache folder (`XDG_CACHE_HOME`, else `.cache` of the home), or in the folder for temporary
/// files where there is no home.
pub fn cache_dir() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let home = || std::env::home_dir().map(|it| it.join(".cache"));
    absolute("XDG_CACHE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir).join("fthost")
}

/// Removes files of `extension` from `folder` until `kept` are left: first those that were not used for the longest.
pub(crate) fn remove_oldest(folder: &Path, extension: &str, kept: usize) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == extension) {
            match std::fs::metadata(&path).and_then(|it| it.modified()) {
                Ok(used) => files.push((used, path)),
                // Another run was faster.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    files.sort();
    let too_many = files.len().saturating_sub(kept);
    files[..too_many].iter().try_for_each(|(_, path)| match std::fs::remove_file(path) {
        // Another run was faster.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    })
}
