//! `sha256:<hex>`, the one form of a digest here.

use std::io::{BufReader, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::{Result, io};

/// Bytes as text, two lower-case digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `sha256:<hex>` of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    text(&Sha256::digest(bytes))
}

/// `sha256:<hex>` of a hash that was computed.
pub fn text(hash: &[u8]) -> String {
    format!("sha256:{}", hex(hash))
}

/// `sha256:<hex>` of a file's bytes.
///
/// # Errors
/// A file that can't be read.
pub fn of_file(path: &Path) -> Result<String> {
    let mut reader = BufReader::new(std::fs::File::open(path).map_err(io(path))?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = reader.read(&mut buffer).map_err(io(path))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(text(&hash.finalize()))
}

/// Whether `text` has the form.
pub fn is_sha256(text: &str) -> bool {
    let lower_hex = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(lower_hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_common_one() {
        // FIPS 180-2, B.1.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), abc);
        assert!(is_sha256(abc));
        for bad in ["", "sha256:", &abc[..70], &abc.to_uppercase(), &abc.replace("sha256", "sha512")] {
            assert!(!is_sha256(bad), "{bad}");
        }
    }
}
