//! A batch script for Slurm: <https://slurm.schedmd.com/sbatch.html>.

use std::path::PathBuf;

use fthost_engine::device::DeviceKind;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::{Request, shell};
use crate::config::RunConfig;

/// What a run exits with that SIGTERM has ended.
const TERMINATED: u32 = 143;

/// Slurm may send its signal so many seconds early.
const EARLY: u32 = 60;

/// `[launch.slurm]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmConfig {
    /// The run file's name if absent.
    pub job_name: Option<String>,
    /// Where the job waits; the cluster's default if absent.
    pub partition: Option<String>,
    /// Who pays for it.
    pub account: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Time limit: minutes, `hours:minutes:seconds`, `days-hours`, ...; the partition's if absent.
    #[serde(deserialize_with = "text")]
    pub time: Option<String>,
    /// Memory of a node, `64G` for instance; a number alone is MiB.
    #[serde(deserialize_with = "text")]
    pub mem: Option<String>,
    /// Where the job's output goes, by sbatch's patterns. Its folder must be there when the job starts.
    pub output: String,
    /// How ranks find each other, `srun --mpi=list` names the ways that there are.
    pub mpi: String,
    /// The job is queued again where a node fails or another job takes its place.
    pub requeue: bool,
    /// The job is queued again where the time limit ended it.
    pub requeue_at_time_limit: bool,
    /// What `module load` is told before the run.
    pub modules: Vec<String>,
    /// Lines of the script before the run.
    pub setup: String,
    /// More options of the job, `--exclusive` for instance.
    pub sbatch: Vec<String>,
    /// More options of `srun`.
    pub srun: Vec<String>,
    /// The program on the nodes; the one that writes the script if absent.
    pub program: Option<PathBuf>,
}

impl Default for SlurmConfig {
    fn default() -> Self {
        Self {
            job_name: None,
            partition: None,
            account: None,
            qos: None,
            time: None,
            mem: None,
            output: "slurm-%x-%j.out".into(),
            mpi: "pmix".into(),
            requeue: true,
            requeue_at_time_limit: false,
            modules: Vec::new(),
            setup: String::new(),
            sbatch: Vec::new(),
            srun: Vec::new(),
            program: None,
        }
    }
}

impl SlurmConfig {
    /// Every impossible value of a job that is given `grace` seconds to end, each with its key.
    pub(super) fn problems(&self, grace: u32) -> Vec<String> {
        let mut problems = Vec::new();
        let named = [
            ("job_name", self.job_name.as_deref()),
            ("partition", self.partition.as_deref()),
            ("account", self.account.as_deref()),
            ("qos", self.qos.as_deref()),
            ("output", Some(&self.output)),
            ("mpi", Some(&self.mpi)),
            ("program", self.program.as_ref().and_then(|it| it.to_str())),
        ];
        // How sbatch reads quotes in its lines is not how a shell does.
        let is_plain =
            |it: &str| !it.is_empty() && !it.contains(|it: char| it.is_control() || "\"'\\#".contains(it));
        for (key, value) in named.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
            if !is_plain(value) {
                problems.push(format!(
                    "`{key}` must be a line without quotes, `\\` and `#`, got `{}`",
                    value.escape_debug()
                ));
            }
        }
        if let Some(time) = &self.time {
            match seconds(time) {
                None => problems.push(format!(
                    "`time` must be minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, \
                     days-hours:minutes:seconds or `UNLIMITED`, got `{}`",
                    time.escape_debug()
                )),
                Some(Some(limit)) if limit <= u64::from(grace) => problems.push(format!(
                    "`time` must be longer than `launch.grace_seconds` = {grace}, got `{time}`: the run would be ended as it begins"
                )),
                Some(_) => {}
            }
        }
        if let Some(mem) = self.mem.as_ref().filter(|it| !is_size(it)) {
            problems.push(format!("`mem` must be a number with K, M, G or T, got `{}`", mem.escape_debug()));
        }
        if self.requeue_at_time_limit && !self.requeue {
            problems.push("`requeue_at_time_limit` needs `launch.slurm.requeue` = true".into());
        }
        for option in self.sbatch.iter().filter(|it| !it.starts_with('-') || it.contains(char::is_control)) {
            problems.push(format!(
                "`sbatch` must be options, each a line that begins with `-`, got `{}`",
                option.escape_debug()
            ));
        }
        let words = self.modules.iter().chain(&self.srun).chain([&self.setup]);
        if words.into_iter().any(|it| it.contains('\0')) {
            problems.push("`modules`, `srun` and `setup` can't hold NUL".into());
        }
        problems
    }
}

