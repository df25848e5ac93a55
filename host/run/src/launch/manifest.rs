//! The manifest of an MPIJob, `kubeflow.org/v2beta1`, and of a ConfigMap with its run file.
//!
//! The schema is that of <https://github.com/kubeflow/mpi-operator>, `pkg/apis/kubeflow/v2beta1/types.go` and
//! `pkg/apis/kubeflow/validation/validation.go`; what the operator adds to pods stands in
//! `pkg/controller/mpi_job_controller.go`.

use std::path::Path;

use fthost_engine::device::DeviceKind;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::mpijob::{self, MpiJobConfig};
use super::{LaunchConfig, Request, shell};
use crate::config::RunConfig;

/// Where the launcher finds the run file, which is in the manifest.
const MOUNTED: &str = "/etc/fthost";
const RUN_FILE: &str = "run.toml";

/// Seconds that a pod has left when its run did not end in time.
const SPARE_SECONDS: u32 = 30;

/// What `mpirun` itself takes.
const LAUNCHER_CPU: &str = "500m";
const LAUNCHER_MEMORY: &str = "512Mi";

/// Where root's keys are, in every image.
const ROOT_SSH: &str = "/root/.ssh";

/// Asks the ranks of a worker that is to go to end, and waits for it: the server beside them ends at once, and all with it. The
/// first argument is the program's name.
const PRE_STOP: &str = r#"ranks() {
  for it in /proc/[0-9]*; do
    if [ "$(cat "$it/comm" 2>/dev/null)" = "$1" ]; then echo "${it#/proc/}"; fi
  done
}
for rank in $(ranks "$1"); do kill -TERM "$rank"; done
while [ -n "$(ranks "$1")" ]; do sleep 1; done
"#;

/// Hands SIGTERM on, and ends as what it waits for.
const HANDS_ON: &str = r#"mpirun=$!
# Open MPI kills ranks on SIGTERM. It hands SIGUSR1 on to them, and they end with a checkpoint.
trap 'kill -USR1 "$mpirun"' TERM
code=0
wait "$mpirun" || code=$?
# A signal ends the waiting, not yet mpirun.
while kill -0 "$mpirun" 2>/dev/null; do
  code=0
  wait "$mpirun" || code=$?
done
exit "$code"
"#;

/// The manifest of a run that was checked, whose file has `text`.
pub(super) fn manifest(config: &RunConfig, request: &Request, text: &str) -> String {
    let launch = &config.launch;
    let absent = MpiJobConfig::default();
    let job = Job {
        launch,
        mpijob: launch.mpijob.as_ref().unwrap_or(&absent),
        request,
        output: &config.output.dir,
    };
    let run_file = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": job.metadata(&job.config_map(), false),
        "data": {RUN_FILE: text},
    });
    let name = job.name();
    let spec = json!({
        "slotsPerWorker": launch.ranks_per_node,
        "mpiImplementation": "OpenMPI",
        "sshAuthMountPath": job.ssh(),
        "launcherCreationPolicy": "WaitForWorkersReady",
        "runPolicy": present(json!({
            "cleanPodPolicy": "Running",
            "backoffLimit": job.mpijob.retries,
            "ttlSecondsAfterFinished": job.mpijob.ttl_seconds_after_finished,
        })),
        "mpiReplicaSpecs": {
            "Launcher": {"replicas": 1, "restartPolicy": "Never", "template": job.launcher()},
            "Worker": {"replicas": launch.nodes, "restartPolicy": "OnFailure", "template": job.worker()},
        },
    });
    let mpijob = json!({
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": job.metadata(&name, true),
        "spec": spec,
    });
    format!("# Written by `fthost launch`.\n{}---\n{}", yaml(&run_file), yaml(&mpijob))
}

/// Paths of a run file that no pod finds on a volume.
pub(super) fn notes(config: &RunConfig) -> Vec<String> {
    let Some(mpijob) = &config.launch.mpijob else { return Vec::new() };
    let model = config.model.path.iter().map(|it| ("model.path", it));
    let files = config.data.files.iter().map(|it| ("data.files", it));
    let lost = model.chain(files).filter(|it| !mpijob.is_on_a_volume(it.1, false));
    lost.map(|(key, it)| format!("`{key}` is on no volume, so the image must hold it: `{}`", it.display()))
        .collect()
}

