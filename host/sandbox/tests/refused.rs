//! Components that are refused before anything of theirs runs, each with a reason that a person can act on.

use std::path::PathBuf;

use fthost_sandbox::{PluginConfig, Sandbox, SandboxConfig};

use crate::support::{component, config, sandbox};

/// The error of loading `name`, paths shortened.
fn refused(name: &str, path: PathBuf, toml: &str) -> String {
    let error = sandbox().0.load(name, &path, &config(toml)).err().expect("refused").to_string();
    error.replace(&path.display().to_string(), "FILE")
}

/// A component written as text.
fn from_text(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    (folder, path)
}

#[test]
fn a_component_of_another_world() {
    let (_folder, path) = from_text("(component)");
    insta::assert_snapshot!(refused("x", path, ""), @"plugin `x` exports none of the roles of contract 0.1, 0.2, 1 (roles: data-builder, augmenter, reward, evaluator); it exports nothing");
}

#[test]
fn a_component_of_another_version_of_the_contract() {
    let (_folder, path) = from_text(
        r#"(component
            (component $empty)
            (instance $i (instantiate $empty))
            (export "fthost:plugin/about@0.9.0" (instance $i))
            (export "fthost:plugin/score@0.9.0" (instance $i)))"#,
    );
    insta::assert_snapshot!(refused("x", path, ""), @"plugin `x` exports none of the roles of contract 0.1, 0.2, 1 (roles: data-builder, augmenter, reward, evaluator); it exports fthost:plugin/about@0.9.0, fthost:plugin/score@0.9.0");
}

/// A component with the exports of a reward, empty, that imports `import`.
fn importing(import: &str) -> (tempfile::TempDir, PathBuf) {
    from_text(&format!(
        r#"(component
            (import "{import}" (instance))
            (component $empty)
            (instance $i (instantiate $empty))
            (export "fthost:plugin/about@1.0.0" (instance $i))
            (export "fthost:plugin/score@1.0.0" (instance $i)))"#
    ))
}

#[test]
fn a_component_that_wants_the_network() {
    for import in
        ["wasi:sockets/tcp@0.2.0", "wasi:http/outgoing-handler@0.2.0", "wasi:clocks/wall-clock@0.3.0"]
    {
        let (_folder, path) = importing(import);
        let told = refused("x", path, "");
        let offered = ["log", "random", "resources", "generate", "logprobs", "embed"];
        let offered: Vec<String> = offered.iter().map(|it| format!("fthost:plugin/{it}@1")).collect();
        let expected = format!(
            "plugin `x` imports `{import}`, which no plugin is given (given: {}, and WASI 0.2 without sockets)",
            offered.join(", ")
        );
        assert_eq!(told, expected);
    }
}

#[test]
fn a_component_that_mixes_versions_of_the_contract() {
    let (_folder, path) = importing("fthost:plugin/log@0.1.0");
    let told = refused("x", path, "");
    assert!(
        told.starts_with("plugin `x` imports `fthost:plugin/log@0.1.0`, which no plugin is given"),
        "{told}"
    );
}

