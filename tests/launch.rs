//! `fthost launch`: what it writes, and that a cluster could run it. Slurm and Kubernetes are not here: `srun`, `scontrol` and, in
//! one test, `mpirun` are scripts that record how they were called.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::mpirun::mpirun;
use crate::support::workplace::{RUN_FILE, run, said, workplace};

const SLURM: &str = r#"
[launch]
nodes = 2
ranks_per_node = 4
cores_per_rank = 8
env.HF_HOME = "/scratch/my cache"

[launch.slurm]
partition = "gpu long"
account = "lab"
qos = "normal"
time = "1-00:00:00"
mem = "64G"
requeue_at_time_limit = true
modules = ["openmpi/4.1", "gcc"]
setup = "source ~/env.sh\nulimit -l unlimited"
sbatch = ["--exclusive"]
srun = ["--label"]
program = "/opt/fthost/bin/fthost"
"#;

const MPIJOB: &str = r#"
[launch]
nodes = 2
ranks_per_node = 4
cores_per_rank = 8
env.NOTE = "costs 5$ (yes)"

[launch.mpijob]
image = "registry.example/fthost:1"
image_pull_policy = "IfNotPresent"
image_pull_secrets = ["pull"]
namespace = "team"
service_account = "trainer"
workdir = "/data/project"
memory = "64Gi"
ttl_seconds_after_finished = 86400
fs_group = 1000
secret_env.HF_TOKEN = { secret = "hub", key = "token" }
node_selector = { pool = "yes" }
tolerations = [{ key = "dedicated", operator = "Exists", effect = "NoSchedule" }]
labels = { team = "on" }
annotations = { "sidecar.istio.io/inject" = "false" }
volumes = [
    { claim = "data", mount_path = "/data" },
    { claim = "models", mount_path = "/data/models", sub_path = "a", read_only = true },
]
"#;

/// `fthost launch run.toml` with more arguments, called in the run file's folder.
fn launch(path: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fthost"));
    command.arg("launch").arg(path.file_name().unwrap()).args(more);
    command.current_dir(path.parent().unwrap()).output().unwrap()
}

/// What a dry run prints, without names of this machine.
fn printed(path: &Path, more: &[&str]) -> String {
    let output = launch(path, &[&["--dry-run"], more].concat());
    let folder = path.parent().unwrap();
    assert!(output.status.success(), "{}", said(&output, folder));
    let text = String::from_utf8(output.stdout).unwrap();
    text.replace(folder.to_str().unwrap(), "/jobs").replace(env!("CARGO_BIN_EXE_fthost"), "/bin/fthost")
}

fn with(section: &str) -> (tempfile::TempDir, PathBuf) {
    workplace(&format!("{RUN_FILE}{section}"))
}