struct Job<'a> {
    launch: &'a LaunchConfig,
    mpijob: &'a MpiJobConfig,
    request: &'a Request,
    /// As the run file has it.
    output: &'a Path,
}

impl Job<'_> {
    fn name(&self) -> String {
        if let Some(name) = &self.mpijob.name {
            return name.clone();
        }
        let mut name = self.request.name(|it| it.is_ascii_alphanumeric()).to_ascii_lowercase();
        if !mpijob::is_label(name.trim_matches('-')) {
            name = format!("run-{}", name.trim_matches('-'));
        }
        let longest = mpijob::longest_name(self.launch.nodes);
        name.trim_matches('-').chars().take(longest).collect::<String>().trim_end_matches('-').to_string()
    }

    fn config_map(&self) -> String {
        format!("{}-run-file", self.name())
    }

    fn metadata(&self, name: &str, is_job: bool) -> Value {
        let annotations = if is_job { &self.mpijob.annotations } else { &Default::default() };
        present(json!({
            "name": name,
            "namespace": self.mpijob.namespace,
            "labels": self.mpijob.labels,
            "annotations": annotations,
        }))
    }

    fn ssh(&self) -> String {
        match self.mpijob.run_as_root {
            true => ROOT_SSH.to_string(),
            false => self.mpijob.home.join(".ssh").display().to_string(),
        }
    }

    fn launcher(&self) -> Value {
        let small = json!({"cpu": LAUNCHER_CPU, "memory": LAUNCHER_MEMORY});
        let container = json!({
            "name": "launcher",
            "image": self.mpijob.image,
            "imagePullPolicy": self.mpijob.image_pull_policy,
            "command": ["/bin/sh", "-c", escaped(&self.script())],
            "env": self.variables(),
            "resources": {"requests": small, "limits": {"memory": LAUNCHER_MEMORY}},
            "volumeMounts": self.mounts(json!({"name": "run-file", "mountPath": MOUNTED, "readOnly": true})),
        });
        self.pod(container, json!({"name": "run-file", "configMap": {"name": self.config_map()}}))
    }

    fn worker(&self) -> Value {
        let server = match self.mpijob.run_as_root {
            true => json!(["/usr/sbin/sshd", "-De"]),
            false => json!(["/usr/sbin/sshd", "-De", "-f", self.mpijob.home.join(".sshd_config")]),
        };
        let ranks = self.launch.ranks_per_node;
        // As many devices as processes: each takes one.
        let devices = (self.request.device != DeviceKind::Cpu).then_some(ranks);
        let limits = present(json!({"memory": self.mpijob.memory, "nvidia.com/gpu": devices}));
        let mut requests = present(json!({
            "cpu": (ranks * self.launch.cores_per_rank).to_string(), "memory": self.mpijob.memory,
        }));
        if let Some(devices) = devices {
            requests["nvidia.com/gpu"] = json!(devices);
        }
        let program = Path::new(&self.mpijob.program).file_name().map(|it| it.to_string_lossy());
        // The kernel knows a process by fifteen characters.
        let comm: String = program.unwrap_or_default().chars().take(15).collect();
        let container = json!({
            "name": "worker",
            "image": self.mpijob.image,
            "imagePullPolicy": self.mpijob.image_pull_policy,
            "command": server,
            "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", PRE_STOP, "sh", comm]}}},
            "resources": present(json!({"requests": requests, "limits": limits})),
            "volumeMounts": self.mounts(json!({"name": "shared-memory", "mountPath": "/dev/shm"})),
        });
        self.pod(container, json!({"name": "shared-memory", "emptyDir": {"medium": "Memory"}}))
    }

    /// A pod of one container, with the claims and one volume more.
    fn pod(&self, container: Value, more: Value) -> Value {
        let mpijob = self.mpijob;
        let claims = mpijob.volumes.iter().enumerate();
        let mut volumes: Vec<Value> = claims
            .map(|(index, it)| {
                json!({"name": format!("volume-{index}"), "persistentVolumeClaim": {"claimName": it.claim}})
            })
            .collect();
        volumes.push(more);
        let secrets: Vec<Value> = mpijob.image_pull_secrets.iter().map(|it| json!({"name": it})).collect();
        let user = if mpijob.run_as_root { 0 } else { mpijob.user };
        let spec = present(json!({
            "terminationGracePeriodSeconds": self.launch.grace_seconds + SPARE_SECONDS,
            "serviceAccountName": mpijob.service_account,
            "imagePullSecrets": secrets,
            "securityContext": present(json!({"runAsUser": user, "fsGroup": mpijob.fs_group})),
            "nodeSelector": mpijob.node_selector,
            "tolerations": mpijob.tolerations,
            "containers": [present(container)],
            "volumes": volumes,
        }));
        let metadata = present(json!({"labels": mpijob.labels, "annotations": mpijob.annotations}));
        present(json!({"metadata": metadata, "spec": spec}))
    }

    fn mounts(&self, more: Value) -> Vec<Value> {
        let claims = self.mpijob.volumes.iter().enumerate().map(|(index, it)| {
            present(json!({
                "name": format!("volume-{index}"),
                "mountPath": it.mount_path,
                "subPath": it.sub_path,
                "readOnly": it.read_only.then_some(true),
            }))
        });
        claims.chain([more]).collect()
    }

    /// Variables of the launcher, which hands them to the ranks.
    fn variables(&self) -> Vec<Value> {
        let threads = ("RAYON_NUM_THREADS", self.launch.cores_per_rank.to_string());
        let plain = self.launch.env.iter().map(|(name, it)| (name.as_str(), escaped(it)));
        let plain =
            [threads].into_iter().chain(plain).map(|(name, value)| json!({"name": name, "value": value}));
        let secret = self.mpijob.secret_env.iter().map(|(name, it)| {
            json!({"name": name, "valueFrom": {"secretKeyRef": {"name": it.secret, "key": it.key}}})
        });
        plain.chain(secret).collect()
    }

    /// What the launcher does.
    fn script(&self) -> String {
        let (mpijob, launch) = (self.mpijob, self.launch);
        let file = format!(".{}.toml", self.name());
        let word = |it: &Path| shell::word(&it.to_string_lossy());
        // Open MPI would bind each of two ranks to one core.
        let mut words = vec![format!("mpirun -np {} --bind-to none", launch.ranks())];
        if mpijob.run_as_root {
            words.push("--allow-run-as-root".into());
        }
        let names = ["PATH", "RAYON_NUM_THREADS"].into_iter();
        let names = names.chain(launch.env.keys().chain(mpijob.secret_env.keys()).map(String::as_str));
        words.extend(names.map(|it| format!("-x {it}")));
        words.extend(mpijob.mpirun.iter().map(|it| shell::word(it)));
        words.extend(self.request.command(&mpijob.program, &file));
        format!(
            "set -eu\ncd {}\n\
             # The run file's paths begin in the folder that it is in.\n\
             cp {MOUNTED}/{RUN_FILE} {}\n{}{} &\n{HANDS_ON}",
            word(mpijob.workdir()),
            shell::word(&file),
            shell::resume(&self.output.to_string_lossy()),
            shell::command(&words)
        )
    }
}

