//! A plugin's folder and its `plugin.toml`, as far as building and testing need them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_sandbox::{GrantedModels, RoleKind};
use serde::Deserialize;

use crate::error::{AuthorError, Result, io};

/// `plugin.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `short-answer`, or `team/short-answer`.
    pub name: String,
    /// Semantic version; the component's own.
    pub version: String,
    /// What it can play.
    pub roles: Vec<RoleKind>,
    /// SPDX expression.
    #[serde(default)]
    pub license: String,
    /// One sentence.
    pub description: String,
    /// The contract's `major.minor`.
    #[serde(default)]
    pub contract: Option<String>,
    /// The component's file, from the package's folder.
    #[serde(default)]
    pub component: Option<PathBuf>,
    /// What it wants to ask of the host.
    #[serde(default)]
    pub grants: Wanted,
    /// `[plugins.<name>.limits]` that it wants.
    #[serde(default)]
    pub limits: toml::Table,
    /// Files by the name under which the plugin reads them.
    #[serde(default)]
    pub resources: BTreeMap<String, PathBuf>,
}

/// `[grants]`: models by import, written `true` (the run's own) or as a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Models asked for completions.
    pub generate: GrantedModels,
    /// Models asked for log-probabilities.
    pub logprobs: GrantedModels,
    /// Models asked for vectors.
    pub embed: GrantedModels,
}

impl Wanted {
    /// Whether any model is asked for anything.
    pub fn any(&self) -> bool {
        [&self.generate, &self.logprobs, &self.embed].iter().any(|it| !it.0.is_empty())
    }
}

/// A plugin's folder.
#[derive(Debug, Clone)]
pub struct Package {
    /// The folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Package {
    /// Reads the package at `folder`.
    ///
    /// # Errors
    /// A folder without a manifest, and every problem of the manifest.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("plugin.toml");
        if !path.is_file() {
            return Err(AuthorError::NoPackage { folder: folder.to_path_buf() });
        }
        let text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
        let manifest: Manifest = toml::from_str(&text).map_err(|error| AuthorError::Manifest {
            path: path.clone(),
            problems: vec![error.to_string().trim_end().to_string()],
        })?;
        let problems = problems(&manifest, folder);
        if !problems.is_empty() {
            return Err(AuthorError::Manifest { path, problems });
        }
        Ok(Self { folder: folder.to_path_buf(), manifest })
    }

    /// The name without its publisher.
    pub fn short_name(&self) -> &str {
        self.manifest.name.rsplit('/').next().unwrap_or(&self.manifest.name)
    }

    /// Where the component is built to.
    pub fn component(&self) -> PathBuf {
        let named = self.manifest.component.clone();
        self.folder.join(named.unwrap_or_else(|| format!("{}.wasm", self.short_name()).into()))
    }

    /// The component that is there: [`Package::component`], or that of `plugins/build` in `dist` beside the package.
    ///
    /// # Errors
    /// [`AuthorError::NotBuilt`].
    pub fn built(&self) -> Result<PathBuf> {
        let own = self.component();
        let folder = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let dist = folder.parent().map(|it| it.join("dist").join(format!("{}.wasm", self.short_name())));
        let there = [Some(own.clone()), dist].into_iter().flatten().find(|it| it.is_file());
        there.ok_or_else(|| AuthorError::NotBuilt { folder: self.folder.clone(), component: own })
    }

    /// Files of `cases/*.jsonl`, by name.
    ///
    /// # Errors
    /// A folder that can't be read.
    pub fn case_files(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("cases");
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(&folder).map_err(io("read", &folder))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|it| it.path()).collect();
        files.retain(|it| it.extension().is_some_and(|it| it == "jsonl"));
        files.sort();
        Ok(files)
    }
}

