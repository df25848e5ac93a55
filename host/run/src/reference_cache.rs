//! Log-probabilities of a reference on disk, named by the digest of everything they are made of.
//!
//! A file holds a head of 64 bytes (magic, version, checksum of the rest, key, rows, values), where each row's values begin
//! and last where all end, and the values. Numbers are little-endian. As with tokenised rows it is written under a temporary
//! name and renamed, so a file that is there is whole; one that is not, or was made by another version, is made again.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fthost_data::digest::hex;

use crate::place::{cache_dir, remove_oldest};
use crate::reference::ReferenceLogps;

const MAGIC: &[u8; 8] = b"fthostrf";
/// Goes up with every change of how the file is laid out.
const VERSION: u32 = 1;
const HEAD: usize = 64;
const EXTENSION: &str = "logps";
/// Files kept; those not used for the longest go first.
const KEPT: usize = 32;

/// Where what a reference says of some rows is cached.
#[derive(Debug, Clone)]
pub(crate) struct ReferenceCache {
    path: PathBuf,
    key: [u8; 32],
}

/// What the cache holds of some rows.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// All of them.
    Logps(ReferenceLogps),
    /// Nothing yet.
    Nothing,
    /// A file that can't be used, and why.
    Damaged(String),
}

impl ReferenceCache {
    /// The place of what `key` names.
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self::within(&cache_dir().join("reference"), key)
    }

    fn within(folder: &Path, key: [u8; 32]) -> Self {
        Self { path: folder.join(format!("{}.{EXTENSION}", hex(&key))), key }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The values of `rows` rows, where they are there.
    pub(crate) fn read(&self, rows: usize) -> Found {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => return self.damaged(error),
        };
        let mut bytes = Vec::new();
        if let Err(error) = file.read_to_end(&mut bytes) {
            return self.damaged(error);
        }
        match parse(&bytes, &self.key, rows) {
            Ok(logps) => {
                // What is used is kept; a cache that may only be read serves too.
                let _ = file.set_modified(SystemTime::now());
                Found::Logps(logps)
            }
            Err(reason) => self.damaged(reason),
        }
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> Found {
        Found::Damaged(format!(
            "cached log-probabilities of the reference can't be used and are computed again: `{}`: {reason}",
            self.path.display()
        ))
    }

    /// Keeps `logps` for the next run, or says why not.
    ///
    /// # Errors
    /// What a person is told; the run goes on.
    pub(crate) fn write(&self, logps: &ReferenceLogps) -> Result<(), String> {
        let folder = self.path.parent().expect("a file of the cache folder");
        self.write_file(folder, logps).and_then(|()| remove_oldest(folder, EXTENSION, KEPT)).map_err(
            |error| {
                format!(
                    "log-probabilities of the reference can't be cached: `{}`: {error}",
                    self.path.display()
                )
            },
        )
    }

    fn write_file(&self, folder: &Path, logps: &ReferenceLogps) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let counts = [logps.len() as u64, logps.values().len() as u64].map(u64::to_le_bytes).concat();
        let bounds: Vec<u8> = logps.bounds().iter().flat_map(|it| it.to_le_bytes()).collect();
        let values: Vec<u8> = logps.values().iter().flat_map(|it| it.to_le_bytes()).collect();
        let parts = [&self.key[..], &counts, &bounds, &values];
        let checksum = parts.iter().fold(0, |sum, it| crc32c::crc32c_append(sum, it));
        let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(folder)?);
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&checksum.to_le_bytes())?;
        parts.iter().try_for_each(|it| file.write_all(it))?;
        file.into_inner()?.persist(&self.path)?;
        Ok(())
    }
}

fn parse(bytes: &[u8], key: &[u8; 32], rows: usize) -> Result<ReferenceLogps, String> {
    let (head, rest) = bytes.split_at_checked(HEAD).ok_or("it is cut short")?;
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let count = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    if &head[..8] != MAGIC {
        return Err("it is no file of this cache".into());
    }
    if number(8) != VERSION {
        return Err(format!("its version is {}, not {VERSION}", number(8)));
    }
    if number(12) != crc32c::crc32c(&bytes[16..]) {
        return Err("its checksum is another".into());
    }
    if &head[16..48] != key {
        return Err("it was made of something else".into());
    }
    if count(48) != rows as u64 {
        return Err(format!("it has {} rows, not {rows}", count(48)));
    }
    let (bounds, values) = rest.split_at_checked((rows + 1) * 8).ok_or("it is cut short")?;
    if values.len() as u64 != count(56).saturating_mul(4) {
        return Err(format!("{} bytes of {} values", values.len(), count(56)));
    }
    let bounds = bounds.as_chunks::<8>().0.iter().map(|it| u64::from_le_bytes(*it)).collect();
    let values = values.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
    ReferenceLogps::from_parts(bounds, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logps() -> ReferenceLogps {
        let mut logps = ReferenceLogps::default();
        logps.push(&[-0.5, f32::MIN_POSITIVE]);
        logps.push(&[]);
        logps.push(&[-3.25]);
        logps
    }

    fn damage(cache: &ReferenceCache, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let whole = std::fs::read(cache.path()).unwrap();
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(cache.path(), &bytes).unwrap();
        let Found::Damaged(told) = cache.read(3) else { panic!("it was read") };
        std::fs::write(cache.path(), whole).unwrap();
        let (place, reason) = told.rsplit_once("`: ").unwrap();
        assert!(place.ends_with(cache.path().to_str().unwrap()), "{place}");
        reason.to_string()
    }

    #[test]
    fn what_was_kept_is_read_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ReferenceCache::within(&folder.path().join("new"), [7; 32]);
        assert_eq!(cache.read(3), Found::Nothing);
        cache.write(&logps()).unwrap();
        assert_eq!(cache.read(3), Found::Logps(logps()));
        assert_eq!(ReferenceCache::within(&folder.path().join("new"), [8; 32]).read(3), Found::Nothing);
        let files = std::fs::read_dir(folder.path().join("new")).unwrap().count();
        assert_eq!(files, 1, "nothing temporary is left");
    }

    #[test]
    fn a_file_that_is_not_whole_or_not_ours_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ReferenceCache::within(folder.path(), [7; 32]);
        cache.write(&logps()).unwrap();
        let told = [
            damage(&cache, |it| it.truncate(20)),
            damage(&cache, |it| it.truncate(it.len() - 1)),
            damage(&cache, |it| it[0] ^= 1),
            damage(&cache, |it| it[8] = 9),
            damage(&cache, |it| *it.last_mut().unwrap() ^= 1),
        ];
        insta::assert_snapshot!(told.join("\n"), @r"
        it is cut short
        its checksum is another
        it is no file of this cache
        its version is 9, not 1
        its checksum is another
        ");
        let other = ReferenceCache { key: [8; 32], ..cache.clone() };
        assert!(matches!(other.read(3), Found::Damaged(it) if it.ends_with("it was made of something else")));
        assert!(matches!(cache.read(2), Found::Damaged(it) if it.ends_with("it has 3 rows, not 2")));
    }
}
