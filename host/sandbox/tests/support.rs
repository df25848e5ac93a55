//! A sandbox that records what plugins log.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fthost_data::{Candidate, Columns, Finish, Group, Prompt};
use fthost_sandbox::{LogLevel, ModelSlot, Plugin, PluginConfig, Sandbox, SandboxConfig};

/// Log lines as `plugin level line`.
pub type Lines = Arc<Mutex<Vec<String>>>;

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A component that `plugins/build` made.
pub fn component(folder: &str, name: &str) -> PathBuf {
    let path = repository().join(folder).join("dist").join(format!("{name}.wasm"));
    assert!(path.is_file(), "`{}` is missing: run `plugins/build`", path.display());
    path
}

pub fn sandbox() -> (Sandbox, Lines, ModelSlot) {
    let lines = Lines::default();
    let sink = Arc::clone(&lines);
    let log = move |plugin: &str, level: LogLevel, line: &str| {
        sink.lock().unwrap().push(format!("{plugin} {level:?} {line}"));
    };
    let model = ModelSlot::default();
    let config = SandboxConfig { cache_dir: None, seed: 7, log: Arc::new(log), model: model.clone() };
    (Sandbox::new(config).unwrap(), lines, model)
}

/// A plugin's configuration from the run file's TOML.
pub fn config(toml: &str) -> PluginConfig {
    toml::from_str(toml).unwrap()
}

pub fn load(name: &str, folder: &str, toml: &str) -> Plugin {
    sandbox().0.load(name, &component(folder, name), &config(toml)).unwrap()
}

/// One group whose answers are `texts`.
pub fn group(columns: serde_json::Value, texts: &[&str]) -> Group {
    let serde_json::Value::Object(columns) = columns else { panic!("columns are an object") };
    let candidate = |text: &&str| Candidate { text: text.to_string(), token_count: 1, finish: Finish::Stop };
    Group {
        id: 0,
        step: 0,
        occasion: Default::default(),
        prompt: Prompt::Text("?".into()),
        completions: texts.iter().map(candidate).collect(),
        columns,
    }
}

/// A group that tells the hostile guest what to do, with a second completion.
pub fn order(what: &str) -> Group {
    group(serde_json::Value::Object(Columns::new()), &[what, "second"])
}
