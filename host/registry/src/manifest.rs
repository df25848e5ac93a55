//! `plugin.toml`: what a package says of itself.

use std::collections::BTreeMap;

use fthost_data::ModelName;
use fthost_sandbox::{GrantedModels, Limits, RoleKind};
use semver::Version;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::name::PackageName;

/// Its name in a package.
pub const MANIFEST: &str = "plugin.toml";

/// Contracts that a plugin may be written for, as `<major>.<minor>`.
const CONTRACTS: [&str; 3] = ["0.1", "0.2", "1.0"];

const KEYS: [&str; 10] = [
    "name",
    "version",
    "roles",
    "license",
    "description",
    "contract",
    "component",
    "grants",
    "limits",
    "resources",
];

/// A manifest without a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The package's name.
    pub name: PackageName,
    /// Its version, without build metadata.
    pub version: Version,
    /// What the component can play; at least one, none twice.
    pub roles: Vec<RoleKind>,
    /// An SPDX expression.
    pub license: String,
    /// One line.
    pub description: String,
    /// The contract it is written for: `1.0`.
    pub contract: String,
    /// The component's file in the package; `<last part of name>.wasm` if absent.
    pub component: Option<String>,
    /// What it wants to be granted. A wish: the run file decides.
    pub grants: Wishes,
    /// The limits it wants, as `[plugins.<name>.limits]` would say it; only the keys that are given.
    pub limits: Table,
    /// Files of the package that the plugin reads, by the name under which it asks for them.
    pub resources: BTreeMap<String, String>,
}

/// `[grants]` of a manifest: the models that are to be asked, by kind of question.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    /// For completions.
    pub generate: GrantedModels,
    /// For log-probabilities.
    pub logprobs: GrantedModels,
    /// For embeddings.
    pub embed: GrantedModels,
}

/// `true` is the run's model.
#[derive(Deserialize)]
#[serde(untagged, expecting = "true, or a list of `run`, `reference` and `judges.<name>`")]
enum Wish {
    All(bool),
    Models(Vec<String>),
}

/// Takes keys out of a table and keeps what is wrong with them.
struct Reader {
    table: Table,
    problems: Vec<String>,
}

impl Reader {
    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.table.remove(key)?;
        match T::deserialize(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("`{key}`: {}", error.message()));
                None
            }
        }
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if !self.table.contains_key(key) {
            self.problems.push(format!("`{key}` is missing"));
        }
        self.optional(key)
    }

    /// Refuses what is not empty and does not satisfy `sound`.
    fn check<T>(&mut self, value: Option<T>, sound: impl FnOnce(&T) -> Result<(), String>) -> Option<T> {
        let value = value?;
        match sound(&value) {
            Ok(()) => Some(value),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What is no TOML, with its line; else every problem, each with its key.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let table: Table =
            text.parse().map_err(|error: toml::de::Error| vec![error.to_string().trim_end().to_string()])?;
        let mut reader = Reader { table, problems: Vec::new() };
        let name = reader.required("name");
        let version = reader.required("version");
        let version = reader.check(version, sound_version);
        let roles = reader.required("roles");
        let roles = reader.check(roles, |it: &Vec<RoleKind>| sound_roles(it));
        let license = reader.required("license");
        let license = reader.check(license, |it: &String| sound_license(it));
        let description = reader.required("description");
        let description = reader.check(description, |it: &String| sound_description(it));
        let contract = reader.required("contract");
        let contract = reader.check(contract, |it: &String| sound_contract(it));
        let component = reader.optional("component");
        let component = reader.check(component, |it: &String| sound_path("component", it));
        let grants = reader.optional::<Table>("grants").unwrap_or_default();
        let grants = Wishes::read(grants, &mut reader.problems);
        let limits = reader.optional::<Table>("limits").unwrap_or_default();
        reader.problems.extend(limit_problems(&limits));
        let resources = reader.optional::<BTreeMap<String, String>>("resources").unwrap_or_default();
        reader.problems.extend(resource_problems(&resources));
        for key in reader.table.keys() {
            let known: Vec<String> = KEYS.iter().map(|it| format!("`{it}`")).collect();
            reader.problems.push(format!("`{key}`: unknown key, expected one of {}", known.join(", ")));
        }
        let parts = (name, version, roles, license, description, contract);
        let (Some(name), Some(version), Some(roles), Some(license), Some(description), Some(contract)) =
            parts
        else {
            return Err(reader.problems);
        };
        if !reader.problems.is_empty() {
            return Err(reader.problems);
        }
        Ok(Self {
            name,
            version,
            roles,
            license,
            description,
            contract,
            component,
            grants,
            limits,
            resources,
        })
    }

    /// The limits it wants, the default ones where it says nothing.
    pub fn wanted_limits(&self) -> Limits {
        // Looked at when the manifest was read.
        Limits::deserialize(Value::Table(self.limits.clone())).unwrap_or_default()
    }

    /// Where the component stands in a package.
    pub fn component_path(&self) -> String {
        self.component.clone().unwrap_or_else(|| format!("{}.wasm", self.name.last()))
    }
}

