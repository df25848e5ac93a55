//! Plugin sets: what a set file may say, and sets that extend sets.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use fthost_sandbox::{PluginTable, SearchPath};
use semver::{Version, VersionReq};
use serde::Deserialize;
use toml::{Table, Value};

use crate::error::{RegistryError, Result, io};
use crate::lockfile::{Lock, Pin};
use crate::manifest::sound_version;
use crate::name::PackageName;
use crate::place::Place;
use crate::resolve::{Mode, Resolver};
use crate::store::{Store, Stored};
use crate::trust::TrustPolicy;

/// Its name in a package.
pub const SET: &str = "set.toml";

/// Sets above one another at most.
const DEEPEST: usize = 16;

/// What a set says of itself, beside `[plugins]` and `[rewards]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetHead {
    /// The package's name, where the set is published.
    pub name: Option<PackageName>,
    /// The package's version, where the set is published.
    pub version: Option<Version>,
    /// One sentence; for `plugin list`.
    pub summary: String,
    /// Sets below this one, by name or file, a later one over an earlier one.
    pub extends: Vec<String>,
}

/// A set file's two halves.
struct SetFile {
    head: SetHead,
    /// `plugins` and `rewards`, as they are laid over one another.
    tables: Table,
}

impl SetFile {
    fn parse(text: &str) -> std::result::Result<Self, Vec<String>> {
        let all = |error: toml::de::Error| vec![error.to_string().trim_end().to_string()];
        let mut table: Table = text.parse().map_err(all)?;
        let mut tables = Table::new();
        for key in ["plugins", "rewards"] {
            match table.remove(key) {
                Some(Value::Table(inner)) => {
                    tables.insert(key.to_string(), Value::Table(inner));
                }
                Some(_) => return Err(vec![format!("`{key}` must be a table")]),
                None => {}
            }
        }
        let head: SetHead = Value::Table(table).try_into().map_err(|error: toml::de::Error| {
            let message = error.message().trim_end().to_string();
            vec![message.replace(
                "`name`, `version`, `summary`, `extends`",
                "`name`, `version`, `summary`, `extends`, `plugins`, `rewards`",
            )]
        })?;
        // Read once more from the text, where lines are the set's own.
        #[derive(Deserialize)]
        struct Plugins {
            #[serde(default, rename = "plugins")]
            _plugins: PluginTable,
        }
        toml::from_str::<Plugins>(text).map_err(all)?;
        Ok(Self { head, tables })
    }
}

impl SetHead {
    /// Name and version of a set that is to be, or was, published.
    pub(crate) fn of_package(text: &str, place: &str) -> Result<(PackageName, Version)> {
        let path = || PathBuf::from(place);
        let set = SetFile::parse(text).map_err(|problems| RegistryError::Set { path: path(), problems })?;
        let mut problems = Vec::new();
        for (name, plugin) in set.plugins() {
            if plugin.get("component").is_some() {
                problems.push(format!(
                    "`plugins.{name}.component` is a file of one machine; give `source` in its place"
                ));
            }
        }
        problems.extend(
            set.head
                .extends
                .iter()
                .filter(|it| is_file(it))
                .map(|it| format!("`extends` names the file `{it}`; a published set names others by `name`")),
        );
        problems.extend(set.head.version.as_ref().and_then(|it| sound_version(it).err()));
        match (set.head.name, set.head.version) {
            (Some(name), Some(version)) if problems.is_empty() => Ok((name, version)),
            (name, version) => {
                problems
                    .extend(name.is_none().then(|| "`name` is missing: a published set has one".to_string()));
                problems.extend(
                    version.is_none().then(|| "`version` is missing: a published set has one".to_string()),
                );
                Err(RegistryError::Set { path: path(), problems })
            }
        }
    }

    /// What the set in `text` says of itself; nothing where it can't be read.
    pub(crate) fn summary(text: &[u8]) -> String {
        let text = String::from_utf8_lossy(text);
        SetFile::parse(&text).map(|it| it.head.summary).unwrap_or_default()
    }
}

impl SetFile {
    fn plugins(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.tables.get("plugins").and_then(Value::as_table).into_iter().flatten()
    }

    /// Paths become absolute: they are the set's own, wherever it is laid over something.
    fn root_paths(&mut self, folder: &Path) {
        let root = |value: &mut Value| {
            if let Value::String(path) = value {
                *path = folder.join(&*path).to_string_lossy().into_owned();
            }
        };
        let plugins = self.tables.get_mut("plugins").and_then(Value::as_table_mut);
        for (_, plugin) in plugins.into_iter().flatten() {
            plugin.get_mut("component").into_iter().for_each(root);
            let is_folder = |it: &&mut Value| it.as_str().is_some_and(|it| !it.contains("://"));
            plugin.get_mut("source").filter(is_folder).into_iter().for_each(root);
            let resources = plugin.get_mut("grants").and_then(|it| it.get_mut("resources"));
            for (_, granted) in resources.and_then(Value::as_table_mut).into_iter().flatten() {
                granted.get_mut("file").into_iter().for_each(root);
            }
        }
    }
}

