// Read by the build script, which names what the program carries, and by the tests of `src/standard.rs`.

use sha2::{Digest, Sha256};

/// The first half of the SHA-256 of names and contents, in hex.
fn digest_of(files: &[(&str, &[u8])]) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in files {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
