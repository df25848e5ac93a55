//! Adapters of every kind through the program: trained, gone on with, asked, told of, merged or not.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::fthost;
use crate::support::model::sums;
use crate::support::workplace::{RUN_FILE, run, said, workplace};

const LORA: &str = "[adapter.lora]\nrank = 4\ndropout = 0.1\n";

/// A run file's adapter, and whether it is a part of the weights.
const KINDS: [(&str, bool); 6] = [
    ("[adapter.ia3]\n", true),
    ("[adapter.prompt_tuning]\nnum_virtual_tokens = 5\n", false),
    (
        "[adapter.prompt_tuning]\nnum_virtual_tokens = 3\nprompt_tuning_init = \"text\"\nprompt_tuning_init_text = \"Add up.\"\n",
        false,
    ),
    ("[adapter.prefix_tuning]\nnum_virtual_tokens = 5\n", false),
    (
        "[adapter.prefix_tuning]\nnum_virtual_tokens = 4\nprefix_projection = true\nencoder_hidden_size = 6\n",
        false,
    ),
    (
        "[adapter.lora]\nrank = 4\ntarget_modules = [\"q_proj\"]\nmodules_to_save = [\"embed_tokens\", \"norm\"]\n",
        true,
    ),
];

fn place_of(kind: &str) -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = workplace(&RUN_FILE.replace(LORA, kind));
    std::fs::write(folder.path().join("rows.jsonl"), sums(12)).unwrap();
    (folder, path)
}

fn asked(folder: &Path, model: &str, more: &[&str]) -> String {
    let model = folder.join(model);
    let args = [
        "generate",
        "--model",
        model.to_str().unwrap(),
        "--max-new-tokens",
        "12",
        "--json",
        "--raw",
        "Hello",
    ];
    let output = fthost(&[&args[..], more].concat());
    assert!(output.status.success(), "{}", said(&output, folder));
    String::from_utf8(output.stdout).unwrap()
}

fn merged(folder: &Path, adapter: &str) -> Output {
    let (model, out) = (folder.join("model"), folder.join("merged"));
    let [model, out] = [&model, &out].map(|it| it.to_str().unwrap());
    fthost(&["model", "merge", "--model", model, "--adapter", adapter, "--out", out])
}

/// Trained in one go or resumed after half of it, to the same bits; it changes what the model says, and a merged model says what
/// the adapter says.
#[test]
fn every_kind_is_trained_resumed_asked_and_merged() {
    for (kind, is_of_weights) in KINDS {
        let (folder, path) = place_of(kind);
        let place = folder.path();
        let every = ["--set", "checkpoint.every_steps=6"];
        let output = run(&path, &every);
        assert!(output.status.success(), "{kind}: {}", said(&output, place));
        let weights = place.join("out/adapter/adapter_model.safetensors");
        let whole = std::fs::read(&weights).unwrap();
        let adapter = place.join("out/adapter");
        let adapter = adapter.to_str().unwrap();
        let (before, after) = (asked(place, "model", &[]), asked(place, "model", &["--adapter", adapter]));
        assert_ne!(before, after, "{kind}");
        let output = merged(place, adapter);
        assert_eq!(output.status.success(), is_of_weights, "{kind}: {}", said(&output, place));
        if is_of_weights {
            assert_eq!(asked(place, "merged", &[]), after, "{kind}");
        } else {
            assert!(said(&output, place).contains("virtual tokens stand before every sequence"), "{kind}");
        }
        // As if it had been killed behind its sixth step.
        for gone in ["out/checkpoint-12", "out/adapter"] {
            std::fs::remove_dir_all(place.join(gone)).unwrap_or_else(|error| panic!("{gone}: {error}"));
        }
        let output = run(&path, &[&["--resume"], &every[..]].concat());
        assert!(said(&output, place).contains("resumed after step 6"), "{kind}: {}", said(&output, place));
        assert!(std::fs::read(&weights).unwrap() == whole, "{kind}: a resumed run ends elsewhere");
    }
}

/// What a run would train, and what a folder holds.
#[test]
fn every_kind_is_told_of() {
    let mut told = String::new();
    for (kind, _) in KINDS {
        let (folder, path) = place_of(kind);
        let place = folder.path();
        let checked = said(&fthost(&["check", path.to_str().unwrap()]), place);
        told += checked.lines().find(|it| it.trim_start().starts_with("trains")).unwrap();
        assert!(run(&path, &["--quiet", "--set", "train.steps=1"]).status.success(), "{kind}");
        let adapter = place.join("out/adapter");
        let seen = said(&fthost(&["model", "inspect", adapter.to_str().unwrap()]), place);
        told += &format!("\n{seen}\n");
        let estimate = || {
            let estimate = fthost(&["estimate", path.to_str().unwrap()]);
            assert!(estimate.status.success(), "{kind}: {}", said(&estimate, place));
            said(&estimate, place)
        };
        // One that is gone on with takes what it took when it was new, and leaves a text as much room; the folder of a
        // projected prefix holds what its network made, and that is trained.
        let fresh = estimate();
        std::fs::rename(place.join("out"), place.join("kept")).unwrap();
        let gone_on = RUN_FILE.replace(LORA, "[adapter.peft]\npath = \"kept/adapter\"\n");
        std::fs::write(&path, gone_on).unwrap();
        assert_eq!(estimate() == fresh, !kind.contains("prefix_projection"), "{kind}");
        assert!(run(&path, &["--quiet", "--set", "train.steps=1"]).status.success(), "{kind}");
    }
    insta::assert_snapshot!(told);
}

/// Whoever takes an adapter to weights it was not trained on is refused: to answer, to judge and to merge.
#[test]
fn an_adapter_is_not_put_on_other_weights() {
    let (folder, path) = place_of(LORA);
    let place = folder.path();
    assert!(run(&path, &["--quiet", "--set", "train.steps=1"]).status.success());
    let weights = place.join("model/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let [adapter, model, file] =
        ["out/adapter", "model", "run.toml"].map(|it| place.join(it).display().to_string());
    let held_out = "data.held_out.rows=2";
    let refused = [
        fthost(&["generate", "--model", &model, "--adapter", &adapter, "--raw", "Hello"]),
        fthost(&["eval", &file, "--adapter", &adapter, "--set", held_out]),
        merged(place, &adapter),
    ];
    for output in &refused {
        let told = said(output, place);
        assert!(
            !output.status.success() && told.contains("out/adapter") && told.contains("sha256:"),
            "{told}"
        );
    }
}