fn is_file(name: &str) -> bool {
    name.ends_with(".toml")
}

/// Lays `above` over `below`: tables join, anything else is replaced. What is new comes last.
pub(crate) fn lay_over(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Set { path: PathBuf::from(name), problems: vec![error.to_string().trim_end().to_string()] }
}

/// Where sets are found: on the search path, and among the pulled packages.
pub struct Sets<'a> {
    search: &'a SearchPath,
    pulled: Option<(&'a Store, &'a TrustPolicy)>,
    lock: Option<&'a Lock>,
    used: RefCell<Vec<Pin>>,
}

impl<'a> Sets<'a> {
    /// Sets on the search path alone.
    pub fn on(search: &'a SearchPath) -> Self {
        Self { search, pulled: None, lock: None, used: RefCell::default() }
    }

    /// And pulled ones, as `trust` allows; what `lock` pins is taken as pinned.
    pub fn with_pulled(mut self, store: &'a Store, trust: &'a TrustPolicy, lock: Option<&'a Lock>) -> Self {
        (self.pulled, self.lock) = (Some((store, trust)), lock);
        self
    }

    /// The pulled sets that documents were made of, for the lock file.
    pub fn used(&self) -> Vec<Pin> {
        self.used.borrow().clone()
    }

    /// The plugins of a set and of the sets that it extends, as a document of `[plugins]` tables (and `[rewards]`, where
    /// there is one) with absolute paths, for a run file to be laid over.
    ///
    /// # Errors
    /// A set that is not found, can't be understood, or extends itself.
    pub fn document(&self, name: &str) -> Result<String> {
        let tables = self.load(name, None, &mut Vec::new())?;
        toml::to_string(&tables).map_err(|error| unreadable(name, &error))
    }

    /// The plugins of [`Sets::document`], as they stand without a run file over them.
    ///
    /// # Errors
    /// As there.
    pub fn plugins(&self, name: &str) -> Result<PluginTable> {
        let mut tables = self.load(name, None, &mut Vec::new())?;
        let plugins = tables.remove("plugins").unwrap_or_else(|| Value::Table(Table::new()));
        plugins.try_into().map_err(|error: toml::de::Error| unreadable(name, &error))
    }

    /// One sentence that a set says of itself.
    ///
    /// # Errors
    /// A set that can't be understood.
    pub fn summary(path: &Path) -> Result<String> {
        let text = std::fs::read_to_string(path).map_err(io("read", path))?;
        let set = SetFile::parse(&text);
        set.map(|it| it.head.summary)
            .map_err(|problems| RegistryError::Set { path: path.to_path_buf(), problems })
    }

    fn load(&self, name: &str, beside: Option<&Path>, above: &mut Vec<PathBuf>) -> Result<Table> {
        let path = self.find(name, beside)?;
        let path = std::path::absolute(&path).map_err(io("read", &path))?;
        let refuse = |problems: Vec<String>| RegistryError::Set { path: path.clone(), problems };
        let known = std::fs::canonicalize(&path).map_err(io("read", &path))?;
        if above.contains(&known) || above.len() >= DEEPEST {
            let chain: Vec<String> =
                above.iter().chain([&known]).map(|it| format!("`{}`", it.display())).collect();
            let what = if above.contains(&known) { "extends itself" } else { "extends too many sets" };
            return Err(refuse(vec![format!("it {what}: {}", chain.join(" -> "))]));
        }
        let text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
        let mut set = SetFile::parse(&text).map_err(refuse)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        set.root_paths(folder);
        above.push(known);
        let mut tables = Table::new();
        for name in &set.head.extends {
            lay_over(&mut tables, self.load(name, Some(folder), above)?);
        }
        above.pop();
        lay_over(&mut tables, set.tables);
        Ok(tables)
    }

    /// A set among the pulled packages; a pinned one that is not there any more is pulled again.
    fn pulled(&self, name: &PackageName, requirement: &VersionReq) -> Result<Option<Stored>> {
        let Some((store, trust)) = self.pulled else { return Ok(None) };
        let pin = self.lock.and_then(|it| it.set(name.as_str())).filter(|it| it.satisfies(requirement));
        let found = match pin.and_then(|it| it.package.as_deref()) {
            Some(digest) => store.get(digest)?,
            None => store.newest(name, requirement)?,
        };
        let pinned =
            pin.and_then(|it| Some((it.source.as_ref()?, it.version.as_ref()?, it.package.as_deref()?)));
        let found = match (found, pinned) {
            (None, Some((source, version, digest))) => {
                let resolver = Resolver {
                    store: store.clone(),
                    trust: trust.clone(),
                    lock_path: PathBuf::new(),
                    base: PathBuf::new(),
                    mode: Mode::Locked,
                };
                let place = Place::parse(source, Path::new(""))?;
                Some(resolver.pull(&place, source, name, version, Some(digest))?)
            }
            (found, _) => found,
        };
        let Some(found) = found.filter(|it| it.package.name == *name) else { return Ok(None) };
        let signers = trust.check(&found.package, found.envelope.as_ref())?;
        let pin = Pin::of(&found.package, &found.source, &signers);
        let mut used = self.used.borrow_mut();
        if !used.contains(&pin) {
            used.push(pin);
        }
        Ok(Some(found))
    }

