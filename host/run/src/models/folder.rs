//! A model's folder, there whole or not at all.

use std::path::{Path, PathBuf};

use crate::error::{Result, RunError};

/// Writes the folder `out`: under a temporary name beside it, then renamed. `force` replaces an earlier model.
///
/// # Errors
/// `out` is there and may not be replaced, or is no model's folder; whatever `write` refuses. Nothing is left then.
pub fn write_folder(out: &Path, force: bool, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let there = out.symlink_metadata().is_ok();
    if there && !force {
        return Err(RunError::ModelInTheWay { folder: out.to_path_buf() });
    }
    if there && !is_replaceable(out) {
        return Err(RunError::NoModelInTheWay { folder: out.to_path_buf() });
    }
    let temporary = temporary_beside(out)?;
    let made = temporary.path().join("model");
    std::fs::create_dir(&made).map_err(RunError::output(&made))?;
    write(&made)?;
    if there {
        std::fs::rename(out, temporary.path().join("replaced")).map_err(RunError::output(out))?;
    }
    std::fs::rename(&made, out).map_err(RunError::output(out))
}

/// [`temporary_in`] the folder that `out` is to lie in, which is made if it is not there.
pub(super) fn temporary_beside(out: &Path) -> Result<tempfile::TempDir> {
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(RunError::output(parent))?;
    temporary_in(parent)
}

/// A folder that goes when it is dropped, on the same file system as what is to be made.
pub(super) fn temporary_in(parent: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(".fthost-").tempdir_in(parent).map_err(RunError::output(parent))
}

/// Only what looks like a model or an adapter, or holds nothing, is ever removed.
fn is_replaceable(folder: &Path) -> bool {
    let Ok(mut entries) = folder.read_dir() else { return false };
    let marks = ["config.json", "adapter_config.json"];
    entries.next().is_none() || marks.iter().any(|it| folder.join(it).is_file())
}

/// Where the model of a file goes that nobody named a place for: beside it, under its name without the extension.
pub fn beside(source: &Path) -> PathBuf {
    if source.is_dir() { source.to_path_buf() } else { source.with_extension("") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|it| it.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn write(name: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |folder| std::fs::write(folder.join(name), "{}").map_err(RunError::output(folder))
    }

    #[test]
    fn a_folder_is_there_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("made");
        let failed = write_folder(&out, false, |folder| {
            write("config.json")(folder)?;
            Err(RunError::ModelInTheWay { folder: folder.to_path_buf() })
        });
        assert!(failed.is_err());
        assert_eq!(names(place.path()), [""; 0], "a failure leaves nothing");
        write_folder(&out, false, write("config.json")).unwrap();
        assert_eq!(names(place.path()), ["made"]);
        assert_eq!(names(&out), ["config.json"]);
    }

    #[test]
    fn only_a_model_is_replaced_and_only_where_asked() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("made");
        write_folder(&out, false, write("config.json")).unwrap();
        let refused = write_folder(&out, false, write("tokenizer.json")).unwrap_err().to_string();
        assert!(refused.contains("is already there"), "{refused}");
        write_folder(&out, true, write("tokenizer.json")).unwrap();
        assert_eq!(names(&out), ["tokenizer.json"]);
        let refused = write_folder(&out, true, write("config.json")).unwrap_err().to_string();
        assert!(refused.contains("is no model's folder"), "{refused}");
        assert_eq!(names(&out), ["tokenizer.json"], "what is no model stays");
        assert_eq!(names(place.path()), ["made"]);
    }
}
