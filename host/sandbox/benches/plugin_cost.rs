//! What a plugin costs: a batch of completions, and an instance from the cache.
//!
//! `cargo bench -p fthost-sandbox --bench plugin_cost -- [--completions 256] [--bytes 1024] [--rounds 200]
//! [--texts FILE] [--columns JSON] [[--config JSON] COMPONENT.wasm ...]`
//!
//! Completions are one sentence over and over, or, in turn, the texts of FILE: a JSON string a line. The row's columns
//! are `{"answer": "42"}` or those given. A configuration is that of the components that follow it.
//!
//! Components are rewards; by default those of the standard ones and of the tests' guests that are built. Printed for each,
//! a line of JSON: microseconds of a batch (median and least; a group of eight answers at a time), of an instance from the
//! cache (compiled code read, instance started and configured), and of a whole load (component read and hashed, schema
//! checked, besides). Beside the batch stands what the same texts cost without a component: each is cloned and its bytes
//! are summed, natively.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fthost_data::{Candidate, Columns, Finish, Group, Prompt};
use fthost_sandbox::{ModelSlot, PluginConfig, RoleKind, Sandbox, SandboxConfig};
use serde_json::{Map, Value, json};

/// Completions of a prompt.
const GROUP: usize = 8;

struct Arguments {
    completions: usize,
    bytes: usize,
    rounds: usize,
    texts: Vec<String>,
    columns: Columns,
    /// Each with its configuration.
    components: Vec<(Map<String, Value>, PathBuf)>,
}

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("a JSON object follows")
}

fn arguments() -> Arguments {
    let columns = Columns::from_iter([("answer".to_string(), json!("42"))]);
    let (texts, components) = (Vec::new(), Vec::new());
    let mut found = Arguments { completions: 256, bytes: 1024, rounds: 200, texts, columns, components };
    let mut config = Map::new();
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        let mut value = || given.next().expect("a value follows");
        let number = |text: String| text.parse().expect("a number follows");
        match word.as_str() {
            "--completions" => found.completions = number(value()),
            "--bytes" => found.bytes = number(value()),
            "--rounds" => found.rounds = number(value()),
            "--texts" => {
                let file = std::fs::read_to_string(value()).expect("a file of texts");
                found.texts =
                    file.lines().map(|it| serde_json::from_str(it).expect("a JSON string")).collect();
            }
            "--columns" => found.columns = object(&value()),
            "--config" => config = object(&value()),
            "--bench" => {}
            path => found.components.push((config.clone(), path.into())),
        }
    }
    if found.components.is_empty() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for folder in ["plugins/dist", "tests/guests/dist", "plugin-sdk/examples/dist"] {
            let files = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
            let wasm = files.map(|it| it.path()).filter(|it| it.extension().is_some_and(|it| it == "wasm"));
            found.components.extend(wasm.map(|it| (config.clone(), it)));
        }
        found.components.sort_by(|a, b| a.1.cmp(&b.1));
    }
    found
}

fn groups(arguments: &Arguments) -> Vec<Group> {
    let text = |index: usize| {
        let words = format!("answer {index} says that the result is {} and no more; ", index * 7);
        words.chars().cycle().take(arguments.bytes).collect::<String>()
    };
    let answer = |index: usize| match arguments.texts.get(index % arguments.texts.len().max(1)) {
        Some(text) => text.clone(),
        None => text(index),
    };
    let completion = |index| Candidate { text: answer(index), token_count: 256, finish: Finish::Stop };
    let group = |id: usize| Group {
        id: id as u64,
        step: 1,
        occasion: Default::default(),
        prompt: Prompt::Text(text(id)),
        completions: (0..GROUP).map(|it| completion(id * GROUP + it)).collect(),
        columns: arguments.columns.clone(),
    };
    (0..arguments.completions / GROUP).map(group).collect()
}

/// Median and least microseconds of `rounds` calls.
fn timed(rounds: usize, mut call: impl FnMut()) -> (f64, f64) {
    call();
    let mut all: Vec<f64> = (0..rounds)
        .map(|_| {
            let began = Instant::now();
            call();
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[0])
}

fn main() {
    let arguments = arguments();
    let groups = groups(&arguments);
    let native = timed(arguments.rounds, || {
        let sum = |it: &Candidate| it.clone().text.bytes().map(u64::from).sum::<u64>();
        black_box(groups.iter().flat_map(|it| &it.completions).map(sum).sum::<u64>());
    });
    let cache = std::env::temp_dir().join(format!("fthost-plugin-cost-{}", std::process::id()));
    let sandbox = Sandbox::new(SandboxConfig {
        cache_dir: Some(cache.clone()),
        seed: 0,
        log: Arc::new(|_, _, _| {}),
        model: ModelSlot::default(),
    })
    .expect("a sandbox");
    for (config, path) in &arguments.components {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let line = measured(&sandbox, &name, path, config, &arguments, &groups);
        match line {
            Ok(Some(mut line)) => {
                line["native_us"] = json!([native.0, native.1]);
                println!("{line}");
            }
            Ok(None) => {}
            Err(error) => eprintln!("{name}: left out: {error}"),
        }
    }
    let _ = std::fs::remove_dir_all(cache);
}

fn measured(
    sandbox: &Sandbox,
    name: &str,
    path: &Path,
    config: &Map<String, Value>,
    arguments: &Arguments,
    groups: &[Group],
) -> fthost_sandbox::Result<Option<Value>> {
    let config =
        PluginConfig { batch: arguments.completions, config: config.clone(), ..PluginConfig::default() };
    if !sandbox.inspect(name, path)?.roles.contains(&RoleKind::Reward) {
        return Ok(None);
    }
    let plugin = sandbox.load(name, path, &config)?;
    let mut reward = plugin.reward()?;
    let batch = timed(arguments.rounds, || drop(black_box(reward.score(groups))));
    let instance = timed(arguments.rounds.min(100), || sandbox.revive(&plugin).expect("it ran before"));
    let load = timed(arguments.rounds.min(20), || {
        drop(sandbox.load(name, path, &config).expect("it was loaded before"))
    });
    let usage = plugin.usage();
    Ok(Some(json!({
        "bench": "plugin_cost", "plugin": name, "component_bytes": std::fs::metadata(path).map_or(0, |it| it.len()),
        "completions": arguments.completions, "bytes": arguments.bytes,
        "batch_us": [batch.0, batch.1], "instance_from_cache_us": [instance.0, instance.1], "load_us": [load.0, load.1],
        "memory_bytes": usage.memory_bytes, "outcomes": usage.outcomes,
    })))
}
