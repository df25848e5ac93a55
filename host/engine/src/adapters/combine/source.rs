//! One adapter that is to be combined, as its folder holds it: options that are understood, pairs by path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::arithmetic::Pair;
use crate::adapters::LoraConfig;
use crate::adapters::peft::{CONFIG, PREFIX, WEIGHTS, lora_config, read_config};
use crate::checkpoint::safetensors::TensorFiles;
use crate::error::{EngineError, Result};

/// Ways to begin that change the base's weights: such a pair is no difference to the base it names.
const CHANGES_THE_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// What is known of the pair of one linear before it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    pub rank: usize,
    /// Of the linear.
    pub out_width: usize,
    /// Of the linear.
    pub in_width: usize,
    /// `alpha / rank`, or over its root.
    pub scaling: f64,
}

/// An adapter's folder, opened.
pub(super) struct Source {
    pub folder: PathBuf,
    /// `adapter_config.json`.
    pub config: Value,
    /// By the path of a linear, `model.layers.0.self_attn.q_proj`.
    pub shapes: BTreeMap<String, Shape>,
    files: TensorFiles,
}

/// The name of a tensor in the file.
pub(super) fn tensor_name(path: &str, side: char) -> String {
    format!("{PREFIX}{path}.lora_{side}.weight")
}

impl Source {
    /// Reads the options and the shapes of every tensor, no values yet.
    ///
    /// # Errors
    /// Options and tensors that can't be combined, by name.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = read_config(folder)?;
        if let Some((key, reason, hint)) = refused(&config) {
            return Err(not_combined(folder, key, reason, hint));
        }
        let lora = lora_config(folder, &config, None)?;
        let files = TensorFiles::open(folder, vec![folder.join(WEIGHTS)])?;
        let shapes = shapes(folder, &lora, &files)?;
        Ok(Self { folder: folder.to_path_buf(), config, shapes, files })
    }

    /// The values of the pair at `path`, which must be one of `shapes`.
    ///
    /// # Errors
    /// Values that are not finite, types that are not floats.
    pub fn pair(&self, path: &str) -> Result<Pair> {
        let Shape { rank, out_width, in_width, .. } = self.shapes[path];
        let read = |side, shape| -> Result<Vec<f32>> {
            let data = self.files.read(&tensor_name(path, side), shape).map_err(|it| self.of_this(it))?;
            Ok(data.try_into_vec::<f32>().expect("read as f32"))
        };
        Ok(Pair { a: read('A', [rank, in_width])?, b: read('B', [out_width, rank])?, rank })
    }

    /// The error of a tensor, with the adapter that it is of.
    fn of_this(&self, error: EngineError) -> EngineError {
        let (name, reason) = match error {
            EngineError::NotFinite { name, index } => {
                (name, format!("holds a value that is not finite at index {index}"))
            }
            EngineError::Dtype { name, dtype } => {
                (name, format!("is stored as {dtype}, known are F32, F16 and BF16"))
            }
            other => return other,
        };
        not_combined(&self.folder, &name, &reason, "leave this adapter out, or save it anew")
    }
}

/// An error about `at`, a key or a tensor of the adapter in `folder`.
pub(super) fn not_combined(folder: &Path, at: &str, reason: &str, hint: &'static str) -> EngineError {
    EngineError::NotCombined {
        adapter: folder.to_path_buf(),
        at: at.to_string(),
        reason: reason.to_string(),
        hint,
    }
}

/// The first option that makes a sum of pairs wrong, and why.
fn refused(config: &Value) -> Option<(&'static str, &'static str, &'static str)> {
    if config["use_dora"] == true {
        let reason = "is on, and the lengths of DoRA are no part of a sum of pairs";
        return Some((
            "use_dora",
            reason,
            "leave this adapter out, or merge it into its base and train the others on that",
        ));
    }
    if config["target_parameters"].as_array().is_some_and(|it| !it.is_empty()) {
        let reason = "names parameters, and adapters on experts can't be combined, nor can they in PEFT";
        return Some(("target_parameters", reason, "leave this adapter out, or merge it into its base"));
    }
    if config["modules_to_save"].as_array().is_some_and(|it| !it.is_empty()) {
        let reason = "names modules that are saved whole, and those have no sum";
        return Some(("modules_to_save", reason, "combine adapters without a head of their own"));
    }
    let begun = config["init_lora_weights"].as_str().unwrap_or_default().to_lowercase();
    if CHANGES_THE_BASE.iter().any(|it| begun.starts_with(it)) {
        let reason =
            "changes the base's weights, so the pairs are not the difference to the base that is named";
        let hint = "save the adapter with PEFT's `path_initial_model_for_weight_conversion`, which makes it plain LoRA";
        return Some(("init_lora_weights", reason, hint));
    }
    None
}

fn shapes(folder: &Path, lora: &LoraConfig, files: &TensorFiles) -> Result<BTreeMap<String, Shape>> {
    let sizes = lora.sizes()?;
    let mut shapes = BTreeMap::new();
    for (name, shape, _) in files.list() {
        let below = name.strip_prefix(PREFIX);
        let side = |suffix| below.and_then(|it| it.strip_suffix(suffix));
        let Some(path) = side(".lora_A.weight").or_else(|| side(".lora_B.weight")) else {
            let reason = "is no weight of a pair on a linear";
            return Err(not_combined(folder, &name, reason, "adapters of linears alone can be combined"));
        };
        let [a, b] = ['A', 'B'].map(|side| files.shape(&tensor_name(path, side)));
        let (&[rank_a, in_width], &[out_width, rank_b]) = (&a?[..], &b?[..]) else {
            let reason = format!("has shape {shape:?} and is no matrix");
            return Err(not_combined(folder, &name, &reason, "adapters of linears alone can be combined"));
        };
        let invalid = |problem| EngineError::Invalid {
            what: format!("`{}`", folder.join(CONFIG).display()),
            problems: vec![problem],
        };
        let (rank, alpha) = sizes(path).map_err(invalid)?;
        if (rank_a, rank_b) != (rank, rank) {
            let reason = format!("has shape {shape:?}, and `{CONFIG}` says rank {rank}");
            return Err(not_combined(
                folder,
                &name,
                &reason,
                "`r` and `rank_pattern` are the ranks of the weights",
            ));
        }
        let scaling = lora.scaling(rank, alpha);
        shapes.insert(path.to_string(), Shape { rank, out_width, in_width, scaling });
    }
    Ok(shapes)
}
