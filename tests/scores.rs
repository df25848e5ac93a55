//! The scores of a run afterwards: replayed, compared with those of another reward, audited.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::workplace::{run, said, workplace};
use crate::support::{fthost, root};

const RUN_FILE: &str = r#"
[model]
path = "model"

[data]
files = ["rows.jsonl"]
cache = false
on_bad_row = "skip"
held_out.rows = 4

[adapter.lora]
rank = 2

[train]
steps = 1
micro_batch_size = 2

[eval]
generation.max_new_tokens = 4
generation.completions_per_prompt = 2
generation.temperature = 1.0
MORE

[output]
dir = "out"
"#;

fn hostile() -> PathBuf {
    let path = root().join("tests/guests/dist/hostile.wasm");
    assert!(path.is_file(), "run `plugins/build`");
    path
}

/// A finished run whose reward is the hostile guest, told to do `always`, with `more` of its configuration.
fn finished(always: &str, more: &str) -> (tempfile::TempDir, PathBuf) {
    let plugin = format!(
        "\n[plugins.judge]\ncomponent = {:?}\nconfig.always = \"{always}\"\n{more}\n",
        hostile().display().to_string()
    );
    let (folder, path) = workplace(&RUN_FILE.replace("MORE", &plugin));
    let output = run(&path, &["--quiet"]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    let out = folder.path().join("out");
    (folder, out)
}

/// Arguments with the paths of files in `folder`.
fn program(folder: &Path, arguments: &[&str]) -> Output {
    let path = |it: &&str| match folder.join(it).exists() {
        true => folder.join(it).display().to_string(),
        false => (*it).to_string(),
    };
    let arguments: Vec<String> = arguments.iter().map(path).collect();
    fthost(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn told(folder: &Path, arguments: &[&str]) -> (String, Option<i32>) {
    let output = program(folder, arguments);
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&all).replace(&folder.display().to_string(), "FOLDER");
    (text, output.status.code())
}

fn json_of(folder: &Path, arguments: &[&str]) -> Value {
    let output = program(folder, arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output, folder)))
}

#[test]
fn a_run_is_replayed_offline_and_a_tampered_score_is_found() {
    // Random numbers are the hardest to give again: they depend on seed, plugin, step and call.
    let (folder, out) = finished("random", "");
    // The component is found by its digest, though another has taken its place.
    let replayed = json_of(folder.path(), &["replay", "out", "--json"]);
    assert_eq!((&replayed[0]["scored"], &replayed[0]["changed"]), (&json!(16), &json!(0)));
    let path = out.join("scores/step-1.json");
    let mut scores: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let value = scores["rewards"][0]["outcomes"][2][1]["ok"]["value"].as_f64().unwrap();
    scores["rewards"][0]["outcomes"][2][1]["ok"]["value"] = json!(value + 1.0);
    std::fs::write(&path, scores.to_string()).unwrap();
    let (text, code) = told(folder.path(), &["replay", "out"]);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("1 of 16 completions have another outcome"), "{text}");
    assert!(text.contains("step 1, group 2, completion 1: "), "{text}");
    assert!(text.ends_with("error: 1 of 16 scores are not those of the run\n"), "{text}");
}

