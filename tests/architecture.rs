//! The rules of `host/docs/architecture.md` that a machine can hold, from `cargo metadata` and the tree itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::Span;
use serde_json::Value;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::support::{files, files_below, fthost, read, root};

/// Who may use whom. Everything else between our crates is refused, in tests and builds too.
const ARROWS: [(&str, &[&str]); 8] = [
    ("fthost", &["fthost-run", "fthost-authoring", "fthost-registry", "fthost-data"]),
    ("fthost-authoring", &["fthost-registry", "fthost-sandbox", "fthost-data"]),
    ("fthost-run", &["fthost-engine", "fthost-registry", "fthost-sandbox", "fthost-data"]),
    ("fthost-registry", &["fthost-sandbox", "fthost-data"]),
    ("fthost-sandbox", &["fthost-data"]),
    ("fthost-engine", &["fthost-kernels", "fthost-data"]),
    ("fthost-kernels", &[]),
    ("fthost-data", &[]),
];

/// What may stand at the top, dot-files aside.
const TOP_LEVEL: [&str; 12] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "host",
    "plugin-sdk",
    "plugins",
    "quickstart",
    "tests",
    "wit",
];

const LINES_BEFORE_TESTS: usize = 400;
const LINES_OF_A_FILE: usize = 600;
const LINES_OF_A_FUNCTION: usize = 60;
const LINES_OF_A_RECIPE: usize = 120;

fn manifest(path: &Path) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The workspace's packages and the packages each names in its manifest.
fn direct_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let name = |it: &Value| it["name"].as_str().expect("a name").to_owned();
    let list = |it: &Value| it.as_array().expect("a list").clone();
    let packages = list(&metadata["packages"]);
    packages.iter().map(|it| (name(it), list(&it["dependencies"]).iter().map(name).collect())).collect()
}

/// Everything `package` can reach in `Cargo.lock`: all platforms and all features, so more than one build uses.
fn reachable(package: &str) -> BTreeSet<String> {
    let lock = manifest(Path::new("Cargo.lock"));
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for entry in lock["package"].as_array().expect("packages") {
        let names = entry.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
        // An entry is `name`, or `name version` where two versions are locked.
        let names = names.filter_map(|it| it.as_str()?.split(' ').next());
        edges.entry(entry["name"].as_str().expect("a name")).or_default().extend(names);
    }
    let mut seen = BTreeSet::new();
    let mut waiting = vec![package];
    while let Some(next) = waiting.pop() {
        if seen.insert(next.to_owned()) {
            waiting.extend(edges.get(next).into_iter().flatten());
        }
    }
    assert!(seen.len() > 1, "Cargo.lock does not know what {package} uses");
    seen
}

#[test]
fn only_the_allowed_arrows_exist() {
    let dependencies = direct_dependencies();
    let ours: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, known, "a crate was added or removed: say in ARROWS whom it may use");
    for (package, allowed) in ARROWS {
        let used = dependencies[package].iter().filter(|it| ours.contains(it.as_str()));
        let refused: Vec<_> = used.filter(|it| !allowed.contains(&it.as_str())).collect();
        assert!(refused.is_empty(), "{package} may not use {refused:?}");
    }
}

#[test]
fn engine_never_sees_wasm() {
    for package in ["fthost-engine", "fthost-kernels", "fthost-data"] {
        let wasm: Vec<_> = reachable(package).into_iter().filter(|it| it.starts_with("wasmtime")).collect();
        assert!(wasm.is_empty(), "{package} reaches {wasm:?}");
    }
}

fn is_burn(package: &str) -> bool {
    package == "burn" || package.starts_with("burn-") || package.starts_with("cubecl")
}

#[test]
fn sandbox_never_sees_burn() {
    let burn: Vec<_> = reachable("fthost-sandbox").into_iter().filter(|it| is_burn(it)).collect();
    assert!(burn.is_empty(), "fthost-sandbox reaches {burn:?}");
}

#[test]
fn registry_never_sees_burn() {
    let burn: Vec<_> = reachable("fthost-registry").into_iter().filter(|it| is_burn(it)).collect();
    assert!(burn.is_empty(), "fthost-registry reaches {burn:?}");
}

