//! What is said, and signed, about a package: its name, its version and the digest of each file.

use std::collections::BTreeMap;

use fthost_data::digest::sha256;
use serde::{Deserialize, Serialize};

use crate::package::{Kind, Package};

/// Tells statements about packages from anything else that a key might sign.
const CONTEXT: &str = "fthost package statement, version 1";

/// The statement about a package. Equal packages give equal bytes, wherever they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// What this is.
    pub context: String,
    /// `plugin` or `plugin-set`.
    pub kind: String,
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of the component; a set has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Digest of every file, by path.
    pub files: BTreeMap<String, String>,
}

impl Statement {
    /// About `package`.
    pub fn about(package: &Package) -> Self {
        let kind = match package.kind {
            Kind::Plugin(_) => "plugin",
            Kind::Set => "plugin-set",
        };
        Self {
            context: CONTEXT.to_string(),
            kind: kind.to_string(),
            name: package.name.to_string(),
            version: package.version.to_string(),
            component: package.component_digest(),
            files: package.files.iter().map(|(path, bytes)| (path.clone(), sha256(bytes))).collect(),
        }
    }

    /// The one spelling: fields in the order of the type, files in the order of their paths, no blanks.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts become JSON")
    }

    /// The package's digest: that of the statement's bytes.
    pub fn digest(&self) -> String {
        sha256(&self.bytes())
    }
}

impl Package {
    /// `sha256:<hex>` of the statement, which names every file by its digest.
    pub fn digest(&self) -> String {
        Statement::about(self).digest()
    }
}