/// What `sh` says of a script that it only reads.
fn is_shell(shell: &str, text: &str) {
    let output = Command::new(shell).args(["-n", "-c", text]).output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_slurm_script_is_made_of_the_run_file() {
    let (_folder, path) = with(SLURM);
    let script = printed(&path, &["--set", "data.on_bad_row=skip", "--locked"]);
    insta::assert_snapshot!("slurm", script);
    is_shell("bash", &script);
    let (_folder, path) = with("");
    let script = printed(&path, &["--to", "slurm", "--device", "cuda"]);
    insta::assert_snapshot!("slurm_by_default", script);
    is_shell("bash", &script);
}

#[test]
fn a_manifest_is_made_of_the_run_file() {
    let (_folder, path) = with(MPIJOB);
    insta::assert_snapshot!("mpijob", printed(&path, &["--set", "data.on_bad_row=skip"]));
}

#[test]
fn a_job_is_written_beside_the_run_file_and_never_over_another() {
    let (folder, path) = with(SLURM);
    let output = launch(&path, &[]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    insta::assert_snapshot!(said(&output, folder.path()), @"wrote `run.sbatch` (2 nodes x 4 ranks x 8 cores); submit it with `sbatch run.sbatch`");
    let written = folder.path().join("run.sbatch");
    assert!(launch(&path, &[]).status.success(), "it is the same");
    std::fs::write(&written, "mine").unwrap();
    let output = launch(&path, &[]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    error: `run.sbatch` is already there
    hint: replace it with `--force`, or give another file with `--out`
    ");
    assert_eq!(std::fs::read_to_string(&written).unwrap(), "mine");
    let output = launch(&path, &["--force"]);
    assert!(output.status.success() && std::fs::read_to_string(&written).unwrap().contains("srun"));
    let output = launch(&path, &["--out", "a job"]);
    assert!(said(&output, folder.path()).contains("submit it with `sbatch 'a job'`"));
}

#[test]
fn all_that_is_wrong_is_told_before_anything_is_written() {
    let (folder, path) = with(
        "[launch]\nnodes = 0\nenv.\"A B\" = \"\"\nenv.RAYON_NUM_THREADS = \"3\"\n\
         [launch.slurm]\ntime = \"1h\"\nmem = \"many\"\npartition = \"a'b\"\nsbatch = [\"exclusive\"]\n\
         requeue = false\nrequeue_at_time_limit = true\n\
         [launch.mpijob]\nname = \"My_Run\"\nmemory = \"64GB\"\nworkdir = \"here\"\nuser = 0\n",
    );
    let output = launch(&path, &["--set", "train.steps=0", "--set", "train.gradient_release=true"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!("problems", said(&output, folder.path()));
    assert!(!folder.path().join("run.sbatch").exists());
    let output = launch(&path, &["--set", "launch.slurm.qeue=1"]);
    insta::assert_snapshot!("unknown_keys", said(&output, folder.path()));
}

#[test]
fn what_a_job_needs_and_does_not_have_is_told() {
    let told = |section: &str, more: &[&str]| {
        let (folder, path) = with(section);
        let output = launch(&path, more);
        assert_eq!(output.status.code(), Some(2));
        said(&output, folder.path())
    };
    insta::assert_snapshot!(told("", &[]), @r"
    error: invalid run file `run.toml`
      neither `launch.slurm` nor `launch.mpijob` is there: `--to` says which is meant
    ");
    insta::assert_snapshot!(told("[launch.slurm]\n[launch.mpijob]\nimage = \"i\"\nvolumes = [{ claim = \"c\", mount_path = \"/c\" }]\n", &[]), @r"
    error: invalid run file `run.toml`
      both `launch.slurm` and `launch.mpijob` are there: `--to` says which is meant
    ");
    insta::assert_snapshot!(told("", &["--to", "mpijob"]), @r"
    error: invalid run file `run.toml`
      `launch.mpijob.image` must be given: it holds fthost, Open MPI and an SSH server
      `launch.mpijob.volumes` must name a claim: ranks read the same files and write to one folder
    ");
    insta::assert_snapshot!(told("[launch.slurm]\ntime = \"5\"\n", &[]), @r"
    error: invalid run file `run.toml`
      `launch.slurm.time` must be longer than `launch.grace_seconds` = 300, got `5`: the run would be ended as it begins
    ");
    insta::assert_snapshot!(told(MPIJOB, &["--set", "output.dir=/data/models/out"]), @r"
    error: invalid run file `run.toml`
      `output.dir` must be on one of `launch.mpijob.volumes` that is written to, got `/data/models/out`
    ");
    insta::assert_snapshot!(told(MPIJOB, &["--set", "output.dir=/elsewhere"]), @r"
    error: invalid run file `run.toml`
      `output.dir` must be on one of `launch.mpijob.volumes` that is written to, got `/elsewhere`
    ");
    insta::assert_snapshot!(told(MPIJOB, &["--set", "launch.mpijob.volumes=[{claim=\"A\"}]", "--set", "launch.mpijob.secret_env.K.secret=s"]), @r"
    error: invalid run file `run.toml`
      `launch.mpijob.volumes.claim` names nothing of Kubernetes with `A`
      `launch.mpijob.volumes.mount_path` must be an absolute path without `:`, got ``
      `launch.mpijob.secret_env.K.key` must be given
    ");
    // As they are on the job's ranks, not on the one that writes it.
    insta::assert_snapshot!(told(MPIJOB, &["--set", "train.gradient_release=true", "--set", "train.max_grad_norm=0", "--set", "train.gradient_accumulation_steps=1", "--set", "data.packing=false"]), @r"
    error: invalid run file `run.toml`
      not known on several ranks: `train.gradient_release`: gradients are summed first
    ");
    let shared = ["--set", "parallel.data_parallel_shard=3"];
    insta::assert_snapshot!(told("[launch.slurm]\n[launch]\nnodes = 2\nranks_per_node = 2\n", &shared), @r"
    error: invalid run file `run.toml`
      `parallel.data_parallel_replicate` = -1 and `parallel.data_parallel_shard` = 3 are not the degrees of 4 ranks: start as many as their product, or set one to -1
    ");
    let alone = ["objective.kto.beta=0.1", "train.micro_batch_size=1", "train.gradient_accumulation_steps=1"];
    let alone: Vec<&str> = alone.iter().flat_map(|it| ["--set", *it]).collect();
    assert!(told("[launch.slurm]\n", &alone).contains("for `objective.kto`, got `1`"));
    let (_folder, path) = with("[launch.slurm]\n");
    assert!(launch(&path, &[&alone[..], &["--set", "launch.nodes=2"]].concat()).status.success());
}

#[test]
fn paths_that_no_pod_finds_are_noted() {
    let (folder, path) = with(MPIJOB);
    let output = launch(&path, &["--set", "model.path=/elsewhere/model", "--dry-run"]);
    assert!(output.status.success());
    insta::assert_snapshot!(said(&output, folder.path()), @"note: `model.path` is on no volume, so the image must hold it: `/elsewhere/model`");
}

/// `[launch]` is no part of what is computed: a run that had one writes what a run without one writes, digests included.
#[test]
fn launching_changes_no_digest() {
    let (folder, path) = workplace(&RUN_FILE.replace("steps = 12", "steps = 1"));
    let written = |more: &[&str]| {
        let output =
            run(&path, &[&["--quiet", "--overwrite", "--set", "data.on_bad_row=skip"], more].concat());
        assert!(output.status.success(), "{}", said(&output, folder.path()));
        ["settings.json", "fthost.lock.json"]
            .map(|it| std::fs::read_to_string(folder.path().join("out").join(it)).unwrap())
    };
    let without = written(&[]);
    assert_eq!(
        written(&[
            "--set",
            "launch.nodes=3",
            "--set",
            "launch.slurm.time=01:30:00",
            "--set",
            "launch.slurm.mem=4096"
        ]),
        without
    );
    assert_ne!(written(&["--set", "train.seed=3"]), without);
}

/// A folder whose name a shell would take apart, with what `workplace` makes.
fn odd_workplace(section: &str) -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = with(section);
    let odd = folder.path().join("it's a \"place\" of $HOME #1");
    std::fs::create_dir(&odd).unwrap();
    for name in ["model", "rows.jsonl", "run.toml"] {
        std::fs::rename(folder.path().join(name), odd.join(name)).unwrap();
    }
    let path = odd.join(path.file_name().unwrap());
    (folder, path)
}

/// A folder with a program `name` that is `script`.
fn stand_in(folder: &Path, name: &str, script: &str) -> PathBuf {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let path = bin.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

/// Notes arguments, folder and variables, then becomes the program that stands behind the options.
const RECORDS: &str = r#"printf '%s\n' "$@" >"$RECORD/args"
pwd >"$RECORD/folder"
env >"$RECORD/env"
[ -z "${ENDS_WITH:-}" ] || exit "$ENDS_WITH"
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"#;

/// Runs a Slurm script with a stand-in for `srun`, as a job that ends at `end`.
fn slurm(script: &Path, record: &Path, more: &[(&str, &str)]) -> Output {
    let bin = stand_in(record, "srun", RECORDS);
    stand_in(record, "scontrol", "printf '%s\\n' \"$@\" >\"$RECORD/scontrol\"\n");
    let mut command = Command::new("bash");
    command
        .arg(script)
        .current_dir("/")
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command.envs([("SLURM_CPUS_PER_TASK", "2"), ("SLURM_JOB_ID", "77")]).envs(more.iter().copied());
    command.env("RECORD", record).output().unwrap()
}

fn recorded(record: &Path, name: &str) -> Vec<String> {
    std::fs::read_to_string(record.join(name)).unwrap().lines().map(String::from).collect()
}

/// The script finds its files wherever it is started, trains, and goes on from what it has left.
#[test]
fn a_slurm_script_runs_and_goes_on() {
    let (folder, path) = odd_workplace("[launch]\nenv.NOTE = \"it's \\\"here\\\" $HOME\"\n[launch.slurm]\n");
    let sets =
        ["data.on_bad_row=skip", "output.dir=an \"out\" 'dir'", "checkpoint.every_steps=5", "launch.nodes=1"];
    let sets: Vec<&str> = sets.iter().flat_map(|it| ["--set", *it]).collect();
    let output = launch(&path, &sets);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    let script = path.with_extension("sbatch");

    let output = slurm(&script, folder.path(), &[]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    let args = recorded(folder.path(), "args");
    let options = ["--kill-on-bad-exit=1", "--cpus-per-task=2", "--mpi=pmix"].map(String::from);
    assert_eq!(args[..3], options);
    assert_eq!(args[3], env!("CARGO_BIN_EXE_fthost"));
    let run = ["run", "run.toml", "--set", sets[1], "--set", sets[3], "--set", sets[5]].map(String::from);
    assert_eq!(args[4..], run, "nothing to resume from, and nothing of `launch`");
    assert_eq!(recorded(folder.path(), "folder"), [path.parent().unwrap().to_str().unwrap()]);
    let env = recorded(folder.path(), "env");
    for variable in ["RAYON_NUM_THREADS=2", "NOTE=it's \"here\" $HOME"] {
        assert!(env.iter().any(|it| it == variable), "{variable}");
    }
    let out = path.parent().unwrap().join("an \"out\" 'dir'");
    assert!(out.join("adapter").exists() && out.join("checkpoint-10").exists());

    // As if the job had ended after its second checkpoint.
    std::fs::remove_dir_all(out.join("adapter")).unwrap();
    let output = slurm(&script, folder.path(), &[]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    assert_eq!(recorded(folder.path(), "args").last().unwrap(), "--resume");
    assert!(String::from_utf8_lossy(&output.stdout).contains("resumed after step 10"));
    assert!(out.join("adapter").exists());
}

/// The job ends as its run does, and is queued again only where its time was up.
#[test]
fn a_job_is_queued_again_where_its_time_was_up() {
    let (folder, path) = odd_workplace("[launch.slurm]\nrequeue_at_time_limit = true\n");
    assert!(launch(&path, &["--set", "data.on_bad_row=skip"]).status.success());
    let script = path.with_extension("sbatch");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let ended = |code: &str, left: u64| {
        let _ = std::fs::remove_file(folder.path().join("scontrol"));
        let end = (now + left).to_string();
        let output = slurm(&script, folder.path(), &[("ENDS_WITH", code), ("SLURM_JOB_END_TIME", &end)]);
        let asked = std::fs::read_to_string(folder.path().join("scontrol")).ok();
        (output.status.code().unwrap(), asked)
    };
    assert_eq!(ended("143", 200), (0, Some("requeue\n77\n".into())));
    assert_eq!(ended("143", 5000), (143, None), "somebody has ended it");
    assert_eq!(ended("5", 200), (5, None));
    assert_eq!(ended("0", 200), (0, None));
}

/// The two documents of a manifest, read by another library than the one that wrote them.
fn documents(text: &str) -> Vec<Value> {
    // A run file within has no line that begins with `-`: it is indented.
    text.split("\n---\n").map(|it| yaml_serde::from_str(&format!("{it}\n")).unwrap()).collect()
}

/// Fields of an object of the API: those that it must have, and others that it may have.
fn fields(object: &Value, required: &[&str], optional: &[&str]) {
    let fields = object.as_object().unwrap_or_else(|| panic!("no object: {object}"));
    for name in required {
        assert!(fields.contains_key(*name), "`{name}` is missing in {object}");
    }
    for name in fields.keys() {
        assert!(
            required.contains(&name.as_str()) || optional.contains(&name.as_str()),
            "unknown `{name}` in {object}"
        );
    }
}

/// A text where the API wants texts: `yes` and `on` are values of maps in the run file.
fn texts(map: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(map.clone()).unwrap()
}

/// Schema: <https://github.com/kubeflow/mpi-operator>, `pkg/apis/kubeflow/v2beta1/types.go` (fields),
/// `manifests/base/kubeflow.org_mpijobs.yaml` (the definition that the API server checks; older ones lack
/// `launcherCreationPolicy`) and `pkg/apis/kubeflow/validation/validation.go` (what the operator refuses); pods are those of
/// Kubernetes' core/v1.
#[test]
fn a_manifest_is_what_the_operator_takes() {
    let (folder, path) = with(MPIJOB);
    let output = launch(&path, &["--set", "data.on_bad_row=skip", "--device", "cpu"]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    let documents = documents(&std::fs::read_to_string(path.with_extension("mpijob.yaml")).unwrap());
    let [config_map, job] = &documents[..] else { panic!("{} documents", documents.len()) };
    fields(config_map, &["apiVersion", "kind", "metadata", "data"], &[]);
    assert_eq!(config_map["data"]["run.toml"], std::fs::read_to_string(&path).unwrap());

    fields(job, &["apiVersion", "kind", "metadata", "spec"], &[]);
    assert_eq!((&job["apiVersion"], &job["kind"]), (&"kubeflow.org/v2beta1".into(), &"MPIJob".into()));
    fields(&job["metadata"], &["name", "namespace"], &["labels", "annotations"]);
    assert_eq!(texts(&job["metadata"]["labels"])["team"], "on");
    let spec = &job["spec"];
    let required =
        ["slotsPerWorker", "runPolicy", "sshAuthMountPath", "mpiImplementation", "mpiReplicaSpecs"];
    fields(spec, &required, &["launcherCreationPolicy"]);
    assert_eq!(spec["slotsPerWorker"], 4);
    assert_eq!(spec["mpiImplementation"], "OpenMPI");
    assert_eq!(spec["launcherCreationPolicy"], "WaitForWorkersReady");
    assert_eq!(spec["sshAuthMountPath"], "/home/mpiuser/.ssh");
    fields(&spec["runPolicy"], &["cleanPodPolicy"], &["backoffLimit", "ttlSecondsAfterFinished"]);
    assert_eq!(spec["runPolicy"]["cleanPodPolicy"], "Running");
    let replicas = &spec["mpiReplicaSpecs"];
    fields(replicas, &["Launcher", "Worker"], &[]);
    for (role, count) in [("Launcher", 1), ("Worker", 2)] {
        let replica = &replicas[role];
        fields(replica, &["replicas", "restartPolicy", "template"], &[]);
        assert_eq!(replica["replicas"], count);
        assert!(["Never", "OnFailure"].contains(&replica["restartPolicy"].as_str().unwrap()));
        pod(&replica["template"], &config_map["metadata"]["name"]);
    }
    let worker = &replicas["Worker"]["template"]["spec"]["containers"][0];
    assert_eq!(worker["resources"]["requests"]["cpu"], "32");
    assert_eq!(worker["resources"]["limits"]["memory"], "64Gi");
    assert_eq!(worker["command"][0], "/usr/sbin/sshd");
    let hook = &worker["lifecycle"]["preStop"]["exec"]["command"];
    is_shell("sh", hook[2].as_str().unwrap());
    let launcher = &replicas["Launcher"]["template"]["spec"]["containers"][0];
    let env = launcher["env"].as_array().unwrap();
    let value = |name: &str| &env.iter().find(|it| it["name"] == name).unwrap()["value"];
    assert_eq!(value("RAYON_NUM_THREADS"), "8");
    assert_eq!(value("NOTE"), "costs 5$ (yes)");
    is_shell("sh", launcher["command"][2].as_str().unwrap());
}

/// A pod's template, by `core/v1`; `run_file` is the ConfigMap that the launcher mounts.
fn pod(template: &Value, run_file: &Value) {
    fields(template, &["spec"], &["metadata"]);
    assert_eq!(texts(&template["metadata"]["annotations"])["sidecar.istio.io/inject"], "false");
    let spec = &template["spec"];
    let optional = [
        "terminationGracePeriodSeconds",
        "serviceAccountName",
        "imagePullSecrets",
        "securityContext",
        "nodeSelector",
        "tolerations",
        "volumes",
    ];
    fields(spec, &["containers"], &optional);
    assert_eq!(spec["terminationGracePeriodSeconds"], 330);
    assert_eq!(texts(&spec["nodeSelector"])["pool"], "yes");
    fields(&spec["securityContext"], &[], &["runAsUser", "fsGroup"]);
    fields(&spec["tolerations"][0], &[], &["key", "operator", "value", "effect"]);
    let names: Vec<&Value> = spec["volumes"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    for volume in spec["volumes"].as_array().unwrap() {
        fields(volume, &["name"], &["persistentVolumeClaim", "configMap", "emptyDir"]);
        if let Some(config_map) = volume.get("configMap") {
            assert_eq!(&config_map["name"], run_file);
        }
    }
    let [container] = &spec["containers"].as_array().unwrap()[..] else { panic!("one container") };
    let optional = ["image", "imagePullPolicy", "command", "env", "resources", "volumeMounts", "lifecycle"];
    fields(container, &["name", "image"], &optional);
    for mount in container["volumeMounts"].as_array().unwrap() {
        fields(mount, &["name", "mountPath"], &["subPath", "readOnly"]);
        assert!(names.contains(&&mount["name"]), "{mount}");
    }
    for variable in container.get("env").and_then(Value::as_array).into_iter().flatten() {
        fields(variable, &["name"], &["value", "valueFrom"]);
        assert!(variable.get("value").is_none_or(Value::is_string));
    }
    fields(&container["resources"], &[], &["requests", "limits"]);
    assert!(texts(&container["resources"]["requests"]).contains_key("cpu"));
}

/// What the launcher's container is told to do, with the run file mounted at `mounted`.
fn launcher_script(path: &Path, mounted: &Path) -> String {
    let documents = documents(&std::fs::read_to_string(path.with_extension("mpijob.yaml")).unwrap());
    let command =
        &documents[1]["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]["command"];
    command[2].as_str().unwrap().replace("/etc/fthost", mounted.to_str().unwrap())
}

/// A workplace whose folder is the volume of an MPIJob of two ranks, and the launcher's script.
fn mpijob(more: &[&str]) -> (tempfile::TempDir, PathBuf, String) {
    let (folder, path) = with("");
    let volume =
        format!("launch.mpijob.volumes=[{{claim=\"data\", mount_path=\"{}\"}}]", folder.path().display());
    let sets = [
        "data.on_bad_row=skip",
        "launch.mpijob.image=i",
        "launch.mpijob.run_as_root=true",
        "launch.nodes=2",
        &volume,
    ];
    let sets: Vec<&str> = sets.iter().chain(more).flat_map(|it| ["--set", *it]).collect();
    let output = launch(&path, &[&["--to", "mpijob"], &sets[..]].concat());
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    let mounted = folder.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    std::fs::copy(&path, mounted.join("run.toml")).unwrap();
    let script = launcher_script(&path, &mounted);
    (folder, path, script)
}

#[test]
fn a_launcher_hands_over_variables_and_goes_on() {
    let (folder, _path, script) =
        mpijob(&["launch.env.NOTE=\"a b\"", "train.seed=3", "launch.mpijob.mpirun=[\"-v\"]"]);
    let bin = stand_in(folder.path(), "mpirun", "printf '%s\\n' \"$@\" >\"$RECORD/args\"\n");
    let called = || {
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir("/").env("RECORD", folder.path());
        command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
        assert!(command.status().unwrap().success());
        recorded(folder.path(), "args")
    };
    let args = called();
    insta::assert_snapshot!(args.join(" "), @"-np 2 --bind-to none --allow-run-as-root -x PATH -x RAYON_NUM_THREADS -x NOTE -v fthost run .run.toml --set data.on_bad_row=skip --set train.seed=3");
    assert!(folder.path().join(".run.toml").exists(), "the run file lies where its paths begin");
    std::fs::create_dir_all(folder.path().join("out/.checkpoint-3")).unwrap();
    assert_eq!(called(), args, "what is not whole is no checkpoint");
    std::fs::create_dir_all(folder.path().join("out/checkpoint-20")).unwrap();
    assert_eq!(called().last().unwrap(), "--resume");
}

/// Under the real `mpirun`: SIGTERM to the launcher leaves a checkpoint, from which the same script goes on.
#[test]
fn a_launcher_that_is_ended_leaves_a_checkpoint() {
    if mpirun().is_none() {
        eprintln!("SKIPPED: Open MPI's `mpirun` is not on the path");
        return;
    }
    let (folder, _path, script) = mpijob(&["train.steps=600", "launch.cores_per_rank=1"]);
    let bin = Path::new(env!("CARGO_BIN_EXE_fthost")).parent().unwrap();
    let command = || {
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
        // What the operator and this test's user set.
        command.envs([
            ("RAYON_NUM_THREADS", "1"),
            ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
            ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
            ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
        ]);
        command
    };
    let mut child = command().spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|it| it.unwrap().starts_with("step 5/")), "it has begun");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    lines.for_each(drop);
    assert!(!child.wait().unwrap().success());
    let left = std::fs::read_dir(folder.path().join("out")).unwrap();
    let left: Vec<String> = left.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    assert!(
        left.iter().any(|it| it.starts_with("checkpoint-")) && !left.contains(&"adapter".to_string()),
        "{left:?}"
    );
    let output = command().output().unwrap();
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    assert!(String::from_utf8_lossy(&output.stdout).contains("resumed after step "));
    assert!(folder.path().join("out/adapter").exists());
}
