//! `fthost launch`: the batch script or the manifest by which a cluster starts a run. Nothing is submitted here, and a job does
//! what `fthost run` with the same arguments does.

mod manifest;
mod mpijob;
mod shell;
mod slurm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_engine::EngineError;
use fthost_engine::device::DeviceKind;
use fthost_engine::estimate::scaling::Speeds;
use serde::Deserialize;

pub use self::mpijob::{MpiJobConfig, PullPolicy, SecretKey, Toleration, VolumeConfig};
pub use self::slurm::SlurmConfig;
use crate::config::{RunConfig, invalid};
use crate::error::{Result, RunError};
use crate::train::unknown_on_ranks;

/// Slurm sends a signal this many seconds before the end at most.
const LONGEST_GRACE: u32 = 65_535;

/// `[launch]`: what a job asks of a cluster.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LaunchConfig {
    /// Machines; of Kubernetes, worker pods.
    pub nodes: usize,
    /// Processes of each.
    pub ranks_per_node: usize,
    /// Cores, and so threads, of each process.
    pub cores_per_rank: usize,
    /// Seconds between the signal that asks a run to end and the one that ends it: a step and a checkpoint take less.
    pub grace_seconds: u32,
    /// Variables of the run's environment.
    pub env: BTreeMap<String, String>,
    /// What a batch script asks of Slurm.
    pub slurm: Option<SlurmConfig>,
    /// What a manifest asks of Kubeflow's mpi-operator.
    pub mpijob: Option<MpiJobConfig>,
    /// What ranks compute and links carry, for `fthost estimate`.
    pub speeds: Option<Speeds>,
}

impl Default for LaunchConfig {
    fn default() -> Self {
        Self {
            nodes: 1,
            ranks_per_node: 1,
            cores_per_rank: 4,
            grace_seconds: 300,
            env: BTreeMap::new(),
            slurm: None,
            mpijob: None,
            speeds: None,
        }
    }
}

impl LaunchConfig {
    /// Ranks of the run.
    pub fn ranks(&self) -> usize {
        self.nodes.saturating_mul(self.ranks_per_node)
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let counts = [
            ("nodes", self.nodes),
            ("ranks_per_node", self.ranks_per_node),
            ("cores_per_rank", self.cores_per_rank),
        ];
        let zero = counts.iter().filter(|it| it.1 == 0);
        let mut problems: Vec<String> = zero.map(|it| format!("`{}` must be > 0, got `0`", it.0)).collect();
        let speeds = self.speeds.iter().flat_map(Speeds::problems);
        problems.extend(speeds.map(|it| it.replacen('`', "`speeds.", 1)));
        let grace = self.grace_seconds;
        if !(1..=LONGEST_GRACE).contains(&grace) {
            problems.push(format!("`grace_seconds` must be in [1, {LONGEST_GRACE}], got `{grace}`"));
        }
        for (name, value) in &self.env {
            problems.extend(problem_of_variable(name, "env"));
            if value.contains('\0') {
                problems.push(format!("`env.{name}` holds NUL"));
            }
        }
        let mut under = |section: &str, found: Vec<String>| {
            problems.extend(found.iter().map(|it| it.replacen('`', &format!("`{section}."), 1)));
        };
        if let Some(slurm) = &self.slurm {
            under("slurm", slurm.problems(grace));
        }
        if let Some(mpijob) = &self.mpijob {
            under("mpijob", mpijob.problems(self.nodes));
            let twice = mpijob.secret_env.keys().filter(|it| self.env.contains_key(*it));
            problems.extend(twice.map(|it| format!("`env.{it}` is `launch.mpijob.secret_env.{it}`, too")));
        }
        problems
    }

    /// `2 nodes x 4 ranks x 4 cores`.
    fn shape(&self) -> String {
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        [(self.nodes, "node"), (self.ranks_per_node, "rank"), (self.cores_per_rank, "core")]
            .map(|(it, what)| count(it, what))
            .join(" x ")
    }
}

/// Why a shell or a container could not have a variable `name`, which stands in table `table`.
fn problem_of_variable(name: &str, table: &str) -> Option<String> {
    let is_name = !name.starts_with(|it: char| it.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_');
    match name {
        "RAYON_NUM_THREADS" => Some(format!("`{table}.{name}` is what `launch.cores_per_rank` sets")),
        _ if !is_name => Some(format!("`{table}` names no variable with `{}`", name.escape_debug())),
        _ => None,
    }
}

/// Degrees of `[parallel]` that are not those of the job's ranks.
fn problems_of_mesh(config: &RunConfig) -> Vec<String> {
    match config.parallel.degrees(config.train.data_parallel) {
        Err(EngineError::Invalid { problems, .. }) if config.parallel.problems().is_empty() => {
            problems.iter().map(|it| it.replace("`data_parallel", "`parallel.data_parallel")).collect()
        }
        _ => Vec::new(),
    }
}

/// What starts a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `sbatch`.
    Slurm,
    /// Kubeflow's mpi-operator, by `kubectl`.
    MpiJob,
}

