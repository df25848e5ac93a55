//! `fthost estimate` from the outside, on a tiny random model.

use serde_json::Value;

use crate::support::fthost;
use crate::support::workplace::{RUN_FILE, said, workplace};

#[test]
fn a_run_is_told_part_by_part() {
    let (folder, path) = workplace(RUN_FILE);
    let args = ["estimate", path.to_str().unwrap(), "--set", "data.on_bad_row=skip"];
    let output = fthost(&args);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    insta::assert_snapshot!("estimate", said(&output, folder.path()));
    assert!(!folder.path().join("out").exists(), "nothing is written");
    let output = fthost(&[&args[..], &["--json"]].concat());
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let parts = told["parts"].as_array().unwrap().iter();
    assert_eq!(parts.map(|it| it["bytes"].as_u64().unwrap()).sum::<u64>(), told["peak_rss_bytes"]);
}

/// Twenty times as many tokens a micro-batch: what is kept of them comes first, and what would spare it.
#[test]
fn hints_name_keys_and_what_they_save() {
    let (_folder, path) = workplace(RUN_FILE);
    let told = |more: &[&str]| -> Value {
        let keys = ["--set", "data.on_bad_row=skip", "--set", "train.micro_batch_size=4096", "--json"];
        let more: Vec<&str> = more.iter().flat_map(|it| ["--set", *it]).collect();
        serde_json::from_slice(
            &fthost(&[&["estimate", path.to_str().unwrap()], &keys[..], &more].concat()).stdout,
        )
        .unwrap()
    };
    // Rows are few, so that the run file's own text decides how long they are.
    let rows = path.with_file_name("rows.jsonl");
    let row =
        r#"{"prompt": "What is one and one and one and one and one?", "completion": " Five, of course."}"#;
    std::fs::write(rows, format!("{row}\n").repeat(4096)).unwrap();
    let found = told(&[]);
    let hint = &found["hints"][0];
    assert_eq!(hint["keys"], "train.activation_checkpointing = \"block\"", "{found}");
    let then = told(&["train.activation_checkpointing=block"]);
    let saved = found["peak_rss_bytes"].as_u64().unwrap() - then["peak_rss_bytes"].as_u64().unwrap();
    assert_eq!(hint["saves"], saved);
}

#[test]
fn a_jobs_ranks_are_told_beside_one_process() {
    let (folder, path) = workplace(RUN_FILE);
    let link = "{ gather_bytes_per_second = 1e5, reduce_bytes_per_second = 5e4, latency_seconds = 1e-5 }";
    let speeds = format!(
        "launch.speeds={{ flops_per_second = 5e6, memory_bytes_per_second = 1e10, within = {link}, between = {link} }}"
    );
    let keys = [
        "data.on_bad_row=skip",
        "launch.nodes=2",
        "launch.ranks_per_node=2",
        "parallel.data_parallel_shard=-1",
        "parallel.data_parallel_replicate=1",
        &speeds,
    ];
    let keys: Vec<&str> = keys.iter().flat_map(|it| ["--set", *it]).collect();
    let output = fthost(&[&["estimate", path.to_str().unwrap()], &keys[..]].concat());
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    let told = said(&output, folder.path());
    let begin = told.find("\n4 ranks").expect("ranks are told") + 1;
    let end = told[begin..].find(" a second\n").expect("a step's time is told") + begin;
    insta::assert_snapshot!("ranks", &told[begin..end]);
}
