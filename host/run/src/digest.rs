//! Digests that name what a run was made of.

use std::fs::Metadata;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use fthost_data::DataError;
use fthost_data::digest::{hex, of_file as file_digest, sha256};
use fthost_engine::checkpoint::gguf::WEIGHTS;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::place::cache_dir;

/// Smaller files are read faster than it is worth to note their digest.
const NOTED_FROM: u64 = 8 << 20;
/// A file that changed this little ago may change again within the resolution of its times.
const SETTLED: Duration = Duration::from_secs(2);

/// `sha256:<hex>` of a file.
///
/// A large file's digest is noted in the cache folder under the file's path, device, inode, size and times of change
/// (the last of which no program can set), and taken from there while these are the same.
///
/// # Errors
/// A file that can't be read.
pub fn of_file(path: &Path) -> Result<String> {
    of_file_noted_in(&cache_dir().join("digests"), path)
}

fn of_file_noted_in(folder: &Path, path: &Path) -> Result<String> {
    let fail = |source| DataError::Io { path: path.to_path_buf(), source };
    let metadata = || std::fs::metadata(path).map_err(fail);
    let before = metadata()?;
    let Some(state) = state(path, &before).filter(|_| before.len() >= NOTED_FROM) else {
        return Ok(file_digest(path)?);
    };
    let note = folder.join(hex(&Sha256::digest(state.as_bytes())));
    if let Ok(noted) = std::fs::read_to_string(&note)
        && is_digest(&noted)
    {
        return Ok(noted);
    }
    let digest = file_digest(path)?;
    let settled = |changed: SystemTime| changed.elapsed().is_ok_and(|it| it > SETTLED);
    let after = metadata()?;
    if self::state(path, &after).as_ref() == Some(&state) && changed(&after).is_some_and(settled) {
        // Without the note the file is read again, and nothing else.
        let _ = write_note(folder, &note, &digest);
    }
    Ok(digest)
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|it| it.len() == 64 && it.bytes().all(|it| it.is_ascii_hexdigit()))
}

fn write_note(folder: &Path, note: &Path, digest: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(digest.as_bytes())?;
    file.persist(note)?;
    Ok(())
}

/// What changes whenever a file's bytes do.
#[cfg(unix)]
fn state(path: &Path, metadata: &Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let path = std::fs::canonicalize(path).ok()?;
    let it = metadata;
    let (changed, changed_nsec) = (it.ctime(), it.ctime_nsec());
    let of_file = format!("{} {} {} {}.{}", it.dev(), it.ino(), it.len(), it.mtime(), it.mtime_nsec());
    Some(format!("{} {of_file} {changed}.{changed_nsec}", path.display()))
}

#[cfg(not(unix))]
fn state(_: &Path, _: &Metadata) -> Option<String> {
    None
}

/// When a file's bytes or its times were changed last.
#[cfg(unix)]
fn changed(metadata: &Metadata) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt;
    let since =
        Duration::new(u64::try_from(metadata.ctime()).ok()?, u32::try_from(metadata.ctime_nsec()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> Option<SystemTime> {
    None
}

/// A model's digest in the making, beside other work.
pub struct ModelDigest(JoinHandle<Result<String>>);

impl ModelDigest {
    /// Begins to read the files of `folder`.
    pub fn start(folder: &Path) -> Self {
        let folder = folder.to_path_buf();
        Self(std::thread::spawn(move || of_model(&folder)))
    }

    /// The digest.
    ///
    /// # Errors
    /// As [`of_model`].
    pub fn wait(self) -> Result<String> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// `sha256:<hex>` of a model's folder: names and contents of what decides logits and tokens, in the order of names.
///
/// # Errors
/// Files that can't be read.
pub fn of_model(folder: &Path) -> Result<String> {
    of_files(folder, |name| {
        let companions = [
            "config.json",
            "adapter_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ];
        companions.contains(&name) || is_weights(name)
    })
}

/// As [`of_model`], of weights alone.
///
/// # Errors
/// Files that can't be read.
pub fn of_weights(folder: &Path) -> Result<String> {
    of_files(folder, is_weights)
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") || name == WEIGHTS
}

fn of_files(folder: &Path, is_of_it: impl Fn(&str) -> bool) -> Result<String> {
    let fail = |source| DataError::Io { path: folder.to_path_buf(), source };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        files.push(entry.map_err(fail)?.path());
    }
    files.retain(|it| is_of_it(it.file_name().and_then(|it| it.to_str()).unwrap_or_default()));
    files.sort();
    let mut told = String::new();
    for file in &files {
        let name = file.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        told.push_str(&format!("{name} {}\n", of_file(file)?));
    }
    Ok(sha256(told.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_digest_is_taken_only_while_the_file_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (notes, path) = (folder.path().join("notes"), folder.path().join("weights"));
        let mut bytes = vec![1; NOTED_FROM as usize];
        std::fs::write(&path, &bytes).unwrap();
        let digest = || of_file_noted_in(&notes, &path).unwrap();
        assert_eq!(digest(), sha256(&bytes));
        assert!(!notes.exists(), "a file that has just changed is not noted");
        std::thread::sleep(SETTLED + Duration::from_millis(100));
        assert_eq!(digest(), sha256(&bytes));
        let noted: Vec<_> = std::fs::read_dir(&notes).unwrap().map(|it| it.unwrap().path()).collect();
        assert_eq!(noted.len(), 1);
        let other = sha256(b"noted");
        std::fs::write(&noted[0], &other).unwrap();
        assert_eq!(digest(), other, "the note is what is read");
        std::fs::write(&noted[0], "sha256:").unwrap();
        assert_eq!(digest(), sha256(&bytes), "a damaged note is none");

        // Same length, and the time of modification set back: the time of change still tells.
        std::fs::write(&noted[0], &other).unwrap();
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        bytes[7] = 2;
        std::fs::write(&path, &bytes).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(digest(), sha256(&bytes));
    }
}