#[test]
fn authoring_never_sees_burn() {
    let burn: Vec<_> = reachable("fthost-authoring").into_iter().filter(|it| is_burn(it)).collect();
    assert!(burn.is_empty(), "fthost-authoring reaches {burn:?}");
}

#[test]
fn data_never_sees_burn() {
    let burn: Vec<_> = reachable("fthost-data").into_iter().filter(|it| is_burn(it)).collect();
    assert!(burn.is_empty(), "fthost-data reaches {burn:?}");
}

#[test]
fn guests_see_the_sdk_and_nothing_of_the_host() {
    for path in files().iter().filter(|it| it.ends_with("Cargo.toml") && !it.starts_with("host")) {
        if path.components().count() == 1 {
            continue;
        }
        let text = read(path);
        // As in `../host/data`; the repository's own name ends in `host` too.
        assert!(!text.contains("/host/"), "{} names a crate of the host", path.display());
    }
}

#[test]
fn every_crate_inherits_the_workspace_lints() {
    for path in files_below("host", "toml").iter().filter(|it| it.ends_with("Cargo.toml")) {
        let manifest = manifest(path);
        let inherits =
            manifest.get("lints").and_then(|it| it.get("workspace")) == Some(&toml::Value::Boolean(true));
        assert!(inherits, "{}: `[lints] workspace = true` is missing", path.display());
    }
}

#[test]
fn the_top_level_is_the_fixed_list() {
    for path in files() {
        let first = path.iter().next().and_then(|it| it.to_str()).expect("a name").to_owned();
        let allowed = first.starts_with('.') || TOP_LEVEL.contains(&first.as_str());
        assert!(allowed, "`{first}` does not belong at the top level");
    }
}

/// What the rules ask of one source file.
struct Measured {
    lines: usize,
    lines_before_tests: usize,
    uses_unsafe: bool,
    /// Name and length in lines of each function outside `#[cfg(test)]`.
    functions: Vec<(String, usize)>,
}

#[derive(Default)]
struct Measure {
    tests_begin: Option<usize>,
    uses_unsafe: bool,
    functions: Vec<(String, usize)>,
}

impl Measure {
    fn function(&mut self, signature: &syn::Signature, end: Span) {
        self.uses_unsafe |= matches!(signature.safety, syn::Safety::Unsafe(_));
        let lines = end.end().line - signature.span().start().line + 1;
        self.functions.push((signature.ident.to_string(), lines));
    }
}

fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|it| match &it.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Measure {
    fn visit_item_mod(&mut self, it: &'ast syn::ItemMod) {
        if is_test_only(&it.attrs) {
            let line = it.span().start().line;
            self.tests_begin = Some(self.tests_begin.map_or(line, |known| known.min(line)));
        } else {
            visit::visit_item_mod(self, it);
        }
    }

    fn visit_item_fn(&mut self, it: &'ast syn::ItemFn) {
        self.function(&it.sig, it.block.span());
        visit::visit_item_fn(self, it);
    }

    fn visit_impl_item_fn(&mut self, it: &'ast syn::ImplItemFn) {
        self.function(&it.sig, it.block.span());
        visit::visit_impl_item_fn(self, it);
    }

    fn visit_expr_unsafe(&mut self, it: &'ast syn::ExprUnsafe) {
        self.uses_unsafe = true;
        visit::visit_expr_unsafe(self, it);
    }

    fn visit_item_foreign_mod(&mut self, it: &'ast syn::ItemForeignMod) {
        self.uses_unsafe = true;
        visit::visit_item_foreign_mod(self, it);
    }

    fn visit_item_impl(&mut self, it: &'ast syn::ItemImpl) {
        self.uses_unsafe |= it.unsafety.is_some();
        visit::visit_item_impl(self, it);
    }
}

fn measure(path: &Path) -> Measured {
    let text = read(path);
    let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut measure = Measure::default();
    measure.visit_file(&file);
    let lines = text.lines().count();
    Measured {
        lines,
        lines_before_tests: measure.tests_begin.map_or(lines, |it| it - 1),
        uses_unsafe: measure.uses_unsafe,
        functions: measure.functions,
    }
}

/// A recipe is `host/run/src/<method>.rs`: its `run` reads top to bottom and may be longer than other functions.
fn longest_allowed(path: &Path, function: &str) -> usize {
    let recipe = path.parent() == Some(Path::new("host/run/src")) && function == "run";
    if recipe { LINES_OF_A_RECIPE } else { LINES_OF_A_FUNCTION }
}

