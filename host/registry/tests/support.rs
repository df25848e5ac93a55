//! Packages and users.

use std::path::{Path, PathBuf};

use crate::started::Registry;
use fthost_registry::{
    Envelope, LOCK, Mode, Package, Place, Resolution, Resolver, Result, SecretKey, Store, TrustPolicy, Wanted,
};

/// Writes the folder of a plugin as its author has it; `words` are the bytes of its resource.
pub fn write_plugin(folder: &Path, name: &str, version: &str, words: &str) {
    let last = name.rsplit('/').next().unwrap();
    let manifest = format!(
        "name = \"{name}\"\nversion = \"{version}\"\nroles = [\"reward\"]\nlicense = \"Apache-2.0\"\n\
         description = \"Counts words of {last}\"\ncontract = \"0.2\"\n[resources]\n\"words.txt\" = \"resources/words.txt\"\n"
    );
    for below in ["resources", "cases", "src"] {
        std::fs::create_dir_all(folder.join(below)).unwrap();
    }
    std::fs::write(folder.join("plugin.toml"), manifest).unwrap();
    // The smallest component there is.
    std::fs::write(folder.join(format!("{last}.wasm")), [0, b'a', b's', b'm', 0x0d, 0, 1, 0]).unwrap();
    std::fs::write(folder.join("README.md"), "# Words\n").unwrap();
    std::fs::write(folder.join("cases/a.jsonl"), "{\"name\": \"one\"}\n").unwrap();
    std::fs::write(folder.join("resources/words.txt"), words).unwrap();
    std::fs::write(folder.join("src/lib.rs"), "not published\n").unwrap();
}

/// A plugin's package.
pub fn plugin(name: &str, version: &str, words: &str) -> Package {
    let folder = tempfile::tempdir().unwrap();
    write_plugin(folder.path(), name, version, words);
    Package::gather(folder.path()).unwrap()
}

/// Somebody with a home and a run file's folder of their own.
pub struct User {
    home: tempfile::TempDir,
    pub trust: TrustPolicy,
}

impl User {
    pub fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), trust: TrustPolicy::default() }
    }

    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    pub fn store(&self) -> Store {
        Store::in_cache(&self.home.path().join("cache"))
    }

    pub fn lock_path(&self) -> PathBuf {
        self.home.path().join(LOCK)
    }

    /// From now on trusts `key` with `pattern`, and nobody else.
    pub fn trusts(&mut self, pattern: &str, key: &SecretKey) {
        let path = self.home.path().join("trust.toml");
        let key = key.public();
        std::fs::write(
            &path,
            format!("[[publishers]]\nname-patterns = [\"{pattern}\"]\nkeys = [\"{key}\"]\n"),
        )
        .unwrap();
        self.trust.add(&path).unwrap();
    }

    pub fn resolver(&self, mode: Mode) -> Resolver {
        Resolver {
            store: self.store(),
            trust: self.trust.clone(),
            lock_path: self.lock_path(),
            base: self.home.path().to_path_buf(),
            mode,
        }
    }

    /// What a run does with `[plugins."<name>"]`, the lock file included.
    pub fn run(&self, mode: Mode, name: &str, version: &str, source: &str) -> Result<Resolution> {
        let resolution =
            fthost_registry::resolve(&self.resolver(mode), &[wanted(name, version, source)], &[])?;
        if mode == Mode::Keep {
            resolution.save()?;
        }
        Ok(resolution)
    }

    /// The message of a run that is refused, folders and keys left out.
    pub fn refused(&self, mode: Mode, name: &str, version: &str, source: &str) -> String {
        let error = self.run(mode, name, version, source).expect_err("it was not refused");
        self.told(&error.to_string())
    }

    /// `text` without what differs from run to run.
    pub fn told(&self, text: &str) -> String {
        let mut text = text.replace(&self.home.path().display().to_string(), "HOME");
        for (start, length, short) in [("sha256:", 64, "sha256:DIGEST"), ("ed25519:", 44, "ed25519:KEY")] {
            let mut at = 0;
            while let Some(found) = text[at..].find(start) {
                let begins = at + found;
                let ends = (begins + start.len() + length).min(text.len());
                text.replace_range(begins..ends, short);
                at = begins + short.len();
            }
        }
        text
    }
}

pub fn wanted(name: &str, version: &str, source: &str) -> Wanted {
    Wanted {
        name: name.to_string(),
        version: Some(version.to_string()),
        source: Some(source.to_string()),
        component: None,
    }
}

/// Publishes, signed where there is a key.
pub fn publish(place: &str, package: &Package, key: Option<&SecretKey>, force: bool) -> Result<String> {
    let envelope = key.map(|it| Envelope::sign(package, it, None));
    Place::parse(place, Path::new(""))?.push(package, envelope.as_ref(), force)
}

/// Where a registry keeps the tags of a repository.
pub fn tags(registry: &Registry, repository: &str) -> PathBuf {
    registry.storage().join("repositories").join(repository).join("_manifests/tags")
}

/// Lets `tag` of `repository` mean what `other` means, as whoever can push can.
pub fn move_tag(registry: &Registry, repository: &str, tag: &str, other: &str) {
    let link = |tag: &str| tags(registry, repository).join(tag).join("current/link");
    std::fs::copy(link(other), link(tag)).unwrap();
}