    /// A file by its path, a name on the search path, then a name (`team/set`, `team/set@^1`) among pulled packages.
    fn find(&self, name: &str, beside: Option<&Path>) -> Result<PathBuf> {
        if is_file(name) {
            return Ok(beside.unwrap_or(Path::new("")).join(name));
        }
        let missing = match self.search.set(name) {
            Ok(path) => return Ok(path),
            Err(missing) => missing,
        };
        let (plain, requirement) = name.split_once('@').unwrap_or((name, "*"));
        let names = plain.parse::<PackageName>().ok().zip(VersionReq::parse(requirement).ok());
        if let Some((name, requirement)) = names
            && let Some(found) = self.pulled(&name, &requirement)?
        {
            return Ok(found.folder().join(SET));
        }
        Err(missing.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(files: &[(&str, &str)]) -> (tempfile::TempDir, SearchPath) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sets")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join("sets").join(name), text).unwrap();
        }
        let search = SearchPath(vec![folder.path().to_path_buf()]);
        (folder, search)
    }

    fn document(search: &SearchPath, name: &str) -> std::result::Result<Table, String> {
        Sets::on(search).document(name).map(|it| it.parse().unwrap()).map_err(|it| it.to_string())
    }

    #[test]
    fn the_nearer_set_wins_key_by_key() {
        let (_folder, search) = sets(&[
            ("base.toml", "[plugins.b.config]\nx = 1\ny = 1\n[plugins.a]\n[rewards]\ncombine = \"sum\"\n"),
            ("other.toml", "[plugins.b.config]\ny = 2\nz = 2\n"),
            ("top.toml", "extends = [\"base\", \"other.toml\"]\n[plugins.b.config]\nz = 3\n[plugins.c]\n"),
        ]);
        let set = document(&search, "top").unwrap();
        let names: Vec<&String> = set["plugins"].as_table().unwrap().keys().collect();
        assert_eq!(names, ["b", "a", "c"]);
        let config = &set["plugins"]["b"]["config"];
        let value = |key: &str| config[key].as_integer().unwrap();
        assert_eq!((value("x"), value("y"), value("z")), (1, 2, 3));
        assert_eq!(set["rewards"]["combine"].as_str(), Some("sum"));
    }

    #[test]
    fn a_set_that_extends_itself_is_refused_with_the_way_round() {
        let (folder, search) = sets(&[
            ("a.toml", "extends = [\"b\"]\n"),
            ("b.toml", "extends = [\"a\"]\n"),
            ("c.toml", "extends = [\"d\"]"),
        ]);
        let folder = folder.path().canonicalize().unwrap();
        let error = document(&search, "a").unwrap_err().replace(&folder.display().to_string(), "");
        assert_eq!(
            error.lines().nth(1),
            Some("  it extends itself: `/sets/a.toml` -> `/sets/b.toml` -> `/sets/a.toml`")
        );
        let error = document(&search, "c").unwrap_err();
        assert!(error.starts_with("plugin set `d` was not found; looked for `"), "{error}");
    }

    #[test]
    fn two_ways_to_one_set_are_no_circle() {
        let (_folder, search) = sets(&[
            ("base.toml", "[plugins.a]\n"),
            ("left.toml", "extends = [\"base\"]\n"),
            ("top.toml", "extends = [\"left\", \"base\"]\n"),
        ]);
        assert!(document(&search, "top").is_ok());
    }

    #[test]
    fn paths_are_the_sets_own_and_addresses_stay() {
        let (folder, search) = sets(&[("a.toml", "[plugins.a]\ncomponent = \"../x/a.wasm\"\n")]);
        let set = document(&search, "a").unwrap();
        assert_eq!(
            set["plugins"]["a"]["component"].as_str(),
            folder.path().join("sets/../x/a.wasm").to_str()
        );
    }

    #[test]
    fn what_is_wrong_with_a_set_is_told_with_its_key() {
        let (_folder, search) =
            sets(&[("a.toml", "sumary = \"x\"\n"), ("b.toml", "[plugins.x]\ncofig = {}\n")]);
        let error = document(&search, "a").unwrap_err();
        assert!(error.ends_with("unknown field `sumary`, expected one of `name`, `version`, `summary`, `extends`, `plugins`, `rewards`"), "{error}");
        assert!(document(&search, "b").unwrap_err().contains("line 2"), "no line");
    }

    #[test]
    fn a_published_set_stands_on_nothing_of_one_machine() {
        let text = "extends = [\"../x.toml\"]\n[plugins.a]\ncomponent = \"a.wasm\"\n";
        insta::assert_snapshot!(SetHead::of_package(text, "sets/a.toml").unwrap_err().to_string(), @r"
        invalid plugin set `sets/a.toml`
          `plugins.a.component` is a file of one machine; give `source` in its place
          `extends` names the file `../x.toml`; a published set names others by `name`
          `name` is missing: a published set has one
          `version` is missing: a published set has one
        ");
    }
}
