//! The run file. Composes what is configured beside the code it configures; nothing else does.

mod checkpoint;
mod eval;
mod objective;
mod optimizer;
mod parse;
mod paths;
mod train;

use std::path::{Path, PathBuf};

use fthost_engine::adapters::{
    AdapterConfig, Ia3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, peft,
};
use fthost_engine::checkpoint::LoadConfig;
use fthost_engine::models::DecoderConfig;
use fthost_engine::nn::FloatDtype;
use fthost_engine::optim::ScheduleConfig;
use fthost_engine::quant::QuantConfig;
use fthost_engine::shard::ParallelConfig;
use fthost_engine::train::early_stop::EarlyStopConfig;
use fthost_sandbox::PluginTable;
use serde::{Deserialize, Serialize};

pub use self::checkpoint::CheckpointConfig;
pub use self::eval::EvalConfig;
pub use self::objective::Objective;
pub use self::optimizer::Optimizer;
pub use self::train::TrainConfig;
use crate::dataset::DataConfig;
use crate::error::{Result, RunError};
use crate::judges::Judges;
use crate::launch::LaunchConfig;
pub use crate::models::ModelConfig;
use crate::packages::Packages;
use crate::reward_model::RewardModels;
use crate::rollout::RolloutConfig;
use crate::standard;

/// A whole run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// What is fine-tuned; the embedded model if absent.
    #[serde(default)]
    pub model: ModelConfig,
    /// What it learns from.
    pub data: DataConfig,
    /// What is trained; every weight if absent.
    #[serde(default)]
    pub adapter: Option<Adapter>,
    /// What the linears below the adapter are stored in; as they are if absent.
    #[serde(default)]
    pub quant: Option<QuantConfig>,
    /// What is minimised.
    #[serde(default)]
    pub objective: Objective,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// The learning rate's course.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// How long and how much at a time.
    #[serde(default)]
    pub train: TrainConfig,
    /// What ranks share of the model.
    #[serde(default)]
    pub parallel: ParallelConfig,
    /// How completions are sampled that an objective learns from.
    #[serde(default)]
    pub rollout: RolloutConfig,
    /// When the held-out rows are looked at.
    #[serde(default)]
    pub eval: EvalConfig,
    /// When to stop for want of improvement; never if absent.
    #[serde(default)]
    pub early_stop: Option<EarlyStopConfig>,
    /// What is kept to go on from.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// Plugin sets, by name or file; `[plugins]` is laid over them, and a later set over an earlier one.
    #[serde(default)]
    pub plugin_sets: Vec<String>,
    /// Who plays the roles.
    #[serde(default)]
    pub plugins: PluginTable,
    /// Models beside the run's own that plugins may ask.
    #[serde(default)]
    pub judges: Judges,
    /// Reward models that score beside the plugins.
    #[serde(default)]
    pub rewards: RewardModels,
    /// Where results go.
    pub output: OutputConfig,
    /// How a cluster starts the run: of no effect on what it computes, so it stands in no digest and no lock file.
    #[serde(default, skip_serializing)]
    pub launch: LaunchConfig,
}

/// `[adapter.<kind>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Adapter {
    /// Low-rank adaptation.
    Lora(LoraConfig),
    /// (IA)^3: factors of what linears put out or are given.
    Ia3(Ia3Config),
    /// Embeddings before every sequence.
    PromptTuning(PromptTuningConfig),
    /// Keys and values before those of every sequence.
    PrefixTuning(PrefixTuningConfig),
    /// An adapter in PEFT's layout, which is trained on: a reference, where there is one, is the model with it.
    Peft {
        /// Its folder.
        path: PathBuf,
    },
}

impl Adapter {
    /// As what is put on a model of `shape`: one that begins, or what the folder says of one that is trained on.
    ///
    /// # Errors
    /// A folder that is not understood.
    pub fn on(&self, shape: &DecoderConfig) -> Result<AdapterConfig> {
        match self {
            Self::Peft { path } => Ok(peft::read_adapter_config(path, shape)?),
            other => Ok(other.fresh().expect("all others begin")),
        }
    }