impl Wishes {
    /// Whether any model is asked for anything.
    pub fn any(&self) -> bool {
        [&self.generate, &self.logprobs, &self.embed].iter().any(|it| !it.0.is_empty())
    }

    fn read(mut table: Table, problems: &mut Vec<String>) -> Self {
        let mut models = |key: &str| match table.remove(key).map(Wish::deserialize) {
            None | Some(Ok(Wish::All(false))) => GrantedModels::default(),
            Some(Ok(Wish::All(true))) => GrantedModels(vec![ModelName::Run]),
            Some(Ok(Wish::Models(models))) => {
                let mut known = Vec::new();
                for model in models {
                    match model.parse::<ModelName>() {
                        Ok(model) => known.push(model),
                        Err(problem) => problems.push(format!("`grants.{key}`: {problem}")),
                    }
                }
                GrantedModels(known)
            }
            Some(Err(error)) => {
                problems.push(format!("`grants.{key}`: {}", error.message()));
                GrantedModels::default()
            }
        };
        let wishes =
            Self { generate: models("generate"), logprobs: models("logprobs"), embed: models("embed") };
        for key in table.keys() {
            problems.push(format!(
                "`grants.{key}`: unknown key, expected one of `generate`, `logprobs`, `embed`"
            ));
        }
        wishes
    }
}

/// Two versions that differ in build metadata only would be one to whoever compares them, so there is none.
pub(crate) fn sound_version(version: &Version) -> Result<(), String> {
    match version.build.is_empty() {
        true => Ok(()),
        false => Err(format!("`version` must have no build metadata, got `{version}`")),
    }
}

fn sound_roles(roles: &[RoleKind]) -> Result<(), String> {
    let twice = roles.iter().enumerate().find(|(at, role)| roles[..*at].contains(role));
    match (roles.is_empty(), twice) {
        (true, _) => Err("`roles` must name at least one role".into()),
        (_, Some((_, role))) => Err(format!("`roles` names `{role}` twice")),
        _ => Ok(()),
    }
}

fn sound_license(license: &str) -> Result<(), String> {
    match spdx::Expression::parse(license) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("`license` must be an SPDX expression, got `{license}`: {}", error.reason)),
    }
}

fn sound_description(description: &str) -> Result<(), String> {
    let bad = description.trim().is_empty() || description.chars().any(char::is_control);
    let length = description.chars().count();
    match bad || length > 300 {
        true => Err(format!("`description` must be one line of 1 to 300 characters, got {length}")),
        false => Ok(()),
    }
}

fn sound_contract(contract: &str) -> Result<(), String> {
    match CONTRACTS.contains(&contract) {
        true => Ok(()),
        false => Err(format!(
            "`contract` must be one of {}, got `{contract}`",
            CONTRACTS.map(|it| format!("`{it}`")).join(", ")
        )),
    }
}

fn sound_path(key: &str, path: &str) -> Result<(), String> {
    match crate::package::is_sound_path(path) {
        true => Ok(()),
        false => Err(format!(
            "`{key}` must be a file inside the package, as in `resources/words.txt`, got `{path}`"
        )),
    }
}

/// Checked by the sandbox's own reader, so its keys are known here the day they are known there.
fn limit_problems(limits: &Table) -> Vec<String> {
    let mut limits = limits.clone();
    let mut problems = Vec::new();
    loop {
        match Limits::deserialize(Value::Table(limits.clone())) {
            Ok(read) => {
                let found = read.problems();
                problems.extend(found.iter().map(|it| it.replacen('`', "`limits.", 1)));
                return problems;
            }
            Err(error) => {
                // The first key alone that fails is the one that is meant.
                let alone = |it: &String| {
                    Limits::deserialize(Value::Table(Table::from_iter([(it.clone(), limits[it].clone())])))
                };
                let Some((key, error)) = limits.keys().find_map(|it| Some((it.clone(), alone(it).err()?)))
                else {
                    problems.push(format!("`limits`: {}", error.message()));
                    return problems;
                };
                problems.push(format!("`limits.{key}`: {}", error.message()));
                limits.remove(&key);
            }
        }
    }
}

