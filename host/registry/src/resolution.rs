//! What resolution comes to, and what it changes in the lock file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::Result;
use crate::key::PublicKey;
use crate::lockfile::{Lock, Pin};

/// A plugin that may be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The key of its table.
    pub name: String,
    /// The component's file.
    pub component: PathBuf,
    /// `sha256:<hex>` of the component: load no other bytes.
    pub digest: String,
    /// The package's files that the plugin reads: file and `sha256:<hex>`, by the name under which it asks.
    pub resources: BTreeMap<String, (PathBuf, String)>,
    /// As pinned: version, package and source are absent where the component is in no package.
    pub pin: Pin,
    /// Everybody who signed the package.
    pub signers: Vec<PublicKey>,
}

/// Every plugin, and the lock file that says so.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// In the order in which they were asked for.
    pub plugins: Vec<Resolved>,
    /// What the lock file should say now.
    pub lock: Lock,
    pub(crate) before: Option<Lock>,
    pub(crate) path: PathBuf,
}

impl Resolution {
    /// What differs from the lock file on disk, a line each; nothing where nothing does.
    pub fn changes(&self) -> Vec<String> {
        let empty = Lock::default();
        let before = self.before.as_ref().unwrap_or(&empty);
        let mut lines = changes("", &before.plugins, &self.lock.plugins);
        lines.extend(changes("set ", &before.sets, &self.lock.sets));
        lines
    }

    /// Writes the lock file where it says something new and either is there or pins a package: a run with components of
    /// its own folders alone leaves nothing behind. Whether it was written.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self) -> Result<bool> {
        let packaged = self.lock.plugins.iter().chain(&self.lock.sets).any(|it| it.package.is_some());
        if self.changes().is_empty() || !(packaged || self.before.is_some()) {
            return Ok(false);
        }
        self.save_all()
    }

    /// Writes the lock file in any case, for `plugin update`.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save_all(&self) -> Result<bool> {
        self.lock.write(&self.path)?;
        Ok(true)
    }
}

fn changes(what: &str, before: &[Pin], now: &[Pin]) -> Vec<String> {
    let version = |it: &Pin| it.version.as_ref().map_or("(no package)".to_string(), ToString::to_string);
    let short = |it: &Pin| {
        let digest = it.package.as_ref().or(it.component.as_ref()).map_or("", |it| it);
        digest.get(..19).unwrap_or(digest).to_string()
    };
    let mut lines = Vec::new();
    for pin in now {
        match before.iter().find(|it| it.name == pin.name) {
            None => lines.push(format!("+ {what}{} {} {}", pin.name, version(pin), short(pin))),
            Some(old) if old == pin => {}
            Some(old) => lines.push(format!(
                "~ {what}{} {} {} -> {} {}",
                pin.name,
                version(old),
                short(old),
                version(pin),
                short(pin)
            )),
        }
    }
    let gone = before.iter().filter(|old| now.iter().all(|it| it.name != old.name));
    lines.extend(gone.map(|it| format!("- {what}{} {}", it.name, version(it))));
    lines
}
