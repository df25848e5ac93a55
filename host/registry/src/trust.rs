//! Who may publish what: `trust.toml`.
//!
//! A policy file names patterns of package names and the keys that may sign them. Once a file names a package, one that
//! is not signed by such a key is refused, when it is pulled and when it is loaded. Files don't weaken one another: each
//! that names the package must be satisfied. A file that can't be read stops everything.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{RegistryError, Release, Result, io};
use crate::key::PublicKey;
use crate::name::NamePattern;
use crate::package::Package;
use crate::signature::Envelope;

/// A policy file's name, in the user's configuration folder and beside a run file.
pub const POLICY: &str = "trust.toml";

/// `[[publishers]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Publisher {
    /// The names that are theirs.
    name_patterns: Vec<NamePattern>,
    /// Keys that may sign them; none is nobody.
    #[serde(default)]
    keys: Vec<PublicKey>,
    /// Whether a package of theirs must be signed. One that is signed must be signed by one of `keys` either way.
    #[serde(default = "yes")]
    require_signatures: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    publishers: Vec<Publisher>,
}

/// Every policy file that is in force.
#[derive(Debug, Clone, Default)]
pub struct TrustPolicy {
    files: Vec<(PathBuf, PolicyFile)>,
}

impl TrustPolicy {
    /// The user's policy (`fthost/trust.toml` in `XDG_CONFIG_HOME`, else in `.config` of the home) and the one in
    /// `beside`, the run file's folder. Neither must exist.
    ///
    /// # Errors
    /// A policy that is there and can't be used.
    pub fn from_environment(beside: &Path) -> Result<Self> {
        let configured = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|it| it.is_absolute());
        let home = || std::env::home_dir().map(|it| it.join(".config"));
        let user = configured.or_else(home).map(|it| it.join("fthost").join(POLICY));
        let mut policy = Self::default();
        for path in user.into_iter().chain([beside.join(POLICY)]) {
            // Whatever is there counts: also what is no file, or may not be read.
            if std::fs::symlink_metadata(&path).is_ok() {
                policy.add(&path)?;
            }
        }
        Ok(policy)
    }

    /// Puts another file in force.
    ///
    /// # Errors
    /// A file that can't be read or understood.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(io("read", path))?;
        let file = toml::from_str(&text).map_err(|error: toml::de::Error| RegistryError::Policy {
            path: path.to_path_buf(),
            problem: error.to_string().trim_end().replace('\n', "\n  "),
        })?;
        self.files.push((path.to_path_buf(), file));
        Ok(())
    }

    /// Who signed `package`; nobody, where that is allowed. A signature that is wrong is refused without any policy.
    ///
    /// # Errors
    /// A wrong signature; no signature, or somebody else's, where a file names the package.
    pub fn check(&self, package: &Package, envelope: Option<&Envelope>) -> Result<Vec<PublicKey>> {
        let signers = envelope.map(|it| it.signers(package)).transpose()?.unwrap_or_default();
        self.allow(package.name.as_str(), &package.version.to_string(), &signers)?;
        Ok(signers)
    }

    /// Whether a component that is in no package, and so signed by nobody, may be loaded as `name`.
    ///
    /// # Errors
    /// [`RegistryError::Unsigned`] where a file asks for a signature of `name`.
    pub fn check_unpackaged(&self, name: &str) -> Result<()> {
        self.allow(name, "(a component in no package)", &[])
    }

    fn allow(&self, package: &str, version: &str, signers: &[PublicKey]) -> Result<()> {
        let release = || Box::new(Release { name: package.to_string(), version: version.to_string() });
        for (policy, file) in &self.files {
            let patterns =
                file.publishers.iter().flat_map(|it| it.name_patterns.iter().map(move |at| (at, it)));
            let named: Vec<_> = patterns.filter(|it| it.0.matches(package)).collect();
            // What says most of the name decides; `*` is for names that nothing else names.
            let Some(most) = named.iter().map(|it| it.0.precision()).max() else { continue };
            let meant: Vec<_> = named.into_iter().filter(|it| it.0.precision() == most).collect();
            let pattern = meant[0].0.to_string();
            let allowed = |key: &PublicKey| meant.iter().any(|it| it.1.keys.contains(key));
            let required = meant.iter().any(|it| it.1.require_signatures);
            let keyless = meant.iter().all(|it| it.1.keys.is_empty());
            let policy = policy.clone();
            if signers.iter().any(allowed) || (!required && (signers.is_empty() || keyless)) {
                continue;
            }
            if signers.is_empty() {
                return Err(RegistryError::Unsigned { release: release(), policy, pattern });
            }
            let signers = signers.iter().map(ToString::to_string).collect();
            return Err(RegistryError::Untrusted { release: release(), signers, policy, pattern });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::key::SecretKey;

    fn package(name: &str) -> Package {
        let set = format!("name = \"{name}\"\nversion = \"1.0.0\"\n[plugins]\n");
        Package::from_files(BTreeMap::from([("set.toml".to_string(), set.into_bytes())]), "test").unwrap()
    }

    fn policy(texts: &[String]) -> TrustPolicy {
        let folder = tempfile::tempdir().unwrap();
        let mut policy = TrustPolicy::default();
        for (at, text) in texts.iter().enumerate() {
            let path = folder.path().join(format!("{at}.toml"));
            std::fs::write(&path, text).unwrap();
            policy.add(&path).unwrap();
        }
        policy
    }

    fn publisher(pattern: &str, key: &SecretKey, required: bool) -> String {
        let key = key.public();
        format!(
            "[[publishers]]\nname-patterns = [\"{pattern}\"]\nkeys = [\"{key}\"]\nrequire-signatures = {required}\n"
        )
    }

    #[test]
    fn a_named_package_is_its_publishers_and_no_others() {
        let (team, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let policy = policy(&[publisher("team/*", &team, true)]);
        let mine = package("team/a");
        assert_eq!(policy.check(&mine, Some(&Envelope::sign(&mine, &team, None))).unwrap(), [team.public()]);
        assert!(matches!(policy.check(&mine, None), Err(RegistryError::Unsigned { .. })));
        let squat = Envelope::sign(&mine, &other, None);
        assert!(matches!(policy.check(&mine, Some(&squat)), Err(RegistryError::Untrusted { .. })));
        // Nobody names this one.
        assert_eq!(policy.check(&package("b"), None).unwrap(), []);
        // A wrong signature needs no policy to be refused.
        let wrong = Envelope::sign(&mine, &team, None);
        assert!(matches!(policy.check(&package("b"), Some(&wrong)), Err(RegistryError::Signature { .. })));
    }

    #[test]
    fn the_pattern_that_says_most_decides() {
        let (team, all) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let policy = policy(&[publisher("*", &all, true) + &publisher("team/*", &team, true)]);
        let mine = package("team/a");
        assert!(policy.check(&mine, Some(&Envelope::sign(&mine, &team, None))).is_ok());
        assert!(policy.check(&mine, Some(&Envelope::sign(&mine, &all, None))).is_err());
    }

    #[test]
    fn a_second_file_makes_nothing_weaker() {
        let (team, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let policy = policy(&[publisher("team/*", &team, true), publisher("team/a", &other, false)]);
        let mine = package("team/a");
        assert!(policy.check(&mine, None).is_err());
        assert!(policy.check(&mine, Some(&Envelope::sign(&mine, &other, None))).is_err());
        let both = Envelope::sign(&mine, &other, Some(&Envelope::sign(&mine, &team, None)));
        assert!(policy.check(&mine, Some(&both)).is_ok());
    }

    #[test]
    fn where_signatures_are_not_required_a_strangers_is_still_refused() {
        let (team, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let policy = policy(&[publisher("team/*", &team, false)]);
        let mine = package("team/a");
        assert_eq!(policy.check(&mine, None).unwrap(), []);
        assert!(policy.check(&mine, Some(&Envelope::sign(&mine, &other, None))).is_err());
    }

    #[test]
    fn a_policy_that_cant_be_read_stops_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POLICY);
        for text in
            ["", "[[publishers]]\nname-patterns = [\"Team/*\"]\n", "[[publishers]]\nname-pattern = [\"a\"]\n"]
        {
            std::fs::write(&path, text).unwrap();
            assert!(TrustPolicy::default().add(&path).is_err(), "{text}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(TrustPolicy::from_environment(folder.path()).is_err(), "a folder passed for no policy");
    }
}
