//! Packages behind a run's plugins: which files are loaded, and who signed them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_registry::{LOCK, Lock, Mode, Resolution, Resolved, Resolver, Sets, Store, TrustPolicy, Wanted};
use fthost_sandbox::{GrantedFile, PluginTable, SearchPath};

use crate::error::Result;
use crate::place::cache_dir;

/// What stands around a run file: pulled packages, trust, the lock file.
#[derive(Debug, Clone)]
pub struct Packages {
    store: Store,
    trust: TrustPolicy,
    lock: Option<Lock>,
    /// The run file's folder.
    folder: PathBuf,
}

/// A run's plugins, each with the file that is to be loaded.
#[derive(Debug, Clone, Default)]
pub struct Loadable {
    /// The run file's table; `component`, `digest` and the package's resources are filled in.
    pub table: PluginTable,
    /// Keys that signed the packages, by plugin; a plugin that nobody signed is not in it.
    pub signers: BTreeMap<String, String>,
}

impl Packages {
    /// Around a run file in `folder`.
    ///
    /// # Errors
    /// A trust policy or a lock file that can't be used.
    pub fn around(folder: &Path) -> Result<Self> {
        Ok(Self {
            store: Store::in_cache(&cache_dir()),
            trust: TrustPolicy::from_environment(folder)?,
            lock: Lock::read(&folder.join(LOCK))?,
            folder: folder.to_path_buf(),
        })
    }

    /// The sets on `search` and among the pulled packages.
    pub fn sets<'a>(&'a self, search: &'a SearchPath) -> Sets<'a> {
        Sets::on(search).with_pulled(&self.store, &self.trust, self.lock.as_ref())
    }

    /// The files of `table`'s plugins. `plugin_sets` are those that the table came from; with `locked` nothing but what the
    /// lock file pins is taken, without it the lock file is written where it says something new.
    ///
    /// # Errors
    /// As [`fthost_registry::resolve`]; a plugin that is not on the search path either.
    pub fn resolve(
        &self,
        table: &PluginTable,
        plugin_sets: &[String],
        search: &SearchPath,
        locked: bool,
    ) -> Result<Loadable> {
        let mode = if locked { Mode::Locked } else { Mode::Keep };
        let resolution = self.resolution(table, plugin_sets, search, mode)?;
        if !locked {
            resolution.save()?;
        }
        Ok(loadable(table, &resolution.plugins))
    }

    /// As [`Packages::resolve`], of plugins that are not the run file's: the lock file is heeded, not written.
    ///
    /// # Errors
    /// As there.
    pub fn look_up(
        &self,
        table: &PluginTable,
        plugin_sets: &[String],
        search: &SearchPath,
    ) -> Result<Loadable> {
        let resolution = self.resolution(table, plugin_sets, search, Mode::Keep)?;
        Ok(loadable(table, &resolution.plugins))
    }

    fn resolution(
        &self,
        table: &PluginTable,
        plugin_sets: &[String],
        search: &SearchPath,
        mode: Mode,
    ) -> Result<Resolution> {
        let sets = self.sets(search);
        for name in plugin_sets {
            sets.document(name)?;
        }
        let mut wanted = Vec::new();
        for (name, config) in &table.0 {
            let packaged = config.source.is_some();
            let component = if packaged { None } else { self.own(search, name, config)? };
            wanted.push(Wanted {
                name: name.clone(),
                version: config.version.clone(),
                source: config.source.clone(),
                component,
            });
        }
        let resolver = Resolver {
            store: self.store.clone(),
            trust: self.trust.clone(),
            lock_path: self.folder.join(LOCK),
            base: self.folder.clone(),
            mode,
        };
        Ok(fthost_registry::resolve(&resolver, &wanted, &sets.used())?)
    }

    /// The component on the search path. One that is not there may be a pulled package, where there is one of its name.
    fn own(
        &self,
        search: &SearchPath,
        name: &str,
        config: &fthost_sandbox::PluginConfig,
    ) -> Result<Option<PathBuf>> {
        match search.component(name, config) {
            Ok(path) => Ok(Some(path)),
            Err(missing) => {
                let pulled =
                    name.parse().ok().map(|it| self.store.newest(&it, &fthost_registry::VersionReq::STAR));
                match pulled.transpose()?.flatten() {
                    Some(_) => Ok(None),
                    None if self.lock.as_ref().and_then(|it| it.plugin(name)).is_some() => Ok(None),
                    None => Err(missing.into()),
                }
            }
        }
    }
}

fn loadable(table: &PluginTable, resolved: &[Resolved]) -> Loadable {
    let mut loadable = Loadable { table: table.clone(), signers: BTreeMap::new() };
    for ((_, config), found) in loadable.table.0.iter_mut().zip(resolved) {
        config.component = Some(found.component.clone());
        // What the run file pins itself stays pinned; the bytes that were checked are the bytes that are loaded.
        config.digest.get_or_insert_with(|| found.digest.clone());
        for (name, (file, digest)) in &found.resources {
            let file = GrantedFile { file: file.clone(), digest: digest.clone() };
            config.grants.resources.entry(name.clone()).or_insert(file);
        }
        if let Some(key) = &found.pin.signer {
            loadable.signers.insert(found.name.clone(), key.to_string());
        }
    }
    loadable
}
