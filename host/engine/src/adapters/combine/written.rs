//! The combined adapter's files, and what its configuration takes over from those it is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::source::{Source, not_combined};
use crate::adapters::peft::{WEIGHTS, whole, write_config};
use crate::checkpoint::write::{StoredDtype, write_as};
use crate::error::{EngineError, Result};

/// The combined adapter, not yet written.
#[derive(Debug)]
pub struct Combined {
    pub(super) tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    pub(super) config: Value,
}

impl Combined {
    /// Writes the adapter as a PEFT folder: each file whole or not at all, the configuration last.
    ///
    /// # Errors
    /// Files that can't be written.
    pub fn save(&self, folder: &Path, dtype: StoredDtype) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
        write_as(&folder.join(WEIGHTS), &self.tensors, dtype)?;
        write_config(folder, &self.config)
    }
}

/// All that name a base name the same.
pub(super) fn check_one_base(sources: &[Source]) -> Result<()> {
    const KEY: &str = "base_model_name_or_path";
    let of = |source: &Source| {
        let name = source.config[KEY].as_str()?.trim_end_matches('/');
        Some(source.config["revision"].as_str().map_or_else(|| name.to_string(), |it| format!("{name}@{it}")))
    };
    // One that does not say may be of any; shapes are compared all the same.
    let mut named = sources.iter().filter_map(|it| Some((it, of(it)?)));
    let Some((first, name)) = named.next() else { return Ok(()) };
    let Some((other, other_name)) = named.find(|it| it.1 != name) else { return Ok(()) };
    let reason = format!("is `{other_name}`, that of `{}` is `{name}`", first.folder.display());
    let hint = "adapters of one base can be combined; if both names are of one model, give the one to write as `base`";
    Err(not_combined(&other.folder, KEY, &reason, hint))
}

/// `adapter_config.json` of the result. `ranks` are those of the linears, by path.
pub(super) fn config(sources: &[Source], ranks: &BTreeMap<&str, usize>, base: Option<&str>) -> Value {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for rank in ranks.values() {
        *counts.entry(*rank).or_default() += 1;
    }
    // The most frequent one stands for all, the others are said one by one.
    let rank = counts.iter().max_by_key(|it| it.1).map_or(1, |it| *it.0);
    let others = ranks.iter().filter(|it| *it.1 != rank);
    let pattern: BTreeMap<String, usize> = others.map(|(path, rank)| (regex::escape(path), *rank)).collect();
    let first = &sources[0].config;
    let named = sources.iter().find_map(|it| it.config["base_model_name_or_path"].as_str());
    json!({
        "peft_type": "LORA",
        "task_type": first["task_type"],
        "base_model_name_or_path": base.or(named),
        // Of the name that the adapters give.
        "revision": if base.is_none() { first["revision"].clone() } else { Value::Null },
        "r": rank,
        "lora_alpha": whole(rank as f64),
        "lora_dropout": 0.0,
        "target_modules": target_modules(sources, ranks),
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "use_rslora": false,
        "use_dora": false,
        "bias": "none",
        "fan_in_fan_out": first["fan_in_fan_out"] == true,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
    })
}

/// The names of all adapters, where all have names; else the paths of all linears, which always works.
fn target_modules(sources: &[Source], ranks: &BTreeMap<&str, usize>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources {
        let targets = source.config["target_modules"].as_array();
        let Some(targets) = targets.filter(|_| source.config["exclude_modules"].is_null()) else {
            return ranks.keys().map(|it| it.to_string()).collect();
        };
        names.extend(targets.iter().filter_map(Value::as_str).map(str::to_string));
    }
    names
}