#[test]
fn files_and_functions_stay_short() {
    let mut broken = Vec::new();
    for path in files_below("", "rs").iter() {
        let measured = measure(path);
        let in_tests = path.iter().any(|it| it == "tests");
        if measured.lines > LINES_OF_A_FILE {
            broken.push(format!("{}: {} lines, {LINES_OF_A_FILE} at most", path.display(), measured.lines));
        }
        if !in_tests && measured.lines_before_tests >= LINES_BEFORE_TESTS {
            let lines = measured.lines_before_tests;
            broken.push(format!(
                "{}: {lines} lines before its tests, under {LINES_BEFORE_TESTS}",
                path.display()
            ));
        }
        for (name, lines) in measured.functions.iter().filter(|_| !in_tests) {
            let limit = longest_allowed(path, name);
            if *lines >= limit {
                broken.push(format!("{}: `{name}` has {lines} lines, under {limit}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "too long:\n{}", broken.join("\n"));
}

#[test]
fn unsafe_stands_only_in_files_that_say_why() {
    for path in files_below("", "rs").iter() {
        let says_why =
            read(path).lines().take_while(|it| it.starts_with("//!")).any(|it| it.contains("`unsafe`"));
        let uses = measure(path).uses_unsafe;
        assert!(!uses || says_why, "{}: `unsafe`, but its head (`//!`) does not say why", path.display());
    }
}

#[test]
fn every_kernel_has_a_reference() {
    let sources = files_below("host/kernels/src", "rs");
    let operations: BTreeSet<&str> = sources
        .iter()
        .filter_map(|it| it.strip_prefix("host/kernels/src").ok()?.parent()?.to_str())
        .filter(|it| !it.is_empty() && !it.contains('/'))
        .collect();
    assert!(!operations.is_empty(), "host/kernels has no operation");
    for operation in operations {
        let path = format!("host/kernels/src/{operation}/mod.rs");
        let functions = measure(Path::new(&path)).functions;
        assert!(functions.iter().any(|(it, _)| it.ends_with("_reference")), "{path} has no `*_reference`");
    }
}

#[test]
fn every_recipe_is_a_sound_run_file_and_dry_runs() {
    for recipe in files_below("host/recipes", "toml") {
        let name = recipe.to_str().expect("UTF-8");
        let first = read(&recipe).lines().next().unwrap_or_default().to_owned();
        assert!(first.starts_with('#'), "{name}: its first line is not a comment that says what it is");
        assert!(
            read(&recipe).contains(&format!("fthost run {name}")),
            "{name}: its head lacks the command to run it"
        );
        let output = fthost(&["check", name]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        // Data, plugins and all; of models the embedded one is at hand everywhere.
        let model = format!("model.path={}", root().join("host/run/embedded/model").display());
        let output = fthost(&["run", name, "--dry-run", "--set", &model]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_set_names_plugins_that_exist() {
    for set in files_below("plugins/sets", "toml") {
        let set_file = manifest(&set);
        let plugins = set_file["plugins"].as_table().expect("`[plugins]`");
        assert!(!plugins.is_empty(), "{} names no plugin", set.display());
        for name in plugins.keys() {
            let path = format!("plugins/{name}/Cargo.toml");
            assert!(root().join(&path).is_file(), "{}: `{name}` has no {path}", set.display());
        }
    }
}

/// Paths of the images that Kubeflow's mpi-operator runs: the same on every machine.
const PATHS_OF_IMAGES: [&str; 2] = ["/home/mpiuser", "/root/.ssh"];

#[test]
fn no_file_holds_a_path_of_one_machine() {
    let personal = ["root", "home", "work", "Users"].map(|it| format!("/{it}/"));
    for path in files() {
        // Binary goldens are no text; they hold no paths.
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        let text = PATHS_OF_IMAGES.iter().fold(text, |text, it| text.replace(it, ""));
        for (number, line) in text.lines().enumerate() {
            let found = personal.iter().find(|it| {
                line.match_indices(it.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|it| !it.is_alphanumeric() && !"._-~}/".contains(it))
                })
            });
            assert!(found.is_none(), "{}:{}: a path of one machine: {line}", path.display(), number + 1);
        }
    }
}