/// Text in which Kubernetes puts no variable in place of `$(NAME)`.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    let mut rest = text.chars().peekable();
    while let Some(it) = rest.next() {
        escaped.push(it);
        if it == '$' && matches!(rest.peek(), Some('$' | '(')) {
            escaped.push('$');
        }
    }
    escaped
}

/// An object without what is null or empty.
fn present(object: Value) -> Value {
    let is_absent = |it: &Value| match it {
        Value::Null => true,
        Value::Array(it) => it.is_empty(),
        Value::Object(it) => it.is_empty(),
        _ => false,
    };
    match object {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|it| !is_absent(&it.1)).collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// Texts that another reader would take for something else are quoted, long ones are blocks.
fn yaml(value: &impl Serialize) -> String {
    let mut text = String::new();
    serde_saphyr::to_fmt_writer(&mut text, value).expect("JSON is written as YAML");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `third_party/forked/golang/expansion` of Kubernetes reads it: `$$` is `$`, `$(` begins a variable, else `$` is itself.
    #[test]
    fn kubernetes_reads_dollars_as_they_were() {
        for text in ["$(PATH)", "$$(PATH)", "a$", "$x $$x $$$", "\"$@\"", "cost: 5$("] {
            let (mut read, rest) = (String::new(), escaped(text));
            let mut rest = rest.chars().peekable();
            while let Some(it) = rest.next() {
                read.push(it);
                match (it, rest.peek()) {
                    ('$', Some('$')) => drop(rest.next()),
                    ('$', Some('(')) => panic!("a variable in {text}"),
                    _ => {}
                }
            }
            assert_eq!(read, text);
        }
    }
}
