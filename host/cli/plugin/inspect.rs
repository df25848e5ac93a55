//! `fthost plugin inspect`: what a plugin says of itself, and who signed it.

use std::path::{Path, PathBuf};

use fthost_registry::{Envelope, MANIFEST, Package, PublicKey, RegistryError, Store, Stored, TrustPolicy};
use fthost_run::place::cache_dir;
use fthost_run::plugins::PluginReport;
use fthost_run::{PluginConfig, Result, SearchPath};
use serde_json::{Value, json};

use super::share::{listed, pulled, signature_of};

/// What is inspected.
enum Inspected {
    /// A component in no package.
    Component { name: String, path: PathBuf },
    /// A plugin's package, with its signature.
    Package { package: Package, envelope: Option<Envelope> },
}

/// Shows the plugin `given`: a component's file, a package's folder, a name on the search path, or a pulled package.
pub fn run(search: &SearchPath, given: &str, as_json: bool) -> Result<()> {
    let found = find(search, given)?;
    let report = found.report()?;
    let signers = found.signers()?;
    if as_json {
        let mut told = json!(report);
        told["signature"] =
            json!({"package": matches!(found, Inspected::Package { .. }), "signers": keys(&signers)});
        println!("{told:#}");
        return Ok(());
    }
    print(&report, given, &found, &signers);
    Ok(())
}

fn find(search: &SearchPath, given: &str) -> Result<Inspected> {
    let path = Path::new(given);
    if path.extension().is_some_and(|it| it == "wasm") {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Inspected::Component { name, path: path.to_path_buf() });
    }
    if path.join(MANIFEST).is_file() {
        let package = Package::gather(path)?;
        let envelope = signature_of(path, &package)?;
        return Ok(Inspected::Package { package, envelope });
    }
    match search.component(given, &PluginConfig::default()) {
        Ok(path) => Ok(Inspected::Component { name: given.to_string(), path }),
        // A name with a team's is a package's in any case.
        Err(missing) => match pulled(given, &Store::in_cache(&cache_dir())) {
            Ok(Stored { package, envelope, .. }) => Ok(Inspected::Package { package, envelope }),
            Err(error) if given.contains(['/', '@']) => Err(error.into()),
            Err(_) => Err(missing.into()),
        },
    }
}

impl Inspected {
    fn report(&self) -> Result<PluginReport> {
        match self {
            Self::Component { name, path } => PluginReport::of(name, path),
            Self::Package { package, .. } => said(package),
        }
    }

    /// Keys that signed the package, if trust policies allow it.
    fn signers(&self) -> Result<Vec<PublicKey>> {
        match self {
            Self::Component { .. } => Ok(Vec::new()),
            Self::Package { package, envelope } => {
                let trust = TrustPolicy::from_environment(Path::new(""))?;
                Ok(trust.check(package, envelope.as_ref())?)
            }
        }
    }

    fn signature(&self, signers: &[PublicKey]) -> String {
        match (self, signers) {
            (Self::Component { .. }, _) => "none: a component in no package".to_string(),
            (Self::Package { .. }, []) => "none".to_string(),
            (Self::Package { package, .. }, signers) => {
                format!("of {} by {}", package.digest(), listed(signers))
            }
        }
    }
}

/// What the component of a package says of itself.
///
/// # Errors
/// A package of a set, and a component that is refused.
pub fn said(package: &Package) -> Result<PluginReport> {
    let set = || RegistryError::Package {
        place: package.name.to_string(),
        problem: "it is a set, not a plugin".into(),
    };
    let (_, component) = package.component().ok_or_else(set)?;
    PluginReport::of_bytes(package.name.last(), component)
}

fn keys(signers: &[PublicKey]) -> Vec<String> {
    signers.iter().map(ToString::to_string).collect()
}

fn print(report: &PluginReport, given: &str, found: &Inspected, signers: &[PublicKey]) {
    let place = match found {
        Inspected::Package { package, .. } => format!("{given} ({} {})", package.name, package.version),
        Inspected::Component { path, .. } => path.display().to_string(),
    };
    let imports = if report.imports.is_empty() { "nothing".to_string() } else { report.imports.join(", ") };
    println!("{} {}\n  {}", report.name, report.version, report.summary);
    println!("  from      {place}");
    println!("  digest    {}", report.digest);
    println!("  signature {}", found.signature(signers));
    println!("  contract  {}", report.contract);
    println!("  roles     {}", report.roles_told());
    println!("  imports   {imports}");
    println!("  grants    {}", grants(&report.imports));
    println!("  config");
    let properties = report.config_schema["properties"].as_object().cloned().unwrap_or_default();
    properties.iter().for_each(|(key, schema)| println!("    {key}{}", configured(schema)));
    if properties.is_empty() {
        println!("    none");
    }
}

/// Type, meaning and default of a key.
fn configured(schema: &Value) -> String {
    let default = schema.get("default").map_or(String::new(), |it| format!(" (default {it})"));
    let kind = schema["type"].as_str().map_or(String::new(), |it| format!(" ({it})"));
    format!("{kind}: {}{default}", schema["description"].as_str().unwrap_or("").replace('\n', " "))
}

/// What a run file must grant for every import to be answered.
fn grants(imports: &[String]) -> String {
    let needed =
        ["generate", "logprobs", "embed"].into_iter().filter(|it| imports.iter().any(|import| import == it));
    let needed: Vec<String> = needed.map(|it| format!("{it} = true")).collect();
    if needed.is_empty() {
        "none needed".into()
    } else {
        format!("{} (or a list of models)", needed.join(", "))
    }
}
