//! `fthost plugin watch`: waits for an author to save something.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::error::{AuthorError, Result};

/// An editor writes a file in several steps: quiet for so long means saved.
const QUIET: Duration = Duration::from_millis(200);

/// Changes of a package's files, as long as this is kept.
pub struct Watch {
    changes: Receiver<notify::Result<notify::Event>>,
    folder: PathBuf,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Begins to watch the package at `folder`.
    ///
    /// # Errors
    /// A folder that can't be watched.
    pub fn new(folder: &Path) -> Result<Self> {
        let folder = std::fs::canonicalize(folder).map_err(crate::error::io("watch", folder))?;
        let failed = |error: notify::Error| AuthorError::Io {
            action: "watch",
            path: folder.clone(),
            source: std::io::Error::other(error),
        };
        let (sender, changes) = channel();
        let mut watcher = notify::recommended_watcher(sender).map_err(failed)?;
        watcher.watch(&folder, RecursiveMode::Recursive).map_err(failed)?;
        Ok(Self { changes, folder, _watcher: watcher })
    }

    /// Waits until files that an author writes have changed and stay quiet; gives them from the folder, sorted. `None`
    /// where nothing changes for `patience`.
    pub fn wait(&self, patience: Option<Duration>) -> Option<Vec<PathBuf>> {
        let mut changed: Vec<PathBuf> = Vec::new();
        loop {
            let wait = if changed.is_empty() { patience } else { Some(QUIET) };
            let event = match wait {
                None => self.changes.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => self.changes.recv_timeout(wait),
            };
            match event {
                Ok(Ok(event)) if !event.kind.is_access() => {
                    let ours = event.paths.iter().filter_map(|it| it.strip_prefix(&self.folder).ok());
                    changed.extend(ours.filter(|it| is_authors(it)).map(Path::to_path_buf));
                }
                Ok(_) => {}
                Err(_) if changed.is_empty() => return None,
                Err(_) => {
                    changed.sort();
                    changed.dedup();
                    return Some(changed);
                }
            }
        }
    }
}

/// Not what builds write, nor editors beside the file.
fn is_authors(path: &Path) -> bool {
    let parts: Vec<String> = path.iter().map(|it| it.to_string_lossy().into_owned()).collect();
    let built =
        |it: &String| it == "target" || it == "__pycache__" || it.starts_with('.') || it.ends_with('~');
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
    !parts.is_empty() && !parts.iter().any(built) && !["wasm", "lock", "swp"].contains(&extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_source_is_told_and_what_a_build_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(".fthost/build")).unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        let watch = Watch::new(folder.path()).unwrap();
        for built in ["a.wasm", ".fthost/build/x", ".building-1", "Cargo.lock", "src/.plugin.py.swp"] {
            std::fs::write(folder.path().join(built), "").unwrap();
        }
        assert_eq!(watch.wait(Some(Duration::from_millis(300))), None);
        std::fs::write(folder.path().join("src/plugin.py"), "x").unwrap();
        std::fs::write(folder.path().join("plugin.toml"), "x").unwrap();
        let changed = watch.wait(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(changed, [PathBuf::from("plugin.toml"), PathBuf::from("src/plugin.py")]);
    }
}
