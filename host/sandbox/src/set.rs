//! Which plugins a run uses: `[plugins.<name>]` of a run file, plugin sets, and where components are found.

use std::fmt;
use std::path::{Path, PathBuf};

use fthost_data::{OnFailure, RewardTerm};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::component::RoleKind;
use crate::error::{Result, SandboxError};
use crate::grants::Grants;
use crate::limits::Limits;

/// Instances of a plugin at one time: each takes memory of its own.
const MOST_WORKERS: usize = 64;

/// `[plugins.<name>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginConfig {
    /// The component's file; by default `<name>.wasm` on the search path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<PathBuf>,
    /// `sha256:<hex>`: another component is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Versions that will do, as in `^0.1`; by default any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where packages of this name come from (`oci://host/repository`, `file:///folder`, a folder); by default the search
    /// path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The roles it plays; by default all that it exports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<RoleKind>>,
    /// What the plugin itself is told.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// What it may use up.
    pub limits: Limits,
    /// What it may ask of the host.
    pub grants: Grants,
    /// Instances that score at the same time. The other roles keep state between calls and have one.
    pub workers: usize,
    /// Completions a call of a reward: as many whole groups as reach it.
    pub batch: usize,
    /// What follows a failure of a reward or an evaluator.
    pub on_failure: OnFailure,
    /// A reward's part in the sum of all.
    pub reward: RewardTerm,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            component: None,
            digest: None,
            version: None,
            source: None,
            roles: None,
            config: serde_json::Map::new(),
            limits: Limits::default(),
            grants: Grants::default(),
            workers: 1,
            batch: 256,
            on_failure: OnFailure::default(),
            reward: RewardTerm::default(),
        }
    }
}

impl PluginConfig {
    /// Every impossible value, each with its key below `plugins.<name>`.
    pub fn problems(&self) -> Vec<String> {
        let below = |key: &str, it: &String| it.replacen('`', &format!("`{key}."), 1);
        let mut problems: Vec<String> = self.limits.problems().iter().map(|it| below("limits", it)).collect();
        problems.extend(self.reward.problems().iter().map(|it| below("reward", it)));
        if !(1..=MOST_WORKERS).contains(&self.workers) {
            problems.push(format!("`workers` must be in [1, {MOST_WORKERS}], got `{}`", self.workers));
        }
        if self.batch == 0 {
            problems.push("`batch` must be > 0, got `0`".to_string());
        }
        problems
    }
}

/// `[plugins]`: plugins by name, in the file's order, which is the order in which augmenters are applied.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PluginTable(pub Vec<(String, PluginConfig)>);

impl PluginTable {
    /// Puts a plugin in, in the place of one of the same name.
    pub fn put(&mut self, name: String, config: PluginConfig) {
        match self.0.iter_mut().find(|it| it.0 == name) {
            Some(found) => found.1 = config,
            None => self.0.push((name, config)),
        }
    }
}

impl Serialize for PluginTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, config)| (name, config)))
    }
}

impl<'de> Deserialize<'de> for PluginTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = PluginTable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of plugins by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<PluginTable, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(PluginTable(all))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Files by the name under which they are found.
pub type Named = Vec<(String, PathBuf)>;

/// Folders that hold components (`<name>.wasm`, `dist/<name>.wasm`) and sets (`sets/<name>.toml`), in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchPath(pub Vec<PathBuf>);

