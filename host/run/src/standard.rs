//! The standard plugins that this program carries: components, their files, and sets.

use std::path::{Path, PathBuf};

use fthost_sandbox::SearchPath;

use crate::error::{Result, RunError};
use crate::place::cache_dir;

include!(concat!(env!("OUT_DIR"), "/standard.rs"));

/// Names of the components that are carried, sorted; none where the program was built before `plugins/build`.
pub fn names() -> Vec<&'static str> {
    let name = |it: &(&'static str, &[u8])| it.0.strip_prefix("dist/")?.strip_suffix(".wasm");
    FILES.iter().filter_map(name).collect()
}

/// Where plugins are looked for: [`SearchPath::from_environment`], and last among what this program carries.
///
/// # Errors
/// A cache folder that can't be written.
pub fn search_path(start: &Path) -> Result<SearchPath> {
    let mut search = SearchPath::from_environment(start);
    search.0.extend(unpacked(&cache_dir().join("standard"), DIGEST, FILES)?);
    Ok(search)
}

/// Writes `files` below `cache`, once: in a folder that is named by their digest and appears whole.
fn unpacked(cache: &Path, digest: &str, files: &[(&str, &[u8])]) -> Result<Option<PathBuf>> {
    if files.is_empty() {
        return Ok(None);
    }
    let folder = cache.join(digest);
    if folder.is_dir() {
        return Ok(Some(folder));
    }
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(cache)?;
        let temporary = tempfile::tempdir_in(cache)?;
        for (name, bytes) in files {
            let path = temporary.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(temporary.path()))?;
            std::fs::write(&path, bytes)?;
        }
        // Another program may have been faster; what it wrote is the same.
        match std::fs::rename(temporary.path(), &folder) {
            Err(_) if folder.is_dir() => Ok(()),
            renamed => renamed,
        }
    };
    write().map_err(RunError::output(&folder))?;
    Ok(Some(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    include!("../standard_digest.rs");

    #[test]
    fn what_is_carried_is_written_once_and_whole() {
        let cache = tempfile::tempdir().unwrap();
        let files: &[(&str, &[u8])] =
            &[("dist/a.wasm", b"code"), ("dist/a.resources/words", b"w"), ("sets/s.toml", b"")];
        let folder = unpacked(cache.path(), &digest_of(files), files).unwrap().unwrap();
        assert_eq!(std::fs::read(folder.join("dist/a.resources/words")).unwrap(), b"w");
        assert_eq!(unpacked(cache.path(), &digest_of(files), files).unwrap(), Some(folder.clone()));
        let other: &[(&str, &[u8])] = &[("dist/a.wasm", b"other")];
        assert_ne!(unpacked(cache.path(), &digest_of(other), other).unwrap(), Some(folder));
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 2, "nothing temporary is left");
        assert_eq!(DIGEST, digest_of(FILES), "the build script names what is carried");
        assert_eq!(unpacked(cache.path(), &digest_of(&[]), &[]).unwrap(), None);
    }
}