/// What TOML may take for a number or a time: `90`, `02:00:00`.
fn text<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    match toml::Value::deserialize(value)? {
        toml::Value::String(text) => Ok(Some(text)),
        value @ (toml::Value::Integer(_) | toml::Value::Datetime(_)) => Ok(Some(value.to_string())),
        other => {
            Err(D::Error::custom(format!("invalid type: {}, expected text or a number", other.type_str())))
        }
    }
}

/// Seconds of a time limit, `None` of one that is no limit; outer `None` of what sbatch does not understand.
fn seconds(time: &str) -> Option<Option<u64>> {
    if ["unlimited", "infinite"].contains(&time.to_ascii_lowercase().as_str()) {
        return Some(None);
    }
    let (days, rest) = time.split_once('-').map_or((None, time), |(days, rest)| (Some(days), rest));
    let number = |it: &str| {
        it.chars().all(|it| it.is_ascii_digit()).then(|| it.parse::<u32>().ok()).flatten().map(u64::from)
    };
    let parts = rest.split(':').map(number).collect::<Option<Vec<u64>>>()?;
    let of_day = match (days.is_some(), &parts[..]) {
        (false, [minutes]) => minutes * 60,
        (false, [minutes, seconds]) => minutes * 60 + seconds,
        (true, [hours]) => hours * 3600,
        (true, [hours, minutes]) => hours * 3600 + minutes * 60,
        (_, [hours, minutes, seconds]) => hours * 3600 + minutes * 60 + seconds,
        _ => return None,
    };
    let seconds = days.map_or(Some(0), number)? * 86_400 + of_day;
    // To sbatch, nothing is no limit.
    Some(Some(seconds).filter(|it| *it > 0))
}

fn is_size(text: &str) -> bool {
    let digits = text.strip_suffix(|it: char| "KMGT".contains(it.to_ascii_uppercase())).unwrap_or(text);
    !digits.is_empty() && digits.chars().all(|it| it.is_ascii_digit())
}

/// The script of a run that was checked.
pub(super) fn script(config: &RunConfig, request: &Request) -> String {
    let absent = SlurmConfig::default();
    let slurm = config.launch.slurm.as_ref().unwrap_or(&absent);
    let mut text = "#!/bin/bash\n# Written by `fthost launch`.\n".to_string();
    for option in options(config, slurm, request) {
        text += &format!("#SBATCH {option}\n");
    }
    text += "\n";
    if slurm.modules.is_empty() && slurm.setup.is_empty() {
        text += "set -euo pipefail\n";
    } else {
        text += "set -eo pipefail\n";
        if !slurm.modules.is_empty() {
            let modules: Vec<String> = slurm.modules.iter().map(|it| shell::word(it)).collect();
            text += &format!("module load {}\n", modules.join(" "));
        }
        if !slurm.setup.is_empty() {
            text += &format!("{}\n", slurm.setup.trim_end());
        }
        // Modules and environments often read variables that are not set.
        text += "set -u\n";
    }
    text += &format!("cd {}\n", shell::word(path(&request.folder)));
    text += "export RAYON_NUM_THREADS=\"$SLURM_CPUS_PER_TASK\"\n";
    for (name, value) in &config.launch.env {
        text += &format!("export {name}={}\n", shell::word(value));
    }
    let file = path(&request.file);
    let output = request.file.parent().unwrap_or(std::path::Path::new("")).join(&config.output.dir);
    text += &format!("\n{}\n", shell::resume(path(&output)));
    // One rank that fails ends all; without its number of cores a step of Slurm takes one for each rank.
    let mut words: Vec<String> = ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=\"$SLURM_CPUS_PER_TASK\""]
        .map(String::from)
        .to_vec();
    words.push(format!("--mpi={}", shell::word(&slurm.mpi)));
    words.extend(slurm.srun.iter().map(|it| shell::word(it)));
    words.extend(request.command(path(slurm.program.as_ref().unwrap_or(&request.program)), file));
    text += &shell::command(&words);
    match slurm.requeue_at_time_limit {
        true => text + &requeue(config.launch.grace_seconds),
        false => text + "\n",
    }
}