#[test]
fn another_reward_is_compared_on_the_same_completions() {
    let (folder, _) = finished("id", "");
    let set = format!(
        "[plugins.stricter]\ncomponent = {:?}\nconfig.always = \"abstain\"\n",
        hostile().display().to_string()
    );
    std::fs::write(folder.path().join("stricter.toml"), set).unwrap();
    let found = json_of(folder.path(), &["rescore", "out", "--plugins", "stricter.toml", "--json"]);
    assert_eq!(
        (&found[0]["before"]["name"], &found[0]["after"]["name"]),
        (&json!("judge"), &json!("stricter"))
    );
    assert_eq!((&found[0]["changed"], &found[0]["mean_before"]), (&json!(16), &json!(1.5)));
    assert_eq!(found[0]["mean_after"], Value::Null, "an abstention is no number");
    let (text, code) = told(folder.path(), &["rescore", "out", "--plugins", "stricter.toml"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("-> abstained (not my kind of row)"), "{text}");
}

#[test]
fn a_set_to_compare_with_may_stand_on_another_one() {
    let (folder, _) = finished("id", "");
    let base = format!("[plugins.stricter]\ncomponent = {:?}\n", hostile().display().to_string());
    std::fs::write(folder.path().join("base.toml"), base).unwrap();
    let set = "extends = [\"base.toml\"]\n[plugins.stricter.config]\nalways = \"abstain\"\n";
    std::fs::write(folder.path().join("stricter.toml"), set).unwrap();
    let found = json_of(folder.path(), &["rescore", "out", "--plugins", "stricter.toml", "--json"]);
    assert_eq!((&found[0]["changed"], &found[0]["mean_after"]), (&json!(16), &Value::Null), "{found:#}");
}

#[test]
fn a_replay_reads_the_files_that_the_reward_read() {
    let shared = tempfile::tempdir().unwrap();
    let component = shared.path().join("judge.wasm");
    std::fs::copy(hostile(), &component).unwrap();
    let own = shared.path().join("judge.resources");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("words.txt"), "five!").unwrap();
    std::fs::write(shared.path().join("granted.txt"), "another").unwrap();
    let digest = fthost_data::digest::sha256(b"another");
    let plugin = format!(
        "\n[plugins.judge]\ncomponent = {:?}\nconfig.always = \"resources\"\n\
         [plugins.judge.grants.resources.\"more.txt\"]\nfile = {:?}\ndigest = \"{digest}\"\n",
        component.display().to_string(),
        shared.path().join("granted.txt").display().to_string()
    );
    let (folder, path) = workplace(&RUN_FILE.replace("MORE", &plugin));
    let output = run(&path, &["--quiet"]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    let audited = json_of(folder.path(), &["plugin", "audit", "out", "--json"]);
    assert_eq!(audited[0]["scores"], json!({"count": 16, "mean": 5.0, "min": 5.0, "max": 5.0}));
    // Whatever stands there now, and though nothing does.
    std::fs::write(own.join("words.txt"), "seven!!").unwrap();
    std::fs::remove_file(shared.path().join("granted.txt")).unwrap();
    let replayed = json_of(folder.path(), &["replay", "out", "--json"]);
    assert_eq!((&replayed[0]["scored"], &replayed[0]["changed"]), (&json!(16), &json!(0)), "{replayed:#}");
    std::fs::remove_dir_all(shared.path()).unwrap();
    let replayed = json_of(folder.path(), &["replay", "out", "--json"]);
    assert_eq!((&replayed[0]["scored"], &replayed[0]["changed"]), (&json!(16), &json!(0)), "{replayed:#}");
}

#[test]
fn a_model_that_is_trained_whole_has_a_reference() {
    let mean = |always: &str, steps: &str| {
        let plugin = format!(
            "\n[plugins.judge]\ncomponent = {:?}\nconfig.always = \"{always}\"\n\
             grants.logprobs = [\"run\", \"reference\"]\n",
            hostile().display().to_string()
        );
        let whole = RUN_FILE.replace("[adapter.lora]\nrank = 2\n", "").replace("MORE", &plugin);
        let (folder, path) = workplace(&whole);
        let output = run(&path, &["--quiet", "--set", steps, "--set", "optimizer.adamw.learning_rate=0.01"]);
        assert!(output.status.success(), "{}", said(&output, folder.path()));
        let audited = json_of(folder.path(), &["plugin", "audit", "out", "--json"]);
        audited[0]["scores"]["mean"].as_f64().unwrap()
    };
    assert_eq!(mean("logprobs reference", "train.steps=1"), mean("logprobs reference", "train.steps=3"));
    assert_ne!(mean("logprobs", "train.steps=1"), mean("logprobs", "train.steps=3"));
}

#[test]
fn a_run_is_audited() {
    let (folder, _) = finished("embed", "grants.embed = true\nlimits.log_bytes = 4096");
    let audited = json_of(folder.path(), &["plugin", "audit", "out", "--json"]);
    assert_eq!(audited[0]["asked"], json!({"embed(run)": 8}), "{audited:#}");
    assert_eq!((&audited[0]["outcomes"]["ok"], &audited[0]["signer"]), (&json!(16), &Value::Null));
    let (text, _) = told(folder.path(), &["plugin", "audit", "out"]);
    let digest = audited[0]["digest"].as_str().unwrap();
    let text: String = text
        .replace(digest, "DIGEST")
        .lines()
        .map(
            |it| if it.starts_with("  scores") { "  scores    ...\n".to_string() } else { format!("{it}\n") },
        )
        .collect();
    insta::assert_snapshot!(text, @r"
    judge 0.1.0 (data-builder, reward, contract 1)
      digest    DIGEST
      signer    none: not signed
      granted   embed(run)
      used      embed(run) 8x
      files     none
      limits    none
      outcomes  ok 16
      scores    ...
    ");
    let replayed = json_of(folder.path(), &["replay", "out", "--json"]);
    assert_eq!(replayed[0]["changed"], 0, "answers of the model come from the record: {replayed:#}");
}

/// Serves `answer` to every request on loopback, for as long as the test runs.
fn server(answer: Value) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (send, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut text = Vec::new();
            let mut chunk = [0; 4096];
            loop {
                let read = stream.read(&mut chunk).unwrap_or(0);
                text.extend_from_slice(&chunk[..read]);
                let whole = String::from_utf8_lossy(&text).into_owned();
                let length = whole
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|it| it.split("\r\n").next()?.trim().parse::<usize>().ok());
                let body = whole.split_once("\r\n\r\n").map_or(0, |it| it.1.len());
                if read == 0 || length.is_some_and(|it| body >= it) {
                    let _ = send.send(whole);
                    break;
                }
            }
            let body = answer.to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    (address, requests)
}

#[test]
fn a_named_judge_is_asked_over_http_and_its_answers_replay_without_it() {
    let choice = json!({"message": {"content": "seven!!"}, "finish_reason": "stop"});
    let (address, requests) = server(json!({"choices": [choice], "usage": {"completion_tokens": 2}}));
    let more = format!(
        "grants.generate = [\"judges.big\"]\n[judges.big.endpoint]\nurl = \"{address}/v1\"\nmodel = \"judge-1\"\n"
    );
    let (folder, _) = finished("generate judge", &more);
    let request = requests.recv().unwrap();
    assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\"model\":\"judge-1\"") && request.contains("judge me"), "{request}");
    let audited = json_of(folder.path(), &["plugin", "audit", "out", "--json"]);
    assert_eq!(audited[0]["scores"], json!({"count": 16, "mean": 7.0, "min": 7.0, "max": 7.0}));
    let asked = requests.try_iter().count();
    let replayed = json_of(folder.path(), &["replay", "out", "--json"]);
    assert_eq!(replayed[0]["changed"], 0, "{replayed:#}");
    assert_eq!(requests.try_iter().count(), 0, "{asked} requests before, none at a replay");
}

#[test]
fn a_judge_that_the_run_file_does_not_have_is_told() {
    let plugin = format!(
        "\n[plugins.judge]\ncomponent = {:?}\ngrants.generate = [\"judges.big\"]\n",
        hostile().display().to_string()
    );
    let (folder, path) = workplace(&RUN_FILE.replace("MORE", &plugin));
    let output = run(&path, &["--quiet"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    error: `plugins.judge.grants` names `judges.big`, which the run file does not have
    hint: add `[judges.big.endpoint]` with `url` and `model`, or `[judges.big.folder]` with `path`
    ");
}