#[test]
fn a_core_module_and_a_text_file() {
    let (_folder, path) = from_text("(module)");
    let error = refused("x", path, "");
    assert!(error.starts_with("plugin `x`: `FILE` is no WebAssembly component that can be run: "), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wasm");
    std::fs::write(&path, "not wasm at all").unwrap();
    let error = refused("x", path, "");
    assert!(error.contains("is no WebAssembly component"), "{error}");
}

#[test]
fn a_component_that_is_not_the_one_that_was_pinned() {
    let pinned = format!("digest = \"sha256:{}\"", "0".repeat(64));
    let error = refused("json-match", component("plugins", "json-match"), &pinned);
    assert!(error.starts_with("plugin `json-match` has digest sha256:"), "{error}");
    assert!(error.contains("but `plugins.json-match.digest` pins sha256:0000"), "{error}");
}

#[test]
fn a_role_that_it_does_not_have() {
    let error = refused("json-match", component("plugins", "json-match"), "roles = [\"evaluator\"]");
    insta::assert_snapshot!(error, @"plugin `json-match` can't play `evaluator`: it exports reward");
}

#[test]
fn a_configuration_it_does_not_like() {
    let path = || component("plugins", "json-match");
    let unknown = refused("json-match", path(), "config.colum = \"x\"");
    insta::assert_snapshot!(unknown, @r"
    plugin `json-match` refuses its configuration
      `plugins.json-match.config.colum`: unknown key, expected one of `column`, `allow_fence`, `weights`
    ");
    let mistyped = refused("json-match", path(), "config.weights.keys = \"much\"");
    insta::assert_snapshot!(mistyped, @r#"
    plugin `json-match` refuses its configuration
      `plugins.json-match.config.weights.keys`: "much" is not of type "number"
    "#);
    let impossible = refused("json-match", path(), "config.weights.keys = -1.0");
    insta::assert_snapshot!(impossible, @r"
    plugin `json-match` refuses its configuration
      `plugins.json-match.config.weights.keys`: must be >= 0, got `-1`
    ");
}

#[test]
fn impossible_limits() {
    let error = refused(
        "json-match",
        component("plugins", "json-match"),
        "limits = { deadline_ms = 0, stack_bytes = 4 }",
    );
    insta::assert_snapshot!(error, @r"
    plugin `json-match` refuses its configuration
      `plugins.json-match.limits.deadline_ms` must be > 0, got `0`
      `plugins.json-match.limits.stack_bytes` must be in [16384, 1048576], got `4`
    ");
}

#[test]
fn a_plugin_that_traps_while_it_is_configured() {
    let error = refused("hostile", component("tests/guests", "hostile"), "config.trap_in_configure = true");
    assert!(error.starts_with("plugin `hostile` trapped: panicked at "), "{error}");
    assert!(error.ends_with("no configuration pleases this plugin in `configure`"), "{error}");
}

#[test]
fn a_plugin_that_needs_more_than_it_has_to_be_configured() {
    let error = refused("hostile", component("tests/guests", "hostile"), "limits.fuel = 100");
    insta::assert_snapshot!(error, @r"
    plugin `hostile` ran out of fuel in `describe`
      limit: `plugins.hostile.limits.fuel` = 100
    hint: raise the limit, or give the plugin less to do
    ");
}

#[test]
fn a_component_of_more_parts_than_it_may_have() {
    let path = component("tests/guests", "hostile");
    insta::assert_snapshot!(refused("hostile", path.clone(), "limits.table_elements = 1"), @r"
    plugin `hostile` asked for more table elements than its limit in `describe`
      limit: `plugins.hostile.limits.table_elements` = 1
    hint: raise the limit, or give the plugin less to do
    ");
    insta::assert_snapshot!(refused("hostile", path, "limits.instances = 1"), @"plugin `hostile` trapped: resource limit exceeded: instance count too high at 2 in `describe`");
}

#[test]
fn a_compiled_component_is_kept_and_a_damaged_one_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (_, _, model) = sandbox();
    let load = || {
        let config = SandboxConfig {
            cache_dir: Some(folder.path().to_path_buf()),
            seed: 0,
            log: std::sync::Arc::new(|_, _, _| {}),
            model: model.clone(),
        };
        let sandbox = Sandbox::new(config).unwrap();
        sandbox.load("json-match", &component("plugins", "json-match"), &PluginConfig::default()).unwrap();
    };
    let files = || std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().path()).collect::<Vec<_>>();
    load();
    let mut kept = files();
    kept.retain(|it| it.extension().is_some_and(|it| it == "cwasm"));
    assert_eq!((kept.len(), files().len()), (1, 2), "compiled code, and what the plugin says of itself");
    let written = std::fs::metadata(&kept[0]).unwrap().modified().unwrap();
    load();
    assert_eq!(std::fs::metadata(&kept[0]).unwrap().modified().unwrap(), written);
    std::fs::write(&kept[0], "damaged").unwrap();
    load();
    assert!(std::fs::metadata(&kept[0]).unwrap().len() > 1000);
}
