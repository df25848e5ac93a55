//! Signatures of packages: a DSSE envelope (<https://github.com/secure-systems-lab/dsse>) around the statement.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{RegistryError, Release, Result};
use crate::key::{PublicKey, SecretKey};
use crate::package::Package;
use crate::statement::Statement;

/// What a statement is called in an envelope.
const PAYLOAD_TYPE: &str = "application/vnd.fthost.package-statement.v1+json";

/// Bytes of an envelope at most; a statement about the most files stays far below.
pub const MOST_SIGNATURE_BYTES: u64 = 4 << 20;

/// `plugin.sig`: a statement and who signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    /// The public key.
    keyid: String,
    sig: String,
}

/// What is signed: type and payload with their lengths, so that neither can pass for the other.
fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// Signs `package` with `key`; signatures of others in `earlier` stay where they are of the same package.
    pub fn sign(package: &Package, key: &SecretKey, earlier: Option<&Self>) -> Self {
        let payload = Statement::about(package).bytes();
        let public = key.public().to_string();
        let encoded = STANDARD.encode(&payload);
        let same = earlier.filter(|it| it.payload == encoded);
        let mut signatures = same.map(|it| it.signatures.clone()).unwrap_or_default();
        signatures.retain(|it| it.keyid != public);
        signatures.push(Signed { keyid: public, sig: STANDARD.encode(key.sign(&signed_bytes(&payload))) });
        Self { payload_type: PAYLOAD_TYPE.to_string(), payload: encoded, signatures }
    }

    /// The file's text.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("texts become JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the file's text; whether the signatures are good is [`Envelope::signers`]'s to say.
    ///
    /// # Errors
    /// What is no envelope.
    pub fn parse(bytes: &[u8], package: &Package) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| wrong(package, format!("it can't be read: {error}")))
    }

    /// The keys that signed `package` as it stands. A signature that does not verify refuses all of them.
    ///
    /// # Errors
    /// An envelope about another package, or other bytes, or with a signature that is not its key's, or with none.
    pub fn signers(&self, package: &Package) -> Result<Vec<PublicKey>> {
        let statement = Statement::about(package);
        let payload = STANDARD.decode(&self.payload).map_err(|_| wrong(package, "it is no base64".into()))?;
        if self.payload_type != PAYLOAD_TYPE {
            return Err(wrong(package, format!("it signs `{}`", self.payload_type)));
        }
        if payload != statement.bytes() {
            return Err(wrong(package, difference(&payload, &statement)));
        }
        let message = signed_bytes(&payload);
        let mut keys = Vec::new();
        for it in &self.signatures {
            let key: PublicKey = it.keyid.parse().map_err(|problem| wrong(package, problem))?;
            let bytes = STANDARD.decode(&it.sig).map_err(|_| wrong(package, "it is no base64".into()))?;
            if !key.verifies(&message, &bytes) {
                return Err(wrong(package, format!("{key} did not sign this")));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(wrong(package, "nobody signed".into()));
        }
        Ok(keys)
    }
}

fn wrong(package: &Package, problem: String) -> RegistryError {
    RegistryError::Signature { release: Release::of(package), problem }
}

/// In which point what was signed is not what is there.
fn difference(payload: &[u8], now: &Statement) -> String {
    let Ok(signed) = serde_json::from_slice::<Statement>(payload) else {
        return "what was signed is no statement about a package".into();
    };
    if (&signed.name, &signed.version) != (&now.name, &now.version) {
        return format!("it is of `{}` {}", signed.name, signed.version);
    }
    let paths = signed.files.keys().chain(now.files.keys());
    let changed = paths.into_iter().find(|it| signed.files.get(*it) != now.files.get(*it));
    match changed {
        Some(path) => format!("`{path}` is not the file that was signed"),
        None => "what was signed is spelled otherwise".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn package(more: &str) -> Package {
        let manifest = "name = \"a\"\nversion = \"1.0.0\"\nroles = [\"reward\"]\nlicense = \"MIT\"\n\
                        description = \"d\"\ncontract = \"0.2\"\n";
        let files = BTreeMap::from([
            ("plugin.toml".to_string(), manifest.as_bytes().to_vec()),
            ("a.wasm".to_string(), vec![0, b'a', b's', b'm', 0x0d, 0, 1, 0]),
            ("README.md".to_string(), more.as_bytes().to_vec()),
        ]);
        Package::from_files(files, "test").unwrap()
    }

    #[test]
    fn equal_packages_have_one_digest_and_a_byte_makes_another() {
        assert_eq!(package("x").digest(), package("x").digest());
        assert_ne!(package("x").digest(), package("y").digest());
    }

    #[test]
    fn a_signature_covers_every_byte() {
        let (first, second) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let envelope = Envelope::sign(&package("x"), &first, None);
        let envelope = Envelope::sign(&package("x"), &second, Some(&envelope));
        let read = Envelope::parse(&envelope.bytes(), &package("x")).unwrap();
        assert_eq!(read.signers(&package("x")).unwrap(), [first.public(), second.public()]);
        let error = read.signers(&package("y")).unwrap_err().to_string();
        assert_eq!(
            error,
            "the signature of `a` 1.0.0 is wrong: `README.md` is not the file that was signed; it is refused"
        );
        // A new package forgets who signed the old one.
        let again = Envelope::sign(&package("y"), &second, Some(&envelope));
        assert_eq!(again.signers(&package("y")).unwrap(), [second.public()]);
    }

    #[test]
    fn nobody_can_sign_in_anothers_name() {
        let (mine, yours) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let mut envelope = Envelope::sign(&package("x"), &mine, None);
        envelope.signatures[0].keyid = yours.public().to_string();
        let error = envelope.signers(&package("x")).unwrap_err().to_string();
        assert!(error.contains(&format!("{} did not sign this", yours.public())), "{error}");
        envelope.signatures.clear();
        assert!(envelope.signers(&package("x")).unwrap_err().to_string().contains("nobody signed"));
    }
}
