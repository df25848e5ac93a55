//! What stops a run, and the exit code that says so.

use std::path::PathBuf;

use fthost_data::{DataError, RoleError};
use fthost_engine::EngineError;
use fthost_registry::RegistryError;
use fthost_sandbox::SandboxError;

/// Errors of a run; the program prints them as they stand.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The run file can't be used.
    #[error("invalid run file `{path}`\n  {}", problems.join("\n  "))]
    Config {
        /// As given on the command line.
        path: String,
        /// Every problem, each with its key.
        problems: Vec<String>,
    },
    /// Data that can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The held-out part is everything there is.
    #[error("`{key}` holds out {held_out} of {rows} rows: nothing is left to train on")]
    NothingToTrainOn {
        /// Full key.
        key: &'static str,
        /// Rows to be held out.
        held_out: usize,
        /// Rows there are.
        rows: usize,
    },
    /// An evaluation of a run file that keeps nothing for it.
    #[error("nothing is held out to evaluate on\nhint: set `data.held_out.rows`, `.fraction` or `.files`")]
    NothingHeldOut,
    /// A plugin failed, or hit a limit.
    #[error(transparent)]
    Plugin(#[from] RoleError),
    /// A plugin or plugin set that can't be used.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A package that can't be shared, pinned or used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A rank is gone, or does not come: the others can't go on.
    #[error(
        "{source}\n  last good checkpoint: {}",
        last_checkpoint.as_ref().map_or("none".to_string(), |it| format!("`{}`, to go on from with `--resume` on as many ranks or others", it.display()))
    )]
    LostRank {
        /// Which, and since when.
        source: Box<EngineError>,
        /// Where the run goes on from.
        last_checkpoint: Option<PathBuf>,
    },
    /// Two plugins make examples of the same rows.
    #[error(
        "plugins `{first}` and `{second}` both build data, and a run has one data builder\nhint: give one of them `roles` without `data-builder`, or leave it out"
    )]
    TwoBuilders {
        /// The first in the run file.
        first: String,
        /// The other.
        second: String,
    },
    /// A judge's key is not at hand.
    #[error(
        "`judges.{judge}.endpoint.api_key_env` names `{variable}`, which is not in the environment\nhint: set it, or leave the key out for an endpoint that wants none"
    )]
    NoJudgeKey {
        /// The judge.
        judge: String,
        /// The variable.
        variable: String,
    },
    /// A plugin may ask a judge that the run file does not know.
    #[error(
        "`plugins.{plugin}.grants` names `judges.{judge}`, which the run file does not have\nhint: add `[judges.{judge}.endpoint]` with `url` and `model`, or `[judges.{judge}.folder]` with `path`"
    )]
    NoJudge {
        /// The plugin.
        plugin: String,
        /// The judge.
        judge: String,
    },
    /// A folder is to hold blocks of a GGUF file.
    #[error("`{}` is no name of a GGUF file, and `--blocks` is for one\nhint: let `--out` end in `.gguf`; or pack a folder's weights by `--quant`", folder.display())]
    BlocksOfFolder {
        /// What is to be made.
        folder: PathBuf,
    },
    /// An option of folders, for a GGUF file.
    #[error("`{}` is to be a GGUF file, and `--quant`, `--max-shard-size` and `--keep-blocks` are for folders\nhint: `--blocks` stores its linears in fewer bits", path.display())]
    NotForGguf {
        /// What is to be made.
        path: PathBuf,
    },
    /// A folder in which nothing was scored.
    #[error("no scores in `{}`\nhint: give the `output.dir` of a run whose plugins have a reward", folder.display())]
    NoScores {
        /// As given.
        folder: PathBuf,
    },
    /// A folder in which no run has ended.
    #[error("can't read `{}`: {reason}\nhint: give the `output.dir` of a finished run", path.display())]
    NoAudit {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Rewards that stand beside none of the run's.
    #[error("the run's rewards are `{run}`; of these the given rewards have none: `{}`\nhint: name one as the reward that it should be compared with: NAME=PATH", given.join("`, `"))]
    NothingToCompare {
        /// The run's.
        run: String,
        /// The given ones.
        given: Vec<String>,
    },
    /// Recorded scores that can't be used.
    #[error("`{}` can't be used: {reason}", path.display())]
    DamagedScores {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A reward of a run that is not at hand any more.
    #[error("reward `{plugin}` with digest {digest} is not at hand; looked for {}\nhint: put the component where it is looked for, or compare another version with `fthost rescore`", looked.join(", "))]
    NoComponent {
        /// The plugin.
        plugin: String,
        /// Of the component that scored.
        digest: String,
        /// Every place.
        looked: Vec<String>,
    },
    /// A file that a reward of a run could read and that is not at hand any more.
    #[error("file `{resource}` of reward `{plugin}` with digest {digest} is not at hand; looked for {}\nhint: put the file where it is looked for", looked.join(", "))]
    NoResource {
        /// The plugin.
        plugin: String,
        /// As the plugin asks for it.
        resource: String,
        /// Of the file that was read.
        digest: String,
        /// Every place.
        looked: Vec<String>,
    },
    /// A rollout of which no completion has a reward.
    #[error(
        "no completion of the rollout before step {step} has a reward: {}\nhint: `fthost plugin test` runs a reward by itself; a reward abstains where a row lacks its column",
        told(outcomes)
    )]
    NothingScored {
        /// The step that would have learned from it.
        step: u64,
        /// By reward, how often each outcome was seen.
        outcomes: Vec<(String, u64)>,
    },
    /// `[rewards.<name>]` with a model that gives no scores.
    #[error("`rewards.{reward}.path` = `{}` is no reward model: it has no `score.weight`\nhint: give what a run of `[objective.reward]` left, `adapter` or `model` in its `output.dir`", folder.display())]
    NoScoreHead {
        /// Its name.
        reward: String,
        /// The folder.
        folder: PathBuf,
    },
    /// A reward model that is not the one that scored.
    #[error("`rewards.{reward}.path` = `{}` is not the model that scored: it was {before} and is {now}\nhint: `fthost rescore` compares another reward model with the run's", folder.display())]
    AnotherRewardModel {
        /// Its name.
        reward: String,
        /// The folder.
        folder: PathBuf,
        /// Digest of what scored.
        before: String,
        /// Digest of what is there.
        now: String,
    },
    /// An objective that learns from rewards, without one.
    #[error(
        "`objective.{objective}` learns from rewards, and the run has none\nhint: add `[plugins.<name>]` of a plugin that plays the role `reward`, which `fthost plugin list` names, or `[rewards.<name>]` with the `path` of a reward model"
    )]
    NoReward {
        /// Its key.
        objective: &'static str,
    },
    /// A reward gave other scores than it gave in the run.
    #[error("{changed} of {scored} scores are not those of the run")]
    ScoresDiffer {
        /// Scores that differ.
        changed: usize,
        /// Scores compared.
        scored: usize,
    },
    /// The engine stopped.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Output that can't be written.
    #[error("can't write `{path}`: {source}")]
    Output {
        /// The file or folder.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// `--resume` without a checkpoint.
    #[error("nothing to resume: no checkpoint in `{}`\nhint: run without `--resume` to begin", folder.display())]
    NothingToResume {
        /// The run's output folder.
        folder: PathBuf,
    },
    /// A run that begins where an earlier one left checkpoints.
    #[error("`{}` is an earlier run's\nhint: go on with `--resume`, remove such checkpoints with `--overwrite`, or give another `output.dir`", checkpoint.display())]
    CheckpointsInTheWay {
        /// The oldest of them.
        checkpoint: PathBuf,
    },
    /// `--resume` with a checkpoint of another run.
    #[error("can't resume from `{}`: the run is another now\n  {}\nhint: undo the change, or begin anew in another `output.dir`", checkpoint.display(), changes.join("\n  "))]
    AnotherRun {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// What differs, key by key.
        changes: Vec<String>,
    },
    /// A folder is to be made where something stands.
    #[error("`{}` is already there\nhint: replace it with `--force`, or give another folder with `--out`", folder.display())]
    ModelInTheWay {
        /// The folder.
        folder: PathBuf,
    },
    /// A job's file is to be written where one stands, which somebody may have changed.
    #[error("`{}` is already there\nhint: replace it with `--force`, or give another file with `--out`", path.display())]
    JobInTheWay {
        /// The file.
        path: PathBuf,
    },
    /// A folder is to be replaced that holds something else.
    #[error("`{}` is no model's folder, so it is not replaced\nhint: give another folder with `--out`", folder.display())]
    NoModelInTheWay {
        /// The folder.
        folder: PathBuf,
    },
    /// An adapter is to be folded into weights in a few bits, which can't hold the sum.
    #[error("the weights of `{}` are packed in a few bits, and what an adapter adds is lost in them\nhint: `--dequantize` widens them to `--dtype` for it; or merge into the model they were made of", model.display())]
    MergesPacked {
        /// The base model.
        model: PathBuf,
    },
    /// An adapter is put on other weights than it was trained on.
    #[error("the adapter in `{}` was trained on `{reference}`, whose weights are {expected}; those in `{}` are {found}\nhint: give the model it was trained on; or, where this is the same model stored in another way, remove `fthost.base.json` from the adapter's folder", adapter.display(), base.display())]
    OtherBase {
        /// The adapter's folder.
        adapter: PathBuf,
        /// The model's.
        base: PathBuf,
        /// Digest of its weights.
        found: String,
        /// What the adapter was trained on.
        reference: String,
        /// Digest of its weights.
        expected: String,
    },
    /// Adapters are to be combined that were trained on different weights.
    #[error("the adapter in `{}` was trained on `{one}` and that in `{}` on `{other}`, whose weights differ\nhint: combine adapters of one model; or, where it is one that is stored in two ways, remove `fthost.base.json` from their folders", first.display(), second.display())]
    TwoBases {
        /// An adapter's folder.
        first: PathBuf,
        /// What it was trained on.
        one: String,
        /// Another's.
        second: PathBuf,
        /// What that was trained on.
        other: String,
    },
    /// The blocks of something are to be kept that has none.
    #[error("`{}` is no GGUF file\nhint: `--keep-blocks` is for one; a folder's weights are packed by `--quant`", path.display())]
    NoBlocks {
        /// As given.
        path: PathBuf,
    },
    /// A path leads to nothing that can be looked at.
    #[error("`{}` is neither a GGUF file nor a folder with `config.json` or `adapter_config.json`", path.display())]
    NoModel {
        /// As given.
        path: PathBuf,
    },
    /// An option of other ways to combine adapters.
    #[error("`{option}` is no option of `{method}`\nhint: it goes with {of}")]
    OptionOfOthers {
        /// As typed.
        option: &'static str,
        /// The method asked for.
        method: &'static str,
        /// Methods that have the option.
        of: &'static str,
    },
    /// The hub gives no model.
    #[error("can't get {model} from {endpoint}: {reason}\nhint: {hint}")]
    Hub {
        /// Name, and revision where it is not `main`.
        model: String,
        /// The hub's address.
        endpoint: String,
        /// What happened.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// SIGINT or SIGTERM came; the step was finished and a checkpoint saved.
    #[error("interrupted by {} after step {step}; `{}` is saved\nhint: go on with `--resume`", signal_name(*signal), checkpoint.display())]
    Interrupted {
        /// The signal's number.
        signal: i32,
        /// Steps done.
        step: u64,
        /// What `--resume` goes on from.
        checkpoint: PathBuf,
    },
}

/// Results of a run.
pub type Result<T> = std::result::Result<T, RunError>;

impl RunError {
    /// 2 for the run file, 3 for data, 4 for plugins, 5 for numbers that are not finite, 128 and the signal's number
    /// for an interruption, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => 2,
            Self::Data(_)
            | Self::NothingToTrainOn { .. }
            | Self::NothingHeldOut
            | Self::Engine(EngineError::NothingSupervised { .. }) => 3,
            Self::TwoBuilders { .. }
            | Self::NoJudgeKey { .. }
            | Self::NoJudge { .. }
            | Self::NoReward { .. }
            | Self::NoScoreHead { .. }
            | Self::OptionOfOthers { .. }
            | Self::BlocksOfFolder { .. }
            | Self::NotForGguf { .. }
            | Self::Sandbox(SandboxError::NotFound { .. } | SandboxError::Config { .. }) => 2,
            Self::Registry(error) if error.is_usage() => 2,
            Self::Plugin(_)
            | Self::Sandbox(_)
            | Self::Registry(_)
            | Self::NoComponent { .. }
            | Self::NoResource { .. }
            | Self::NothingScored { .. }
            | Self::AnotherRewardModel { .. }
            | Self::ScoresDiffer { .. } => 4,
            Self::Engine(EngineError::NotFiniteStep { .. }) => 5,
            Self::Interrupted { signal, .. } => 128 + *signal as u8,
            Self::Engine(_)
            | Self::LostRank { .. }
            | Self::Output { .. }
            | Self::NothingToResume { .. }
            | Self::NoScores { .. }
            | Self::NoAudit { .. }
            | Self::NothingToCompare { .. }
            | Self::DamagedScores { .. }
            | Self::CheckpointsInTheWay { .. }
            | Self::ModelInTheWay { .. }
            | Self::JobInTheWay { .. }
            | Self::MergesPacked { .. }
            | Self::NoBlocks { .. }
            | Self::OtherBase { .. }
            | Self::TwoBases { .. }
            | Self::NoModelInTheWay { .. }
            | Self::NoModel { .. }
            | Self::Hub { .. }
            | Self::AnotherRun { .. } => 1,
        }
    }

    /// For `map_err` on writing `path`.
    pub(crate) fn output(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Output { path, source }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        2 => "SIGINT",
        15 => "SIGTERM",
        _ => "a signal",
    }
}

fn told(outcomes: &[(String, u64)]) -> String {
    let told = outcomes.iter().map(|(outcome, count)| format!("{outcome} {count}x"));
    told.collect::<Vec<_>>().join(", ")
}