impl SearchPath {
    /// `FTHOST_PLUGIN_PATH`, then the `plugins` folders of `start` and of the folders above it, then that of the current
    /// folder.
    pub fn from_environment(start: &Path) -> Self {
        let listed = std::env::var_os("FTHOST_PLUGIN_PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> =
            std::env::split_paths(&listed).filter(|it| !it.as_os_str().is_empty()).collect();
        let start = std::path::absolute(start).unwrap_or_else(|_| start.to_path_buf());
        let here = std::env::current_dir().unwrap_or_default();
        let above = start.ancestors().map(Path::to_path_buf).chain([here]);
        for folder in above.map(|it| it.join("plugins")).filter(|it| it.is_dir()) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        Self(folders)
    }

    fn find(&self, kind: &'static str, name: &str, places: &[String]) -> Result<PathBuf> {
        let looked: Vec<PathBuf> =
            self.0.iter().flat_map(|folder| places.iter().map(|it| folder.join(it))).collect();
        looked.iter().find(|it| it.is_file()).cloned().ok_or_else(|| SandboxError::NotFound {
            kind,
            name: name.to_string(),
            looked: match looked.is_empty() {
                true => vec!["nowhere: there is no `plugins` folder, and FTHOST_PLUGIN_PATH is empty".into()],
                false => looked.iter().map(|it| format!("`{}`", it.display())).collect(),
            },
        })
    }

    /// The component of a plugin.
    ///
    /// # Errors
    /// [`SandboxError::NotFound`] with every place looked at.
    pub fn component(&self, name: &str, config: &PluginConfig) -> Result<PathBuf> {
        match &config.component {
            Some(path) => Ok(path.clone()),
            None => self.find("plugin", name, &[format!("dist/{name}.wasm"), format!("{name}.wasm")]),
        }
    }

    /// The file of a plugin set.
    ///
    /// # Errors
    /// [`SandboxError::NotFound`] with every place looked at.
    pub fn set(&self, name: &str) -> Result<PathBuf> {
        self.find("plugin set", name, &[format!("sets/{name}.toml")])
    }

    /// Names of all components and sets on the path, sorted.
    pub fn list(&self) -> (Named, Named) {
        let files = |folder: PathBuf, extension: &'static str| {
            std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(move |entry| {
                let path = entry.path();
                let matches = path.extension().is_some_and(|it| it == extension);
                matches.then(|| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path))
            })
        };
        let (mut components, mut sets) = (Vec::new(), Vec::new());
        for folder in &self.0 {
            components.extend(files(folder.join("dist"), "wasm"));
            components.extend(files(folder.clone(), "wasm"));
            sets.extend(files(folder.join("sets"), "toml"));
        }
        // The first of a name is the one that is found.
        for all in [&mut components, &mut sets] {
            let mut seen = std::collections::BTreeSet::new();
            all.retain(|(name, _)| seen.insert(name.clone()));
            all.sort();
        }
        (components, sets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_keep_the_order_of_the_file() {
        let text = "[zeta]\n[alpha.limits]\nfuel = 7\n[middle]\nconfig = { key = 1 }\n";
        let table: PluginTable = toml::from_str(text).unwrap();
        let names: Vec<&str> = table.0.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(names, ["zeta", "alpha", "middle"]);
        assert_eq!(table.0[1].1.limits.fuel, Some(7));
        assert_eq!(table.0[2].1.config["key"], 1);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = toml::from_str::<PluginTable>("[a]\n[a.limits]\nfule = 7\n").unwrap_err().to_string();
        insta::assert_snapshot!(error, @r"
        TOML parse error at line 3, column 1
          |
        3 | fule = 7
          | ^^^^
        unknown field `fule`, expected one of `memory_bytes`, `deadline_ms`, `fuel`, `output_bytes`, `log_bytes`, `host_calls`, `stack_bytes`, `table_elements`, `instances`
        ");
    }

    #[test]
    fn a_set_is_found_by_name_or_every_place_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sets")).unwrap();
        std::fs::write(folder.path().join("sets/a.toml"), "").unwrap();
        let path = SearchPath(vec![folder.path().to_path_buf()]);
        assert_eq!(path.set("a").unwrap(), folder.path().join("sets/a.toml"));
        let error = path.set("c").unwrap_err().to_string();
        assert!(error.starts_with("plugin set `c` was not found; looked for `"), "{error}");
    }
}
