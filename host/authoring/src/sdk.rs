//! The SDK and the contract that plugins are built against: those of the source tree, or the embedded copy.

use std::path::{Path, PathBuf};

use fthost_data::digest::hex;
use sha2::{Digest, Sha256};

use crate::error::{Result, io};

include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));

/// Where a package finds SDK and contract, from its folder. Not committed: each machine has its own.
pub const LINK: &str = ".fthost/sdk";

/// A folder that holds `plugin-sdk/` and `wit/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sdk {
    /// The folder.
    pub root: PathBuf,
    /// Whether it was written from the program's own copy.
    pub embedded: bool,
}

impl Sdk {
    /// `tree`, where it holds an SDK, else the embedded copy below `cache_dir`, written at its first use.
    ///
    /// # Errors
    /// A cache folder that can't be written.
    pub fn locate(tree: Option<&Path>, cache_dir: &Path) -> Result<Self> {
        if let Some(tree) =
            tree.filter(|it| it.join("plugin-sdk/Cargo.toml").is_file() && it.join("wit").is_dir())
        {
            return Ok(Self { root: tree.to_path_buf(), embedded: false });
        }
        let root = cache_dir.join("sdk").join(format!("{}-{}", version(), &embedded_digest()[..8]));
        if !root.is_dir() {
            let parent = cache_dir.join("sdk");
            std::fs::create_dir_all(&parent).map_err(io("make", &parent))?;
            let fresh = tempfile::tempdir_in(&parent).map_err(io("write", &parent))?;
            for (name, bytes) in FILES {
                let path = fresh.path().join(name);
                let folder = path.parent().unwrap_or(fresh.path());
                std::fs::create_dir_all(folder).map_err(io("make", folder))?;
                std::fs::write(&path, bytes).map_err(io("write", &path))?;
            }
            // Whole or not at all; where another process was faster, its copy is the same.
            if let Err(error) = std::fs::rename(fresh.keep(), &root)
                && !root.is_dir()
            {
                return Err(io("write", &root)(error));
            }
        }
        Ok(Self { root, embedded: true })
    }

    /// Makes the package at `folder` see this SDK as [`LINK`].
    ///
    /// # Errors
    /// A folder that can't be written, and something in the link's place that is no link.
    pub fn link(&self, folder: &Path) -> Result<()> {
        let link = folder.join(LINK);
        let root = std::fs::canonicalize(&self.root).map_err(io("read", &self.root))?;
        if std::fs::read_link(&link).is_ok_and(|it| it == root) {
            return Ok(());
        }
        let parent = link.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(io("make", parent))?;
        if std::fs::symlink_metadata(&link).is_ok() {
            std::fs::remove_file(&link).map_err(io("replace", &link))?;
        }
        symlink(&root, &link).map_err(io("link", &link))
    }

    /// Hex digest over names and bytes of the SDK's sources.
    pub(crate) fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for (name, _) in FILES {
            let path = self.root.join(name);
            // A tree that has other files than this program's copy is another SDK anyway.
            hash.update(name);
            hash.update(std::fs::read(&path).unwrap_or_default());
        }
        Ok(hex(&hash.finalize()))
    }
}

/// The SDK's version.
pub fn version() -> &'static str {
    let manifest = text("plugin-sdk/Cargo.toml");
    let line = manifest.lines().find_map(|it| it.strip_prefix("version = \""));
    line.and_then(|it| it.strip_suffix('"')).expect("the SDK's manifest has a version")
}

/// An embedded file's text.
///
/// # Panics
/// For a name that is not embedded: broken invariant of the build.
pub(crate) fn text(name: &str) -> &'static str {
    let bytes = FILES.iter().find(|it| it.0 == name).unwrap_or_else(|| panic!("`{name}` is not embedded")).1;
    std::str::from_utf8(bytes).expect("sources are UTF-8")
}

/// The contract's files (name and text) without folders.
pub(crate) fn contract() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().filter_map(|(name, _)| {
        let file = name.strip_prefix("wit/")?;
        file.ends_with(".wit").then(|| (file, text(name)))
    })
}

fn embedded_digest() -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in FILES {
        hash.update(name);
        hash.update(bytes);
    }
    hex(&hash.finalize())
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_dir(target, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_copy_is_written_once_and_linked() {
        let folder = tempfile::tempdir().unwrap();
        let sdk = Sdk::locate(None, folder.path()).unwrap();
        assert!(sdk.embedded && sdk.root.join("plugin-sdk/src/lib.rs").is_file());
        assert!(
            sdk.root.join("plugin-sdk/macros/Cargo.toml").is_file()
                && sdk.root.join("wit/roles.wit").is_file()
        );
        std::fs::write(sdk.root.join("mark"), "").unwrap();
        assert_eq!(Sdk::locate(None, folder.path()).unwrap(), sdk);
        assert!(sdk.root.join("mark").is_file());
        let package = folder.path().join("package");
        std::fs::create_dir(&package).unwrap();
        sdk.link(&package).unwrap();
        sdk.link(&package).unwrap();
        assert!(package.join(LINK).join("wit/types.wit").is_file());
    }

    #[test]
    fn a_source_tree_is_preferred() {
        let (tree, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(tree.path().join("plugin-sdk")).unwrap();
        std::fs::create_dir_all(tree.path().join("wit")).unwrap();
        std::fs::write(tree.path().join("plugin-sdk/Cargo.toml"), "").unwrap();
        let sdk = Sdk::locate(Some(tree.path()), cache.path()).unwrap();
        assert_eq!(sdk, Sdk { root: tree.path().into(), embedded: false });
        let copy = Sdk::locate(None, cache.path()).unwrap();
        assert_ne!(sdk.digest().unwrap(), copy.digest().unwrap());
    }

    #[test]
    fn the_contract_is_that_of_the_sdk() {
        let files: Vec<&str> = contract().map(|it| it.0).collect();
        assert_eq!(files, ["host.wit", "roles.wit", "types.wit", "worlds.wit"]);
        assert!(version().starts_with("1."));
    }
}
