//! Compiled components on disk, by digest and compiler.
//!
//! `unsafe` here: loading native code that this program wrote itself.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::{Result, io};
use crate::plugin::Description;

/// A folder of compiled components. It holds native code, so only its owner may write there.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(io("write", folder))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let owner_only = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(folder, owner_only).map_err(io("write", folder))?;
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Engine settings, version and processor are part of the name: what another compiler made is never loaded.
    fn path(&self, engine: &Engine, digest: &str) -> PathBuf {
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.folder.join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
    }

    /// The compiled component, if it was stored before. A damaged file is as good as none.
    pub(crate) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(engine, digest);
        // SAFETY: files of this folder are written by `store` alone, whole or not at all, and only the owner may
        // write there (`open`); wasmtime checks the header for its own version and settings.
        unsafe { Component::deserialize_file(engine, path) }.ok()
    }

    /// Keeps `component` for the next time.
    pub(crate) fn store(&self, engine: &Engine, digest: &str, component: &Component) -> Result<()> {
        let Ok(bytes) = component.serialize() else { return Ok(()) };
        self.write(&self.path(engine, digest), &bytes)
    }

    fn description_path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{}.json", digest.strip_prefix("sha256:").unwrap_or(digest)))
    }

    /// What the component said of itself when it was first met.
    pub(crate) fn description(&self, digest: &str) -> Option<Description> {
        serde_json::from_slice(&std::fs::read(self.description_path(digest)).ok()?).ok()
    }

    /// Keeps what a component says of itself: it is asked once.
    pub(crate) fn store_description(&self, digest: &str, description: &Description) -> Result<()> {
        let text = serde_json::to_vec(description).expect("a description serialises");
        self.write(&self.description_path(digest), &text)
    }

    /// Whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let file = tempfile::NamedTempFile::new_in(&self.folder).map_err(io("write", path))?;
        std::fs::write(file.path(), bytes).map_err(io("write", path))?;
        file.persist(path).map_err(|error| io("write", path)(error.error))?;
        Ok(())
    }
}
