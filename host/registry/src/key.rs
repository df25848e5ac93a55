//! ed25519 keys: `ed25519:<base64>` in public, a PEM file of PKCS #8 (RFC 8410) in private, as `openssl` writes it.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::error::{RegistryError, Result, io};

/// PKCS #8 around a key of ed25519 without attributes or public part: RFC 8410, section 7.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Who may have signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Whether `signature` is this key's, of `message`. Weak keys and signatures that could be altered are refused.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = Signature::from_slice(signature);
        signature.is_ok_and(|it| self.0.verify_strict(message, &it).is_ok())
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let refuse = || format!("`{text}` is no public key: expected `ed25519:` and 32 bytes in base64");
        let bytes =
            text.strip_prefix("ed25519:").and_then(|it| STANDARD.decode(it).ok()).ok_or_else(refuse)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| refuse())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| refuse())?;
        if key.is_weak() {
            return Err(format!("`{text}` is a weak key: it verifies what nobody signed"));
        }
        Ok(Self(key))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", STANDARD.encode(self.0.as_bytes()))
    }
}

/// Signs. Never shown: it has no `Debug`.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key of the system's random numbers.
    ///
    /// # Errors
    /// A system that gives none.
    pub fn generate() -> Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| RegistryError::Key {
            what: "the system's randomness".into(),
            problem: error.to_string(),
        })?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The half that others are given.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).to_bytes().to_vec()
    }

    /// Reads a key's file, which must be its owner's alone.
    ///
    /// # Errors
    /// A file that can't be read, that others can read, or that holds no such key.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |problem: String| RegistryError::Key { what: format!("`{}`", path.display()), problem };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path).map_err(io("read", path))?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(refuse(format!(
                    "others can read it (mode {mode:03o})\nhint: `chmod 600 {}`; if it was ever copied, make a new one",
                    path.display()
                )));
            }
        }
        let text = std::fs::read_to_string(path).map_err(io("read", path))?;
        Self::from_pem(&text).ok_or_else(|| {
            refuse("expected a PEM file with an ed25519 key, as `fthost plugin key new` writes it".into())
        })
    }

    /// Writes the key's file, readable by its owner alone; never over a file that is there.
    ///
    /// # Errors
    /// A file that is there or can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(io("write", path))?;
        file.write_all(self.to_pem().as_bytes()).map_err(io("write", path))
    }

    fn to_pem(&self) -> String {
        let der = [&PKCS8_HEAD[..], self.0.as_bytes()].concat();
        format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(der))
    }

    fn from_pem(text: &str) -> Option<Self> {
        let inside = text.split_once(PEM_BEGIN)?.1.split_once(PEM_END)?.0;
        let der = STANDARD.decode(inside.split_whitespace().collect::<String>()).ok()?;
        let seed: [u8; 32] = der.strip_prefix(&PKCS8_HEAD)?.try_into().ok()?;
        Some(Self(SigningKey::from_bytes(&seed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2: key, message and signature.
    #[test]
    fn signatures_are_those_of_rfc_8032() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let key = SecretKey(SigningKey::from_bytes(&seed.try_into().unwrap()));
        let signature = key.sign(&[0x72]);
        assert_eq!(
            signature,
            hex(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            )
        );
        assert!(key.public().verifies(&[0x72], &signature) && !key.public().verifies(&[0x73], &signature));
    }

    /// RFC 8410, section 10.3: the example of a private key and its public one (10.1).
    #[test]
    fn key_files_are_those_of_rfc_8410() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let key = SecretKey::from_pem(pem).unwrap();
        assert_eq!(key.to_pem(), pem);
        assert_eq!(key.public().to_string(), "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
    }

    #[test]
    fn a_key_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("team.key");
        let key = SecretKey::generate().unwrap();
        key.write(&path).unwrap();
        assert_eq!(SecretKey::read(&path).unwrap().public(), key.public());
        assert!(key.write(&path).is_err(), "a key was written over");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            let error = SecretKey::read(&path).err().unwrap().to_string();
            assert!(error.contains("others can read it (mode 644)"), "{error}");
        }
    }

    #[test]
    fn public_keys_are_read_as_they_are_shown() {
        let key = SecretKey::generate().unwrap().public();
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        // The neutral element verifies signatures that nobody made.
        let weak = format!("ed25519:{}", STANDARD.encode([&[1u8][..], &[0; 31]].concat()));
        assert!(weak.parse::<PublicKey>().unwrap_err().contains("weak"));
        for bad in ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA"] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }
}