    /// One that begins; `None` of one that is trained on.
    pub fn fresh(&self) -> Option<AdapterConfig> {
        Some(match self {
            Self::Lora(config) => AdapterConfig::Lora(config.clone()),
            Self::Ia3(config) => AdapterConfig::Ia3(config.clone()),
            Self::PromptTuning(config) => AdapterConfig::PromptTuning(config.clone()),
            Self::PrefixTuning(config) => AdapterConfig::PrefixTuning(config.clone()),
            Self::Peft { .. } => return None,
        })
    }
}

/// `[output]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Folder for adapter, metrics and checkpoints.
    pub dir: PathBuf,
}

impl RunConfig {
    /// Reads a run file and applies `key=value` overrides, whose values are TOML or bare text. `sets` take the place of
    /// the file's `plugin_sets` where there are any.
    ///
    /// Paths stand relative to the run file.
    ///
    /// # Errors
    /// Unknown keys and wrong types with their lines, every impossible value at once, and a plugin set that is not found.
    pub fn read(path: &Path, overrides: &[String], sets: &[String]) -> Result<Self> {
        let mut config = Self::as_typed(path, overrides, sets)?;
        config.train.data_parallel = fthost_engine::parallel::launched().map_or(1, |it| it.1);
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(invalid(path, problems));
        }
        config.stand_in(folder_of(path));
        Ok(config)
    }

    /// As [`RunConfig::read`], of values that were not looked at and paths as the file has them.
    ///
    /// # Errors
    /// Unknown keys and wrong types with their lines, and a plugin set that is not found.
    pub(crate) fn as_typed(path: &Path, overrides: &[String], sets: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| invalid(path, vec![error.to_string()]))?;
        let folder = folder_of(path);
        let search = standard::search_path(folder)?;
        let named = if sets.is_empty() { parse::plugin_sets(&text) } else { sets.to_vec() };
        let packages = Packages::around(folder)?;
        let found = packages.sets(&search);
        let below =
            named.iter().map(|name| found.document(name)).collect::<std::result::Result<Vec<_>, _>>()?;
        let mut config =
            parse::parse(&text, overrides, &below).map_err(|problems| invalid(path, problems))?;
        config.plugin_sets = named;
        Ok(config)
    }

    /// Tokens of a packed micro-batch at most.
    pub fn micro_batch_tokens(&self) -> usize {
        self.train.micro_batch_tokens.unwrap_or(self.train.micro_batch_size * self.data.max_length)
    }

    /// What the model is loaded for, and what its weights are stored in.
    pub(crate) fn load_config(&self) -> LoadConfig {
        LoadConfig {
            to_train: self.adapter.is_none(),
            dtype: self.train.frozen_dtype,
            quant: self.quant.clone(),
        }
    }

    /// Every impossible value, each with its full key.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut under = |section: &str, found: Vec<String>| {
            problems.extend(found.iter().map(|it| it.replacen('`', &format!("`{section}."), 1)));
        };
        under("model", self.model.problems());
        under("data", self.data.problems());
        if let Some(adapter) = self.adapter.as_ref().and_then(Adapter::fresh) {
            under(&format!("adapter.{}", adapter.name()), adapter.problems());
        }
        if let Some(quant) = &self.quant {
            under(&format!("quant.{}", quant.name()), quant.problems());
        }
        under(&format!("optimizer.{}", self.optimizer.name()), self.optimizer.adamw().problems());
        under("schedule", self.schedule.problems());
        under("eval.generation", self.eval.generation.problems());
        for (name, plugin) in &self.plugins.0 {
            under(&format!("plugins.{name}"), plugin.problems());
        }
        for (name, judge) in &self.judges {
            under(&format!("judges.{name}"), judge.problems());
        }
        for (name, reward) in &self.rewards {
            under(&format!("rewards.{name}"), reward.term().problems());
        }
        under(&format!("objective.{}", self.objective.name()), self.objective.problems());
        under("train", self.train.problems(self.data.max_length));
        under("parallel", self.parallel.problems());
        under("rollout", self.rollout.problems());
        if let Some(early_stop) = &self.early_stop {
            under("early_stop", early_stop.problems());
        }
        under("launch", self.launch.problems());
        if self.eval.batch_size == 0 {
            problems.push("`eval.batch_size` must be > 0, got `0`".into());
        }
        if self.checkpoint.keep_last == 0 {
            problems.push("`checkpoint.keep_last` must be > 0, got `0`".into());
        }
        if self.train.frozen_dtype != FloatDtype::F32 && self.adapter.is_none() {
            problems.push(
                "`train.frozen_dtype` = `bf16` needs an adapter: weights that are trained are stored in f32"
                    .into(),
            );
        }
        if let Some(quant) = self.quant.as_ref().filter(|_| self.adapter.is_none()) {
            let name = quant.name();
            problems.push(format!("`quant.{name}` needs an adapter: weights in so few bits are not trained"));
        }
        problems.extend(self.problems_of_release());
        problems.extend(self.problems_of_objective());
        for name in self.rewards.keys().filter(|name| self.plugins.0.iter().any(|it| it.0 == **name)) {
            problems.push(format!("`rewards.{name}` has the name of a plugin: scores are told apart by it"));
        }
        problems.extend(self.needs_evaluations());
        problems
    }

    /// Keys that `train.gradient_release` doesn't go with.
    fn problems_of_release(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.train.gradient_release {
            return problems;
        }
        if self.parallel.data_parallel_shard != 1 {
            problems.push("`train.gradient_release` needs `parallel.data_parallel_shard` = 1: of what is shared gradients are let go of in any case".into());
        }
        if self.data.packing {
            problems.push("`train.gradient_release` needs `data.packing` = false: a packed step may be several micro-batches".into());
        }
        problems
    }

    /// Keys that don't fit the objective.
    fn problems_of_objective(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.train.gradient_release && self.objective != Objective::default() {
            let objective = self.objective.name();
            problems.push(format!(
                "`train.gradient_release` is for `objective.sft`, got `objective.{objective}`"
            ));
        }
        if self.objective.has_mismatched() && self.train.global_batch_size() == 1 {
            problems.push(
                "`train.micro_batch_size` * `train.gradient_accumulation_steps` must be > 1 for `objective.kto`, got `1`: \
                 its divergence is estimated from completions of other rows of the step; \
                 `loss_type = \"apo_zero_unpaired\"` needs none"
                    .into(),
            );
        }
        let is_dynamic = matches!(&self.objective, Objective::Grpo(it) if it.dynamic_sampling);
        if is_dynamic && self.rollout.num_generations < 2 {
            problems.push(format!(
                "`rollout.num_generations` must be > 1 for `objective.grpo.dynamic_sampling`, got `{}`: the rewards of one \
                 completion never differ",
                self.rollout.num_generations
            ));
        }
        if self.objective.samples() {
            problems.extend(self.rollout.problems_with(&self.train));
        }
        problems
    }

    /// Keys that mean nothing without held-out rows to evaluate.
    fn needs_evaluations(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let asks =
            [("early_stop", self.early_stop.is_some()), ("checkpoint.keep_best", self.checkpoint.keep_best)];
        for (key, _) in asks.iter().filter(|it| it.1) {
            if self.data.held_out.is_none() {
                problems.push(format!("`{key}` needs `data.held_out`: there is nothing to evaluate"));
            } else if self.eval.every_steps == 0 {
                problems.push(format!("`{key}` needs `eval.every_steps` > 0"));
            }
        }
        problems
    }
}

