//! Files that a plugin may read: those beside its component, and those that the run file grants by digest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_data::digest::sha256;

use crate::error::{Result, SandboxError, io};
use crate::grants::Grants;

/// A file, read once for every instance.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) digest: String,
    pub(crate) bytes: Arc<[u8]>,
}

/// The folder that holds the files of a component's package: `<component without .wasm>.resources` beside it.
pub fn resource_folder(component: &Path) -> PathBuf {
    component.with_extension("resources")
}

/// Sorted by name; a granted file takes the place of the package's own.
pub(crate) fn load(plugin: &str, component: &Path, grants: &Grants) -> Result<Vec<Resource>> {
    let mut all = Vec::new();
    let folder = resource_folder(component);
    for entry in std::fs::read_dir(&folder).into_iter().flatten() {
        let path = entry.map_err(io("read", &folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !grants.resources.contains_key(&name) {
            all.push(read(name, &path)?);
        }
    }
    for (name, granted) in &grants.resources {
        let found = read(name.clone(), &granted.file)?;
        if found.digest != granted.digest {
            return Err(SandboxError::ResourceDigest {
                plugin: plugin.to_string(),
                resource: name.clone(),
                pinned: granted.digest.clone(),
                found: found.digest,
            });
        }
        all.push(found);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn read(name: String, path: &Path) -> Result<Resource> {
    let bytes = std::fs::read(path).map_err(io("read", path))?;
    Ok(Resource { name, size: bytes.len() as u64, digest: sha256(&bytes), bytes: bytes.into() })
}
