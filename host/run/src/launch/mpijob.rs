//! `[launch.mpijob]`: what a manifest asks of Kubeflow's mpi-operator.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::problem_of_variable;

/// Characters of a pod's name, which is its host's.
const LONGEST_NAME: usize = 63;

/// `[launch.mpijob]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MpiJobConfig {
    /// What pods run: fthost, Open MPI, an SSH server and a shell.
    pub image: String,
    /// When the image is pulled; the cluster's default if absent.
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets to pull the image with.
    pub image_pull_secrets: Vec<String>,
    /// The job's; the run file's if absent.
    pub name: Option<String>,
    /// Where the job is; that of kubectl's context if absent.
    pub namespace: Option<String>,
    /// Of all pods.
    pub service_account: Option<String>,
    /// The program in the image.
    pub program: String,
    /// Claims that all pods mount: model, data and the output folder are on them.
    pub volumes: Vec<VolumeConfig>,
    /// The folder, on a volume, that the run file's paths begin in; the first volume's if absent.
    pub workdir: Option<PathBuf>,
    /// Memory of a worker pod, `64Gi` for instance.
    pub memory: Option<String>,
    /// How often a failed job is started again, going on from its newest checkpoint.
    pub retries: u32,
    /// Seconds after which a finished job is removed; never if absent.
    pub ttl_seconds_after_finished: Option<u32>,
    /// Whether pods run as root, rather than as `user`.
    pub run_as_root: bool,
    /// Number of the user that pods run as.
    pub user: u32,
    /// That user's home in the image, with `.sshd_config` of a server that needs no root.
    pub home: PathBuf,
    /// Number of the group that volumes are given to.
    pub fs_group: Option<u32>,
    /// Labels of nodes that pods may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that pods may run on.
    pub tolerations: Vec<Toleration>,
    /// Of the job and its pods.
    pub labels: BTreeMap<String, String>,
    /// Of the job and its pods.
    pub annotations: BTreeMap<String, String>,
    /// Variables of the run's environment that are kept in secrets.
    pub secret_env: BTreeMap<String, SecretKey>,
    /// More options of `mpirun`.
    pub mpirun: Vec<String>,
}

/// `[[launch.mpijob.volumes]]`: a persistent volume claim.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeConfig {
    /// Its name.
    pub claim: String,
    /// Where pods see it.
    pub mount_path: PathBuf,
    /// The folder of it that they see; the whole if absent.
    pub sub_path: Option<String>,
    /// Whether nothing is written to it.
    pub read_only: bool,
}

/// A value that a secret keeps.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretKey {
    /// The secret's name.
    pub secret: String,
    /// The value's name in it.
    pub key: String,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Whenever a pod starts.
    Always,
    /// Where it is not on the node.
    IfNotPresent,
    /// It is on every node.
    Never,
}

/// A taint that pods bear, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Toleration {
    /// The taint's key; every key if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Equal` or `Exists`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The taint's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; every effect if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

impl Default for MpiJobConfig {
    fn default() -> Self {
        Self {
            image: String::new(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            name: None,
            namespace: None,
            service_account: None,
            program: "fthost".into(),
            volumes: Vec::new(),
            workdir: None,
            memory: None,
            retries: 3,
            ttl_seconds_after_finished: None,
            run_as_root: false,
            user: 1000,
            home: "/home/mpiuser".into(),
            fs_group: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            mpirun: Vec::new(),
        }
    }
}

impl MpiJobConfig {
    /// The folder that the run file's paths begin in.
    pub fn workdir(&self) -> &Path {
        let first = || self.volumes.first().map(|it| it.mount_path.as_path());
        self.workdir.as_deref().or_else(first).unwrap_or(Path::new("/"))
    }

    /// Whether a volume holds `path`, which is seen from [`Self::workdir`].
    pub(super) fn is_on_a_volume(&self, path: &Path, to_write: bool) -> bool {
        let path = self.workdir().join(path);
        // The innermost is what is seen there.
        let holding = self.volumes.iter().filter(|it| path.starts_with(&it.mount_path));
        let innermost = holding.max_by_key(|it| it.mount_path.components().count());
        innermost.is_some_and(|it| !(to_write && it.read_only))
    }

    /// Why ranks could not all write to `output`, the run file's `output.dir`.
    pub(super) fn problem_of_output(&self, output: &Path) -> Option<String> {
        let is_lost = !self.volumes.is_empty() && !self.is_on_a_volume(output, true);
        let seen = self.workdir().join(output);
        is_lost.then(|| {
            format!(
                "`output.dir` must be on one of `launch.mpijob.volumes` that is written to, got `{}`",
                seen.display()
            )
        })
    }

