//! `plugins.lock`, beside a run file: which package each plugin was, by digest.
//!
//! Whoever can write the file can pin what he likes, so it carries no digest of itself: what it protects from is that
//! something else comes from where a package comes from.

use std::path::Path;

use fthost_data::digest::is_sha256;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::error::{RegistryError, Result, io};
use crate::key::PublicKey;
use crate::package::Package;
use crate::store::write_whole;

/// Its name.
pub const LOCK: &str = "plugins.lock";

const FORMAT: u32 = 1;
const HEAD: &str = "# Written by fthost: which package each plugin is. Keep it with the run file.\n";

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// By name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Pin>,
    /// Pulled sets, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Pin>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// As the run file names it.
    pub name: String,
    /// Absent for a component that is in no package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// `sha256:<hex>` of the component; a set has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// `sha256:<hex>` of the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Where the package came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<PublicKey>,
}

impl Pin {
    /// Of a package from `source`, signed by the first of `signers`.
    pub fn of(package: &Package, source: &str, signers: &[PublicKey]) -> Self {
        Self {
            name: package.name.to_string(),
            version: Some(package.version.clone()),
            component: package.component_digest(),
            package: Some(package.digest()),
            source: Some(source.to_string()),
            signer: signers.first().copied(),
        }
    }

    /// Of a component that is in no package.
    pub fn of_component(name: &str, digest: String) -> Self {
        Self {
            name: name.to_string(),
            version: None,
            component: Some(digest),
            package: None,
            source: None,
            signer: None,
        }
    }

    /// Whether the pinned version will do.
    pub fn satisfies(&self, requirement: &VersionReq) -> bool {
        self.version.as_ref().is_some_and(|it| requirement.matches(it))
    }

    fn problem(&self) -> Option<String> {
        let packaged = [self.version.is_some(), self.package.is_some(), self.source.is_some()];
        let digests = [&self.component, &self.package];
        let bad = digests.into_iter().flatten().find(|it| !is_sha256(it));
        match () {
            () if bad.is_some() => {
                Some(format!("`{}`: `{}` is no digest", self.name, bad.map_or("", |it| it)))
            }
            () if packaged.contains(&true) && packaged.contains(&false) => {
                Some(format!("`{}`: `version`, `package` and `source` go together", self.name))
            }
            () if self.component.is_none() && self.package.is_none() => {
                Some(format!("`{}` pins nothing", self.name))
            }
            () => None,
        }
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new())
    }
}

impl Lock {
    /// A lock file of these pins.
    pub fn new(plugins: Vec<Pin>, sets: Vec<Pin>) -> Self {
        Self { version: FORMAT, plugins, sets }
    }

    /// Reads the text of a lock file at `path`.
    ///
    /// # Errors
    /// What is no lock file of this format; every pin that pins nothing, or twice.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let refuse = |problems: Vec<String>| RegistryError::Lock { path: path.to_path_buf(), problems };
        let lock: Self = toml::from_str(text)
            .map_err(|error| refuse(vec![error.to_string().trim_end().replace('\n', "\n  ")]))?;
        let mut problems = Vec::new();
        if lock.version != FORMAT {
            problems.push(format!("`version` must be {FORMAT}, got `{}`", lock.version));
        }
        for pins in [&lock.plugins, &lock.sets] {
            problems.extend(pins.iter().filter_map(Pin::problem));
            let twice =
                pins.iter().enumerate().filter(|(at, pin)| pins[..*at].iter().any(|it| it.name == pin.name));
            problems.extend(twice.map(|it| format!("`{}` is pinned twice", it.1.name)));
        }
        if problems.is_empty() { Ok(lock) } else { Err(refuse(problems)) }
    }

    /// The lock file at `path`, if there is one.
    ///
    /// # Errors
    /// As [`Lock::parse`]; a file that can't be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", path)(error)),
        }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, self.text().as_bytes())
    }

    /// The file's text: equal locks are written equally.
    pub fn text(&self) -> String {
        let mut sorted = self.clone();
        sorted.plugins.sort_by(|a, b| a.name.cmp(&b.name));
        sorted.sets.sort_by(|a, b| a.name.cmp(&b.name));
        format!("{HEAD}{}", toml::to_string(&sorted).expect("texts become TOML"))
    }

    /// The pin of a plugin.
    pub fn plugin(&self, name: &str) -> Option<&Pin> {
        self.plugins.iter().find(|it| it.name == name)
    }

    /// The pin of a pulled set.
    pub fn set(&self, name: &str) -> Option<&Pin> {
        self.sets.iter().find(|it| it.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_lock_is_read_as_it_is_written() {
        let source = Some("oci://localhost:5000/team/bleu".to_string());
        let pin = Pin {
            version: Some("0.1.0".parse().unwrap()),
            package: Some(DIGEST.into()),
            source,
            ..Pin::of_component("team/bleu", DIGEST.into())
        };
        let mine = Pin::of_component("mine", DIGEST.into());
        let lock = Lock { plugins: vec![mine, pin], ..Lock::default() };
        insta::assert_snapshot!(lock.text(), @r#"
        # Written by fthost: which package each plugin is. Keep it with the run file.
        version = 1

        [[plugins]]
        name = "mine"
        component = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

        [[plugins]]
        name = "team/bleu"
        version = "0.1.0"
        component = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        package = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        source = "oci://localhost:5000/team/bleu"
        "#);
        assert_eq!(Lock::parse(&lock.text(), Path::new(LOCK)).unwrap(), lock);
    }

    #[test]
    fn a_lock_that_pins_nothing_is_refused() {
        let text = format!(
            "version = 2\n[[plugins]]\nname = \"a\"\n[[plugins]]\nname = \"b\"\ncomponent = \"sha256:00\"\n\
             [[plugins]]\nname = \"c\"\ncomponent = \"{DIGEST}\"\nsource = \"x\"\n\
             [[plugins]]\nname = \"c\"\ncomponent = \"{DIGEST}\"\n"
        );
        insta::assert_snapshot!(Lock::parse(&text, Path::new(LOCK)).unwrap_err().to_string(), @r"
        invalid lock file `plugins.lock`
          `version` must be 1, got `2`
          `a` pins nothing
          `b`: `sha256:00` is no digest
          `c`: `version`, `package` and `source` go together
          `c` is pinned twice
        ");
        let unknown =
            format!("version = 1\n[[plugins]]\nname = \"c\"\ncomponent = \"{DIGEST}\"\ndigset = \"\"\n");
        assert!(
            Lock::parse(&unknown, Path::new(LOCK))
                .unwrap_err()
                .to_string()
                .contains("unknown field `digset`")
        );
    }
}