impl Target {
    /// Of the file that is written beside the run file.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Slurm => "sbatch",
            Self::MpiJob => "mpijob.yaml",
        }
    }

    /// The command, for a shell, that submits the job in `file`.
    pub fn submission(self, file: &Path) -> String {
        let file = shell::word(&file.display().to_string());
        match self {
            Self::Slurm => format!("sbatch {file}"),
            Self::MpiJob => format!("kubectl apply -f {file}"),
        }
    }

    /// The one that is asked for, else the one that the run file has a section of.
    fn of(asked: Option<Self>, config: &LaunchConfig) -> std::result::Result<Self, String> {
        match (asked, &config.slurm, &config.mpijob) {
            (Some(target), ..) => Ok(target),
            (None, Some(_), None) => Ok(Self::Slurm),
            (None, None, Some(_)) => Ok(Self::MpiJob),
            (None, Some(_), Some(_)) => {
                Err("both `launch.slurm` and `launch.mpijob` are there: `--to` says which is meant".into())
            }
            (None, None, None) => {
                Err("neither `launch.slurm` nor `launch.mpijob` is there: `--to` says which is meant".into())
            }
        }
    }
}

/// What is to be launched: `fthost run` with these arguments.
#[derive(Debug, Clone)]
pub struct Request {
    /// The run file, as it is named in `folder`.
    pub file: PathBuf,
    /// `key=value`.
    pub overrides: Vec<String>,
    /// In place of the run file's.
    pub plugin_sets: Vec<String>,
    /// Whether plugins are those of the lock file.
    pub locked: bool,
    /// Where to compute.
    pub device: DeviceKind,
    /// What starts it; what the run file has a section of if absent.
    pub to: Option<Target>,
    /// Where the program is called.
    pub folder: PathBuf,
    /// The program that is called, where the run file names no other.
    pub program: PathBuf,
}

/// A job, ready to be submitted.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What starts it.
    pub target: Target,
    /// The batch script or manifest.
    pub text: String,
    /// What it asks for, in words.
    pub shape: String,
    /// What may be wrong.
    pub notes: Vec<String>,
}

impl Launch {
    /// Checks a run file, as it will be on its ranks, and makes a job of it.
    ///
    /// # Errors
    /// Everything that is wrong with the run file; what several ranks or the job can't do, besides.
    pub fn new(request: &Request) -> Result<Self> {
        let file = &request.file;
        let mut config = RunConfig::as_typed(file, &request.overrides, &request.plugin_sets)?;
        config.train.data_parallel = config.launch.ranks().max(1);
        let mut problems = config.problems();
        if config.train.data_parallel > 1 {
            problems.extend(unknown_on_ranks(&config));
        }
        problems.extend(problems_of_mesh(&config));
        let target = Target::of(request.to, &config.launch).map_err(|it| problems.push(it)).ok();
        if target == Some(Target::MpiJob) {
            let under = |it: String| it.replacen('`', "`launch.mpijob.", 1);
            let section = config.launch.mpijob.get_or_insert_with(|| {
                let absent = MpiJobConfig::default();
                problems.extend(absent.problems(1).into_iter().map(under));
                absent
            });
            problems.extend(section.problem_of_output(&config.output.dir));
        }
        let named = [
            ("the run file", file),
            ("this folder", &request.folder),
            ("this program", &request.program),
            ("`output.dir`", &config.output.dir),
        ];
        for (what, path) in named {
            if path.to_str().is_none_or(|it| it.contains(char::is_control)) {
                problems.push(format!("{what} is no line of text, got `{}`", path.display()));
            }
        }
        let (true, Some(target)) = (problems.is_empty(), target) else {
            return Err(invalid(file, problems));
        };
        let (text, notes) = match target {
            Target::Slurm => (slurm::script(&config, request), Vec::new()),
            Target::MpiJob => {
                let text = std::fs::read_to_string(file).map_err(|it| invalid(file, vec![it.to_string()]))?;
                (manifest::manifest(&config, request, &text), manifest::notes(&config))
            }
        };
        Ok(Self { target, text, shape: config.launch.shape(), notes })
    }

    /// Writes the job to `path`; what stands there is replaced only with `force`, or where it is the same.
    ///
    /// # Errors
    /// [`RunError::JobInTheWay`]; a file that can't be written.
    pub fn write(&self, path: &Path, force: bool) -> Result<()> {
        if !force && path.exists() && std::fs::read_to_string(path).ok().as_ref() != Some(&self.text) {
            return Err(RunError::JobInTheWay { path: path.to_path_buf() });
        }
        std::fs::write(path, &self.text).map_err(RunError::output(path))
    }
}

impl Request {
    /// The words of a shell that run `file` by `program`; what is appended comes from [`shell::resume`].
    fn command(&self, program: &str, file: &str) -> Vec<String> {
        // What only says how a job is made is said by the job.
        let is_launch = |it: &str| it == "launch" || it.starts_with("launch.");
        let key = |pair: &str| pair.split_once('=').map_or(String::new(), |it| it.0.trim().to_string());
        let mut words = vec![shell::word(program), "run".into(), shell::word(file)];
        for pair in self.overrides.iter().filter(|it| !is_launch(&key(it))) {
            words.push(format!("--set {}", shell::word(pair)));
        }
        words.extend(self.plugin_sets.iter().map(|it| format!("--plugins {}", shell::word(it))));
        if self.locked {
            words.push("--locked".into());
        }
        if self.device != DeviceKind::Cpu {
            words.push("--device cuda".into());
        }
        words.push("\"$@\"".into());
        words
    }

    /// The run file's name without its extension, of characters that `is_allowed` says, others being `-`.
    fn name(&self, is_allowed: impl Fn(char) -> bool) -> String {
        let stem = self.file.file_stem().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
        stem.chars().map(|it| if is_allowed(it) { it } else { '-' }).collect()
    }
}