    /// Every impossible value of a job of `nodes` workers, each with its key.
    pub(super) fn problems(&self, nodes: usize) -> Vec<String> {
        let mut problems = Vec::new();
        if self.image.is_empty() {
            problems.push("`image` must be given: it holds fthost, Open MPI and an SSH server".into());
        }
        problems.extend(self.problems_of_names(nodes));
        problems.extend(self.problems_of_volumes());
        if let Some(memory) = self.memory.as_ref().filter(|it| !is_quantity(it)) {
            problems.push(format!("`memory` must be a quantity as `64Gi`, got `{}`", memory.escape_debug()));
        }
        if self.user == 0 && !self.run_as_root {
            problems.push("`user` = 0 is root: say `launch.mpijob.run_as_root` = true".into());
        }
        problems.extend(self.secret_env.keys().filter_map(|it| problem_of_variable(it, "secret_env")));
        let keyless = self.secret_env.iter().filter(|it| it.1.key.is_empty());
        problems.extend(keyless.map(|it| format!("`secret_env.{}.key` must be given", it.0)));
        if self.program.is_empty() || self.program.contains('\0') {
            problems.push(format!("`program` must be a program, got `{}`", self.program.escape_debug()));
        }
        if self.mpirun.iter().any(|it| it.contains('\0')) {
            problems.push("`mpirun` can't hold NUL".into());
        }
        problems
    }

    fn problems_of_names(&self, nodes: usize) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(name) = &self.name {
            let longest = longest_name(nodes);
            if !is_label(name) || name.len() > longest {
                problems.push(format!(
                    "`name` must be lower-case letters, digits and `-`, a letter first, {longest} characters at most, got `{}`",
                    name.escape_debug()
                ));
            }
        }
        let claims = self.volumes.iter().map(|it| ("volumes.claim", &it.claim));
        let secrets = self.secret_env.values().map(|it| ("secret_env", &it.secret));
        let names = [("namespace", &self.namespace), ("service_account", &self.service_account)];
        let named = names.into_iter().filter_map(|(key, it)| Some((key, it.as_ref()?)));
        let pulls = self.image_pull_secrets.iter().map(|it| ("image_pull_secrets", it));
        for (key, name) in named.chain(claims).chain(secrets).chain(pulls) {
            if name.is_empty() || !name.split('.').all(is_part) {
                problems.push(format!("`{key}` names nothing of Kubernetes with `{}`", name.escape_debug()));
            }
        }
        problems
    }

    fn problems_of_volumes(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.volumes.is_empty() {
            problems.push(
                "`volumes` must name a claim: ranks read the same files and write to one folder".into(),
            );
        }
        let absolute = [("workdir", self.workdir.as_deref()), ("home", Some(&*self.home))];
        let absolute = absolute.into_iter().filter_map(|(key, it)| Some((key, it?)));
        let mounts = self.volumes.iter().map(|it| ("volumes.mount_path", &*it.mount_path));
        for (key, path) in absolute.chain(mounts) {
            let is_plain =
                path.to_str().is_some_and(|it| !it.contains(|it: char| it.is_control() || it == ':'));
            if !path.is_absolute() || !is_plain {
                problems
                    .push(format!("`{key}` must be an absolute path without `:`, got `{}`", path.display()));
            }
        }
        let mut seen = BTreeSet::new();
        for volume in self.volumes.iter().filter(|it| !seen.insert(&it.mount_path)) {
            problems.push(format!("`volumes.mount_path` `{}` is there twice", volume.mount_path.display()));
        }
        if self.workdir.is_some() && !self.volumes.is_empty() && !self.is_on_a_volume(Path::new(""), true) {
            let got = self.workdir().display();
            problems.push(format!(
                "`workdir` must be on one of `launch.mpijob.volumes` that is written to, got `{got}`"
            ));
        }
        problems
    }
}

/// Characters of a job's name at most: its pods are called `<name>-worker-<number>`, its launcher `<name>-launcher`.
pub(super) fn longest_name(nodes: usize) -> usize {
    let worker = format!("-worker-{}", nodes.max(1) - 1).len();
    LONGEST_NAME - worker.max("-launcher".len())
}

/// Whether services may be called so: RFC 1035.
pub(super) fn is_label(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_lowercase()) && is_part(text)
}

/// Whether most things may be called so: RFC 1123.
fn is_part(text: &str) -> bool {
    let is_inner = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    text.starts_with(is_inner) && text.ends_with(is_inner) && text.chars().all(|it| is_inner(it) || it == '-')
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity>, of bytes.
fn is_quantity(text: &str) -> bool {
    let suffixes = ["Ki", "Mi", "Gi", "Ti", "Pi", "k", "M", "G", "T", "P"];
    let number = suffixes.iter().find_map(|it| text.strip_suffix(it)).unwrap_or(text);
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    [whole, part].iter().all(|it| !it.is_empty() && it.chars().all(|it| it.is_ascii_digit()))
}
