//! Components and their files by digest, in the cache: a run's scores can be computed again when others have taken their place.

use std::path::{Path, PathBuf};

use fthost_data::PluginIdentity;
use fthost_data::digest::sha256;
use fthost_sandbox::{GrantedFile, Plugin, PluginConfig, SearchPath, resource_folder};

use crate::error::{Result, RunError};
use crate::place::cache_dir;

/// The folder of what is kept; a file's name is its digest.
pub(crate) struct Kept;

impl Kept {
    fn path(digest: &str) -> PathBuf {
        cache_dir().join("plugins").join(digest.trim_start_matches("sha256:"))
    }

    /// Keeps the component that was loaded, and the files that it may read.
    pub(crate) fn keep(plugin: &Plugin, component: &Path) {
        // A cache: what can't be kept is looked for where it came from.
        let _ = Self::put(&plugin.identity().digest, || std::fs::read(component));
        for (digest, bytes) in plugin.files() {
            let _ = Self::put(digest, || Ok(bytes.to_vec()));
        }
    }

    fn put(digest: &str, bytes: impl FnOnce() -> std::io::Result<Vec<u8>>) -> std::io::Result<()> {
        let path = Self::path(digest);
        if path.exists() {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder)?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut temporary, &bytes()?)?;
        temporary.persist(&path)?;
        Ok(())
    }

    /// The component that scored, wherever it is now.
    ///
    /// # Errors
    /// [`RunError::NoComponent`] with every place looked at.
    pub(crate) fn component(
        plugin: &PluginIdentity,
        config: &PluginConfig,
        search: &SearchPath,
    ) -> Result<PathBuf> {
        let found = search.component(&plugin.name, config).ok();
        first_of(&plugin.digest, found.into_iter().chain([Self::path(&plugin.digest)])).map_err(|looked| {
            RunError::NoComponent { plugin: plugin.name.clone(), digest: plugin.digest.clone(), looked }
        })
    }

    /// A file that `plugin` could read under the name `resource`, wherever it is now.
    ///
    /// # Errors
    /// [`RunError::NoResource`] with every place looked at.
    pub(crate) fn resource(
        plugin: &str,
        resource: &str,
        granted: &GrantedFile,
        component: &Path,
    ) -> Result<PathBuf> {
        let beside = resource_folder(component).join(resource);
        first_of(&granted.digest, [granted.file.clone(), beside, Self::path(&granted.digest)]).map_err(
            |looked| {
                let (plugin, resource, digest) =
                    (plugin.to_string(), resource.to_string(), granted.digest.clone());
                RunError::NoResource { plugin, resource, digest, looked }
            },
        )
    }
}

/// The first file of this digest, or the places looked at.
fn first_of(
    digest: &str,
    places: impl IntoIterator<Item = PathBuf>,
) -> std::result::Result<PathBuf, Vec<String>> {
    let mut looked = Vec::new();
    for path in places {
        if std::fs::read(&path).is_ok_and(|bytes| sha256(&bytes) == digest) {
            return Ok(path);
        }
        looked.push(format!("`{}`", path.display()));
    }
    Err(looked)
}