fn resource_problems(resources: &BTreeMap<String, String>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, path) in resources {
        if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
            problems.push(format!(
                "`resources`: `{}` is no name: one line of 1 to 200 bytes",
                name.escape_debug()
            ));
        }
        problems.extend(sound_path(&format!("resources.\"{}\"", name.escape_debug()), path).err());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
name = "team/bleu"
version = "0.1.0"
roles = ["evaluator", "reward"]
license = "Apache-2.0 OR MIT"
description = "BLEU as sacrebleu computes it"
contract = "0.2"
[grants]
generate = ["run", "judges.strict"]
logprobs = true
[limits]
fuel = 5
[resources]
"words.txt" = "resources/words.txt"
"#;

    #[test]
    fn a_whole_manifest_is_read() {
        let manifest = Manifest::parse(WHOLE).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.version.to_string().as_str()), ("team/bleu", "0.1.0"));
        assert_eq!(manifest.roles, [RoleKind::Evaluator, RoleKind::Reward]);
        let judge = ModelName::Judge("strict".into());
        assert_eq!(manifest.grants.generate.0, [ModelName::Run, judge]);
        assert_eq!((&manifest.grants.logprobs.0, manifest.grants.embed.0.len()), (&vec![ModelName::Run], 0));
        assert_eq!(manifest.limits["fuel"].as_integer(), Some(5));
        assert_eq!(manifest.resources["words.txt"], "resources/words.txt");
        assert_eq!(manifest.component_path(), "bleu.wasm");
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_key() {
        let text = r#"
name = "Team/bleu"
version = "1.0"
roles = ["reward", "reward"]
license = "Apache 2"
contract = "9.1"
component = "../bleu.wasm"
licence = "MIT"
[grants]
generate = ["gpt"]
network = true
embed = "run"
[limits]
feul = 5
deadline_ms = 0
memory_bytes = "much"
[resources]
words = "/etc/passwd"
"#;
        insta::assert_snapshot!(Manifest::parse(text).unwrap_err().join("\n"), @r#"
        `name`: `Team/bleu` is no package's name: a name is `[a-z][a-z0-9-]*`, or two of those as in `team/bleu`
        `version`: unexpected end of input while parsing minor version number
        `roles` names `reward` twice
        `license` must be an SPDX expression, got `Apache 2`: unknown term
        `description` is missing
        `contract` must be one of `0.1`, `0.2`, `1.0`, got `9.1`
        `component` must be a file inside the package, as in `resources/words.txt`, got `../bleu.wasm`
        `grants.generate`: `gpt` is no model; known are `run`, `reference` and `judges.<name>`
        `grants.embed`: true, or a list of `run`, `reference` and `judges.<name>`
        `grants.network`: unknown key, expected one of `generate`, `logprobs`, `embed`
        `limits.feul`: unknown field `feul`, expected one of `memory_bytes`, `deadline_ms`, `fuel`, `output_bytes`, `log_bytes`, `host_calls`, `stack_bytes`, `table_elements`, `instances`
        `limits.memory_bytes`: invalid type: string "much", expected u64
        `limits.deadline_ms` must be > 0, got `0`
        `resources."words"` must be a file inside the package, as in `resources/words.txt`, got `/etc/passwd`
        `licence`: unknown key, expected one of `name`, `version`, `roles`, `license`, `description`, `contract`, `component`, `grants`, `limits`, `resources`
        "#);
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        insta::assert_snapshot!(Manifest::parse("name = \"a\"\nversion 1\n").unwrap_err().join("\n"), @r"
        TOML parse error at line 2, column 9
          |
        2 | version 1
          |         ^
        key with no value, expected `=`
        ");
    }

    #[test]
    fn build_metadata_is_refused() {
        let text = WHOLE.replace("\"0.1.0\"", "\"0.1.0+a\"");
        assert_eq!(
            Manifest::parse(&text).unwrap_err(),
            ["`version` must have no build metadata, got `0.1.0+a`"]
        );
    }
}
