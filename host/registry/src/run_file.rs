//! The plugins that a run file asks for, read without the rest of it.

use std::path::Path;

use fthost_sandbox::{PluginConfig, SearchPath};
use serde::Deserialize;
use toml::{Table, Value};

use crate::error::{RegistryError, Result, io};
use crate::resolve::Wanted;
use crate::set::{Sets, lay_over};

/// What of a run file is read here; the rest is for the run to judge.
#[derive(Deserialize)]
struct RunFile {
    #[serde(default)]
    plugin_sets: Vec<String>,
    #[serde(default)]
    plugins: Table,
}

/// What of `[plugins.<name>]` says which package is meant.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Meant {
    component: Option<std::path::PathBuf>,
    version: Option<String>,
    source: Option<String>,
}

/// The plugins of the run file at `path`, laid over its sets or, where there are any, over `instead`.
///
/// # Errors
/// A file that can't be read; sets that can't be used; keys of a wrong type.
pub fn wanted(path: &Path, sets: &Sets<'_>, search: &SearchPath, instead: &[String]) -> Result<Vec<Wanted>> {
    let text = std::fs::read_to_string(path).map_err(io("read", path))?;
    let refuse = |problem: String| RegistryError::Manifest {
        place: path.display().to_string(),
        problems: vec![problem.trim_end().to_string()],
    };
    let file: RunFile = toml::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let mut tables = Table::new();
    for name in if instead.is_empty() { &file.plugin_sets } else { instead } {
        let document: Table =
            sets.document(name)?.parse().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
        if let Some(Value::Table(plugins)) = document.get("plugins") {
            lay_over(&mut tables, plugins.clone());
        }
    }
    lay_over(&mut tables, file.plugins);
    let mut wanted = Vec::new();
    for (name, table) in tables {
        let meant: Meant = table
            .try_into()
            .map_err(|error: toml::de::Error| refuse(format!("`plugins.{name}`: {}", error.message())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let component = meant.component.map(|it| folder.join(it));
        let config = PluginConfig { component, ..PluginConfig::default() };
        let component = match (&meant.source, &config.component) {
            (Some(_), _) => None,
            // What the search path does not have may be among the pulled packages.
            (None, None) => search.component(&name, &config).ok(),
            (None, Some(component)) => Some(component.clone()),
        };
        wanted.push(Wanted { name, version: meant.version, source: meant.source, component });
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_file_stands_above_its_sets() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("plugins/sets")).unwrap();
        std::fs::write(
            at("plugins/sets/a.toml"),
            "[plugins.x]\nsource = \"/srv\"\nversion = \"^1\"\n[plugins.y]\n",
        )
        .unwrap();
        std::fs::write(at("plugins/y.wasm"), "").unwrap();
        std::fs::write(
            at("run.toml"),
            "plugin_sets = [\"a\"]\n[train]\nsteps = 1\n[plugins.x]\nversion = \"^2\"\n[plugins.z]\n",
        )
        .unwrap();
        let search = SearchPath(vec![at("plugins")]);
        let found = wanted(&at("run.toml"), &Sets::on(&search), &search, &[]).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|it| (it.name.as_str(), it.version.as_deref(), it.source.as_deref(), it.component.is_some()))
            .collect();
        assert_eq!(
            told,
            [("x", Some("^2"), Some("/srv"), false), ("y", None, None, true), ("z", None, None, false)]
        );
        let sets = ["b".to_string()];
        assert!(wanted(&at("run.toml"), &Sets::on(&search), &search, &sets).is_err());
    }
}