/// The folder of the run file at `path`.
fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// That the run file at `path` has `problems`.
pub(crate) fn invalid(path: &Path, problems: Vec<String>) -> RunError {
    RunError::Config { path: path.display().to_string(), problems }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::HeldOut;

    const FILE: &str = "[model]\npath = \"model\"\n[data]\nfiles = [\"a.jsonl\"]\n[output]\ndir = \"out\"\n";

    fn parsed(text: &str, overrides: &[&str]) -> std::result::Result<RunConfig, String> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        parse::parse(text, &overrides, &[]).map_err(|it| it.join("\n"))
    }

    fn problems(overrides: &[&str]) -> String {
        parsed(FILE, overrides).unwrap().problems().join("\n")
    }

    #[test]
    fn overrides_reach_every_kind_of_key() {
        let config = parsed(
            FILE,
            &[
                "adapter.lora.rank=4",
                "data.held_out.rows = 32",
                "model.path=some/where",
                "data.files=[\"b.csv\", \"c.json\"]",
                "train.epochs=1.5",
                "train.compute_dtype=bf16",
                "early_stop.patience=2",
            ],
        )
        .unwrap();
        assert!(matches!(&config.adapter, Some(Adapter::Lora(lora)) if lora.rank == 4));
        assert_eq!(config.data.held_out, Some(HeldOut::Rows(32)));
        assert_eq!(config.model.folder(), Path::new("some/where"));
        assert_eq!(config.data.files, [Path::new("b.csv"), Path::new("c.json")]);
        assert_eq!((config.train.epochs, config.train.compute_dtype), (Some(1.5), FloatDtype::Bf16));
        assert_eq!(config.early_stop.map(|it| it.patience), Some(2));
    }

    #[test]
    fn every_unknown_key_is_told_with_its_place() {
        let text = format!("{FILE}[train]\nstep = 3\nseed = 1\n\n[adapter.lora]\nrnak = 4\n");
        insta::assert_snapshot!(parsed(&text, &["eval.often=1", "data.files=[\"b\"]"]).unwrap_err(), @r#"
`train.step` (line 8): unknown field `step`, expected one of `steps`, `epochs`, `micro_batch_size`, `micro_batch_tokens`, `gradient_accumulation_steps`, `seed`, `max_grad_norm`, `activation_checkpointing`, `compute_dtype`, `frozen_dtype`, `gradient_release`
`adapter.lora.rnak` (line 12): unknown field `rnak`, expected one of `rank`, `alpha`, `dropout`, `target_modules`, `use_rslora`, `use_dora`, `init_lora_weights`, `rank_pattern`, `alpha_pattern`, `loraplus_lr_ratio`, `modules_to_save`, `ensure_weight_tying`
`eval.often` (`--set eval.often=1`): unknown field `often`, expected one of `every_steps`, `before`, `after`, `generation`, `batch_size`, `weights`
"#);
    }

    #[test]
    fn a_run_file_and_its_overrides_stand_above_a_plugin_set() {
        let set =
            "[plugins.b.config]\nkey = 1\nother = 2\n[plugins.b.limits]\nfuel = 5\n[plugins.a]\n".to_string();
        let text = format!("{FILE}[plugins.c]\n[plugins.b.config]\nkey = 3\n");
        let overrides = ["plugins.b.limits.fuel=7".to_string()];
        let config = parse::parse(&text, &overrides, &[set]).unwrap();
        let names: Vec<&str> = config.plugins.0.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
        let b = &config.plugins.0[0].1;
        assert_eq!((b.config["key"].as_i64(), b.config["other"].as_i64()), (Some(3), Some(2)));
        assert_eq!(b.limits.fuel, Some(7));
    }

    #[test]
    fn a_wrong_type_is_told_with_key_and_place() {
        insta::assert_snapshot!(parsed(&format!("{FILE}[train]\nseed = \"x\"\n"), &["eval.before=true"]).unwrap_err(), @r#"`train.seed` (line 8): invalid type: string "x", expected u64"#);
        insta::assert_snapshot!(parsed(FILE, &["train.seed=x"]).unwrap_err(), @r#"`train.seed` (`--set train.seed=x`): invalid type: string "x", expected u64"#);
        insta::assert_snapshot!(parsed(FILE, &["objective.dop.beta=1"]).unwrap_err(), @"`objective` (`--set objective.dop.beta=1`): unknown variant `dop`, expected one of `sft`, `dpo`, `orpo`, `simpo`, `cpo`, `kto`, `reward`, `grpo`, `ppo`");
        insta::assert_snapshot!(parsed(&format!("{FILE}[objective.dpo]\n[objective.grpo]\n"), &[]).unwrap_err(), @"`objective` (line 7): one of `dpo`, `grpo` is meant: take the others out");
        insta::assert_snapshot!(parsed(FILE, &["data.held_out=3"]).unwrap_err(), @"`data.held_out` (`--set data.held_out=3`): wanted string or table");
        insta::assert_snapshot!(parsed(FILE, &["model.path.x=3"]).unwrap_err(), @"`--set model.path.x=3`: `path` is not a table");
        insta::assert_snapshot!(parsed(FILE, &["nothing"]).unwrap_err(), @"`--set nothing` must be `key=value`");
        insta::assert_snapshot!(parsed("[model]\npath = \"m\"\n[data]\nfiles = []\n", &["train.seed=1"]).unwrap_err(), @"missing field `output`");
    }

    #[test]
    fn impossible_values_are_told_at_once() {
        insta::assert_snapshot!(problems(&[
            "data.held_out.fraction=1.0", "data.max_length=64", "train.micro_batch_tokens=63", "train.epochs=0",
            "schedule.warmup_ratio=2", "early_stop.patience=0", "checkpoint.keep_last=0", "checkpoint.keep_best=true",
            "adapter.lora.rank=0",
        ]), @r"
        `data.held_out.fraction` must be in (0, 1), got `1`
        `adapter.lora.rank` must be > 0, got `0`
        `schedule.warmup_ratio` must be in [0, 1], got `2`
        `train.epochs` must be > 0, got `0`
        `train.micro_batch_tokens` must be at least `data.max_length` = 64, got `63`
        `early_stop.patience` must be > 0, got `0`
        `checkpoint.keep_last` must be > 0, got `0`
        `early_stop` needs `eval.every_steps` > 0
        `checkpoint.keep_best` needs `eval.every_steps` > 0
        ");
        assert_eq!(
            problems(&["train.frozen_dtype=bf16"]),
            "`train.frozen_dtype` = `bf16` needs an adapter: weights that are trained are stored in f32"
        );
        assert_eq!(problems(&["train.frozen_dtype=bf16", "adapter.lora.rank=4"]), "");
        insta::assert_snapshot!(problems(&["quant.nf4.block_size=65"]), @r"
        `quant.nf4.block_size` must be one of 64, 128, 256, 512, 1024, 2048, 4096, got `65`
        `quant.nf4` needs an adapter: weights in so few bits are not trained
        ");
        assert_eq!(problems(&["quant.fp4.double_quant=false", "adapter.lora.rank=4"]), "");
        let release = ["train.gradient_release=true", "data.packing=false", "train.max_grad_norm=0"];
        assert_eq!(problems(&release), "");
        insta::assert_snapshot!(problems(&["train.gradient_release=true", "data.packing=true", "train.max_grad_norm=1", "train.gradient_accumulation_steps=2"]), @r"
        `train.gradient_release` needs `train.max_grad_norm` = 0, got `1`: a global norm needs all gradients
        `train.gradient_release` needs `train.gradient_accumulation_steps` = 1, got `2`
        `train.gradient_release` needs `data.packing` = false: a packed step may be several micro-batches
        ");
        assert_eq!(
            problems(&["early_stop.patience=2"]),
            "`early_stop` needs `data.held_out`: there is nothing to evaluate"
        );
        assert_eq!(problems(&["early_stop.patience=2", "data.held_out.rows=1", "eval.every_steps=1"]), "");
    }

    #[test]
    fn impossible_values_of_policies_and_rewards_are_told_with_their_keys() {
        insta::assert_snapshot!(problems(&[
            "objective.ppo.cliprange=0", "objective.ppo.kl_coef=0", "objective.ppo.adaptive_kl.target=6",
            "rollout.num_iterations=0", "rollout.num_generations=3", "rewards.judge.path=judge", "rewards.judge.clip=[1, 0]",
            "plugins.judge.config.key=1",
        ]), @r"
        `rewards.judge.clip` must be [least, greatest], got `[1, 0]`
        `objective.ppo.cliprange` must be > 0, got `0`
        `objective.ppo.kl_coef` must be > 0 where `adaptive_kl` is set, got `0`: it is multiplied, so it would stay 0
        `rollout.num_iterations` must be > 0, got `0`
        `rollout.num_generations` = 3 must divide the completions of a rollout, `train.micro_batch_size` * `train.gradient_accumulation_steps` * `rollout.steps_per_generation` = 8
        `rewards.judge` has the name of a plugin: scores are told apart by it
        ");
        insta::assert_snapshot!(problems(&["objective.reward.center_rewards_coefficient=-1"]), @"`objective.reward.center_rewards_coefficient` must be >= 0, got `-1`");
        insta::assert_snapshot!(parsed(FILE, &["objective.ppo.value_model=none"]).unwrap_err(), @"`objective.ppo.value_model` (`--set objective.ppo.value_model=none`): unknown variant `none`, expected one of `shared`, `shared_detached`, `copy`");
        insta::assert_snapshot!(parsed(FILE, &["objective.ppo.num_ppo_epochs=4"]).unwrap_err(), @"`objective.ppo.num_ppo_epochs` (`--set objective.ppo.num_ppo_epochs=4`): unknown field `num_ppo_epochs`, expected one of `value_model`, `kl_coef`, `adaptive_kl`, `kl_estimator`, `gamma`, `lam`, `cliprange`, `cliprange_value`, `vf_coef`, `value_learning_rate`, `entropy_coef`, `whiten_rewards`, `whiten_advantages`, `missing_eos_penalty`, `score_clip`, `target_kl`");
        insta::assert_snapshot!(parsed(FILE, &["rewards.judge.weight=2"]).unwrap_err(), @"`rewards` (`--set rewards.judge.weight=2`): missing field `path`");
    }

    #[test]
    fn epochs_are_rounded_up_to_steps_and_steps_cap_them() {
        let train = |steps, epochs| TrainConfig {
            steps,
            epochs,
            gradient_accumulation_steps: 2,
            ..Default::default()
        };
        assert_eq!(train(None, None).total_steps(33), 100);
        assert_eq!(train(Some(7), None).total_steps(33), 7);
        // 33 rows are three windows of 16 at most.
        assert_eq!(train(None, Some(2.0)).total_steps(33), 6);
        assert_eq!(train(None, Some(0.5)).total_steps(33), 2);
        assert_eq!(train(Some(4), Some(2.0)).total_steps(33), 4);
    }

    #[test]
    fn evaluations_are_due_before_between_and_after() {
        let due = |config: EvalConfig| (0..=6).filter(|it| config.is_due(*it, 6)).collect::<Vec<_>>();
        assert_eq!(due(EvalConfig::default()), [0, 6]);
        assert_eq!(due(EvalConfig { every_steps: 4, before: false, ..Default::default() }), [4, 6]);
        assert_eq!(due(EvalConfig { every_steps: 3, after: false, ..Default::default() }), [0, 3]);
    }
}