/// What is wrong with `name`, as a plugin's name without publisher.
pub fn name_problem(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    if !first.is_ascii_lowercase() {
        return Some(format!("it begins with `{first}`"));
    }
    let odd = name.chars().find(|it| !(it.is_ascii_lowercase() || it.is_ascii_digit() || *it == '-'));
    match odd {
        Some(odd) => Some(format!("`{odd}` is not allowed")),
        None if name.ends_with('-') || name.contains("--") => Some("a `-` stands between words".into()),
        None if name.len() > 64 => Some("it is longer than 64 characters".into()),
        None => None,
    }
}

fn problems(manifest: &Manifest, folder: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    if manifest.name.is_empty() || manifest.name.split('/').count() > 2 {
        problems.push(format!("`name` must be a name, or publisher/name, got `{}`", manifest.name));
    }
    for part in manifest.name.split('/') {
        if let Some(problem) = name_problem(part) {
            problems.push(format!("`name`: `{part}` can't be a name: {problem}"));
        }
    }
    let numbers: Vec<&str> = manifest.version.splitn(3, '.').collect();
    let number = |it: &str| !it.is_empty() && it.chars().all(|it| it.is_ascii_digit());
    let patch = numbers.get(2).map(|it| it.split(['-', '+']).next().unwrap_or(""));
    if !(numbers.len() == 3 && number(numbers[0]) && number(numbers[1]) && patch.is_some_and(number)) {
        problems
            .push(format!("`version` must be a semantic version as in `0.1.0`, got `{}`", manifest.version));
    }
    if manifest.roles.is_empty() {
        problems.push("`roles` must name at least one of data-builder, augmenter, reward, evaluator".into());
    }
    for (name, file) in &manifest.resources {
        if !folder.join(file).is_file() {
            problems.push(format!("`resources.{name}`: there is no file `{}`", file.display()));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plugin.toml"), text).unwrap();
        match Package::open(folder.path()) {
            Ok(package) => package.short_name().to_string(),
            Err(error) => error.to_string().replace(&format!("{}/", folder.path().display()), ""),
        }
    }

    #[test]
    fn a_manifest_is_read_and_every_problem_is_told() {
        let good =
            "name = \"team/bleu\"\nversion = \"0.1.0\"\nroles = [\"evaluator\"]\ndescription = \"x\"\n";
        assert_eq!(opened(good), "bleu");
        let bad = "name = \"Bleu\"\nversion = \"1\"\nroles = []\ndescription = \"x\"\n\
                   [resources]\n\"a.txt\" = \"a.txt\"\n";
        insta::assert_snapshot!(opened(bad), @r"
        invalid `plugin.toml`
          `name`: `Bleu` can't be a name: it begins with `B`
          `version` must be a semantic version as in `0.1.0`, got `1`
          `roles` must name at least one of data-builder, augmenter, reward, evaluator
          `resources.a.txt`: there is no file `a.txt`
        ");
        insta::assert_snapshot!(opened(&format!("{good}rols = []\n")), @r"
        invalid `plugin.toml`
          TOML parse error at line 5, column 1
          |
        5 | rols = []
          | ^^^^
        unknown field `rols`, expected one of `name`, `version`, `roles`, `license`, `description`, `contract`, `component`, `grants`, `limits`, `resources`
        ");
        insta::assert_snapshot!(opened(&format!("{good}[grants]\ngenerate = [\"everyone\"]\n")), @r#"
        invalid `plugin.toml`
          TOML parse error at line 6, column 12
          |
        6 | generate = ["everyone"]
          |            ^^^^^^^^^^^^
        `everyone` is no model; known are `run`, `reference` and `judges.<name>`
        "#);
    }

    #[test]
    fn names_are_words_of_lower_case_letters_and_digits() {
        assert!(["a", "short-answer", "bleu4"].iter().all(|it| name_problem(it).is_none()));
        for bad in ["Bleu", "4bleu", "a_b", "a--b", "a-", "\u{e9}"] {
            assert!(name_problem(bad).is_some(), "{bad}");
        }
    }
}
