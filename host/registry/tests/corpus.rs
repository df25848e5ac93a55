//! What the fuzz targets (`fuzz/`) start from, and every input they ever broke on: no input may panic, and what is
//! accepted is accepted again as it is written.

use std::path::Path;

use fthost_registry::{Lock, Manifest};

/// Each file of a corpus, whole and with each of its bytes flipped, cut off and doubled.
fn inputs(corpus: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let doubled = [&bytes[..at], &bytes[at..], &bytes[at..]].concat();
            all.extend([flipped, bytes[..at].to_vec(), doubled]);
        }
        all.push(bytes);
    }
    assert!(all.len() > 100, "the corpus is empty");
    all
}

#[test]
fn no_manifest_breaks_its_reader() {
    for bytes in inputs("manifest") {
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        match Manifest::parse(text) {
            Ok(manifest) => assert!(!manifest.roles.is_empty()),
            Err(problems) => assert!(!problems.is_empty(), "refused for no reason: {text}"),
        }
    }
}

#[test]
fn no_lock_file_breaks_its_reader() {
    for bytes in inputs("lock") {
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        let Ok(lock) = Lock::parse(text, Path::new("plugins.lock")) else { continue };
        let again = Lock::parse(&lock.text(), Path::new("plugins.lock")).unwrap();
        assert_eq!(again.text(), lock.text());
    }
}