/// What the job asks for, a line each.
fn options(config: &RunConfig, slurm: &SlurmConfig, request: &Request) -> Vec<String> {
    let launch = &config.launch;
    let name = request.name(|it| it.is_ascii_alphanumeric() || "._-".contains(it));
    let quoted = |it: &str| if it.contains(' ') { format!("\"{it}\"") } else { it.to_string() };
    let mut options = vec![
        format!("--job-name={}", quoted(slurm.job_name.as_ref().unwrap_or(&name))),
        format!("--nodes={}", launch.nodes),
        format!("--ntasks-per-node={}", launch.ranks_per_node),
        format!("--cpus-per-task={}", launch.cores_per_rank),
    ];
    let asked = [
        ("mem", &slurm.mem),
        ("time", &slurm.time),
        ("partition", &slurm.partition),
        ("account", &slurm.account),
        ("qos", &slurm.qos),
    ];
    options.extend(asked.iter().filter_map(|(key, it)| Some(format!("--{key}={}", quoted(it.as_deref()?)))));
    let says_gpus =
        slurm.sbatch.iter().any(|it| ["--gpu", "--gres", "-G"].iter().any(|key| it.starts_with(key)));
    if request.device != DeviceKind::Cpu && !says_gpus {
        options.push(format!("--gpus-per-node={}", launch.ranks_per_node));
    }
    options.push(format!("--output={}", quoted(&slurm.output)));
    // A job that is queued again goes on in the same file.
    options.push("--open-mode=append".into());
    // To the ranks, not to this script: they end with a checkpoint.
    options.push(format!("--signal=TERM@{}", launch.grace_seconds));
    options.push(if slurm.requeue { "--requeue" } else { "--no-requeue" }.into());
    options.extend(slurm.sbatch.iter().cloned());
    options
}

/// What follows the run where a job that its time limit has ended is to be queued again.
fn requeue(grace: u32) -> String {
    let window = grace + EARLY;
    format!(
        " || code=$?\n\n\
         # Ended by the signal before the time limit, not by somebody's: the job goes on when its turn comes again.\n\
         if [ \"${{code:-0}}\" -eq {TERMINATED} ]; then\n  \
         end=${{SLURM_JOB_END_TIME:-$(date -d \"$(squeue -h -j \"$SLURM_JOB_ID\" -o %e)\" +%s)}}\n  \
         if [ \"$(date +%s)\" -ge $((end - {window})) ]; then exec scontrol requeue \"$SLURM_JOB_ID\"; fi\n\
         fi\nexit \"${{code:-0}}\"\n"
    )
}

/// What [`super::Launch::new`] has seen to be text.
fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("paths that are no text were refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_sbatch() {
        let limits = [
            ("90", Some(Some(5400))),
            ("90:30", Some(Some(5430))),
            ("1:30:00", Some(Some(5400))),
            ("2-0", Some(Some(172_800))),
            ("1-1:30", Some(Some(91_800))),
            ("1-01:30:05", Some(Some(91_805))),
            ("UNLIMITED", Some(None)),
            ("0", Some(None)),
            ("1h", None),
            ("", None),
            ("-1", None),
            ("1-", None),
            ("1:2:3:4", None),
            ("99999999999", None),
        ];
        for (time, limit) in limits {
            assert_eq!(seconds(time), limit, "{time}");
        }
    }
}
