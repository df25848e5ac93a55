//! `fthost model`: importing, merging, initialising and looking.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::model::sums;
use crate::support::workplace::{RUN_FILE, run, said as run_said, workplace};
use crate::support::{fthost, root};

fn golden(path: &str) -> String {
    format!("tests/golden/{path}")
}

fn at(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

#[track_caller]
fn said(output: &Output, place: &Path) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    text.replace(&place.display().to_string(), "[place]")
}

#[track_caller]
fn done(args: &[&str]) {
    let output = fthost(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The tensors of a folder's one file, in bytes.
fn weights_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = file.iter().map(|(name, it)| (name.to_string(), it.data().to_vec())).collect();
    all.sort();
    all
}

fn names(folder: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_gguf_file_becomes_a_whole_folder() {
    let place = tempfile::tempdir().unwrap();
    let out = at(place.path(), "tiny");
    done(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &out]);
    assert_eq!(
        names(place.path().join("tiny")),
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    let again = fthost(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &out]);
    assert_eq!(again.status.code(), Some(1));
    insta::assert_snapshot!(said(&again, place.path()), @r"
    error: `[place]/tiny` is already there
    hint: replace it with `--force`, or give another folder with `--out`
    ");
    done(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &out, "--force", "--dtype", "bf16"]);
    let seen = fthost(&["model", "inspect", &out, "--memory", "30MB"]);
    insta::assert_snapshot!("inspect_imported", said(&seen, place.path()));
    assert_eq!(names(place.path().to_path_buf()), ["tiny"], "nothing temporary is left");
}

/// The weights themselves are compared with bitsandbytes' in the engine's tests.
#[test]
fn a_folder_is_packed_and_cut_into_files() {
    let place = tempfile::tempdir().unwrap();
    let out = at(place.path(), "packed");
    let source = golden("quant/model");
    done(&["model", "convert", &source, "--out", &out, "--quant", "nf4", "--max-shard-size", "40KB"]);
    let seen = fthost(&["model", "inspect", &out, "--memory", "30MB"]);
    insta::assert_snapshot!("inspect_packed", said(&seen, place.path()));
    let written = names(place.path().join("packed"));
    assert!(written.contains(&"model-00001-of-00004.safetensors".to_string()), "{written:?}");
    // Folding an adapter into it is refused, unless it is widened.
    let adapter = golden("lora");
    let merged = at(place.path(), "merged");
    let merge = ["model", "merge", "--model", &out, "--adapter", &adapter, "--out", &merged];
    let refused = fthost(&merge);
    assert_eq!(refused.status.code(), Some(1));
    insta::assert_snapshot!(said(&refused, place.path()), @r"
    error: the weights of `[place]/packed` are packed in a few bits, and what an adapter adds is lost in them
    hint: `--dequantize` widens them to `--dtype` for it; or merge into the model they were made of
    ");
}

/// A file of another project in bits of ours, and bits of ours in such a file: the values are those of the way over a dense folder.
#[test]
fn packed_forms_are_made_of_each_other() {
    let place = tempfile::tempdir().unwrap();
    let to = |name: &str| at(place.path(), name);
    let weights = |name: &str| weights_of(&place.path().join(name));
    done(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &to("dense")]);
    done(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &to("packed"), "--quant", "nf4"]);
    done(&["model", "convert", &to("dense"), "--out", &to("packed-too"), "--quant", "nf4"]);
    assert!(weights("packed") == weights("packed-too"));
    done(&["model", "convert", &to("packed"), "--out", &to("packed.gguf")]);
    done(&["model", "convert", &to("packed.gguf"), "--out", &to("again")]);
    done(&["model", "convert", &to("packed"), "--out", &to("widened")]);
    assert!(weights("again") == weights("widened"));
    assert!(weights("widened") != weights("dense"), "something was rounded");
}

/// `--dequantize` folds an adapter into widened weights.
#[test]
fn an_adapter_is_merged_into_widened_weights() {
    let place = tempfile::tempdir().unwrap();
    let to = |name: &str| at(place.path(), name);
    done(&["model", "convert", &golden("llama/gqa_tied"), "--out", &to("packed"), "--quant", "nf4"]);
    done(&["model", "convert", &to("packed"), "--out", &to("widened")]);
    let adapter = golden("lora");
    let merge = |model: &str, out: &str, more: &[&str]| {
        let (model, out) = (to(model), to(out));
        let args = ["model", "merge", "--model", &model, "--adapter", &adapter, "--out", &out];
        done(&[&args[..], more].concat());
    };
    merge("packed", "merged", &["--dequantize"]);
    merge("widened", "merged-too", &[]);
    let weights = |name: &str| weights_of(&place.path().join(name));
    assert!(weights("merged") == weights("merged-too") && weights("merged") != weights("widened"));
}

/// Blocks of a file in place, frozen below an adapter: about what is learned on dense weights, and not bit for bit.
#[test]
fn an_adapter_learns_on_the_blocks_of_a_gguf_file() {
    let (folder, path) = workplace(RUN_FILE);
    let place = folder.path();
    std::fs::write(place.join("rows.jsonl"), sums(12)).unwrap();
    let model = at(place, "imported");
    done(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &model]);
    let losses = |model: &str| -> Vec<f64> {
        let model = format!("model.path={model}");
        let rate = "optimizer.adamw.learning_rate=1e-3";
        let output = run(&path, &["--quiet", "--overwrite", "--set", &model, "--set", rate]);
        assert!(output.status.success(), "{}", run_said(&output, place));
        let text = std::fs::read_to_string(place.join("out/metrics.jsonl")).unwrap();
        let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64();
        text.lines().filter_map(loss).collect()
    };
    let dense = losses("imported");
    for blocks in ["q8_0", "q4_0", "q4_1"] {
        let (file, kept) = (at(place, &format!("{blocks}.gguf")), at(place, blocks));
        done(&["model", "convert", &model, "--out", &file, "--blocks", blocks]);
        done(&["model", "convert", &file, "--out", &kept, "--keep-blocks"]);
        assert!(names(place.join(blocks)).contains(&"model.gguf".to_string()));
        let found = losses(blocks);
        assert!(found != dense && found.last() < found.first(), "{blocks}: {found:?}");
        for (found, dense) in found.iter().zip(&dense) {
            assert!((found - dense).abs() < 0.1 * dense, "{blocks}: {found} beside {dense}");
        }
    }
}

#[test]
fn a_gguf_file_is_kept_as_a_folders_weights() {
    let place = tempfile::tempdir().unwrap();
    let out = at(place.path(), "kept");
    done(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &out, "--keep-blocks"]);
    assert!(names(place.path().join("kept")).contains(&"model.gguf".to_string()));
    let seen = fthost(&["model", "inspect", &out, "--memory", "30MB"]);
    insta::assert_snapshot!("inspect_kept", said(&seen, place.path()));
    let folder = fthost(&["model", "convert", &out, "--out", &at(place.path(), "x"), "--keep-blocks"]);
    insta::assert_snapshot!(said(&folder, place.path()), @r"
    error: `[place]/kept` is no GGUF file
    hint: `--keep-blocks` is for one; a folder's weights are packed by `--quant`
    ");
    // Dense again, with the values of the blocks.
    done(&["model", "convert", &out, "--out", &at(place.path(), "dense")]);
    done(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &at(place.path(), "imported")]);
    let weights = |name: &str| weights_of(&place.path().join(name));
    assert!(weights("dense") == weights("imported"));
}

/// The weights and tokenizers of every family are compared in the engine's tests and the run's; files are read by the package
/// gguf and by transformers in `tests/golden/generate/check_gguf.py`.
#[test]
fn a_folder_becomes_a_gguf_file_and_a_folder_again() {
    let place = tempfile::tempdir().unwrap();
    let [first, file, packed, again] =
        ["first", "made/file.gguf", "packed.gguf", "again"].map(|it| at(place.path(), it));
    done(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &first]);
    done(&["model", "convert", &first, "--out", &file]);
    done(&["model", "convert", &file, "--out", &again]);
    let read = |folder: &str, name: &str| std::fs::read(Path::new(folder).join(name)).unwrap();
    for name in names(place.path().join("first")) {
        if name != "tokenizer_config.json" {
            assert!(read(&first, &name) == read(&again, &name), "`{name}` differs");
        }
    }
    // From the file as well, linears in blocks.
    done(&["model", "convert", &golden("gguf/tiny.gguf"), "--out", &packed, "--blocks", "q5_1"]);
    let seen = fthost(&["model", "inspect", &packed, "--memory", "24GB"]);
    insta::assert_snapshot!("inspect_written", said(&seen, place.path()));
    let told = [
        fthost(&["model", "convert", &first, "--out", &file]),
        fthost(&["model", "convert", &first, "--out", &at(place.path(), "other"), "--blocks", "q8_0"]),
        fthost(&["model", "convert", &first, "--out", &at(place.path(), "x.gguf"), "--quant", "nf4"]),
    ];
    assert_eq!(told.each_ref().map(|it| it.status.code()), [Some(1), Some(2), Some(2)]);
    insta::assert_snapshot!(told.map(|it| said(&it, place.path())).concat());
}

#[test]
fn inspect_tells_what_a_gguf_file_holds() {
    let seen = fthost(&["model", "inspect", &golden("gguf/tiny.gguf"), "--memory", "24GB"]);
    insta::assert_snapshot!(said(&seen, &root()));
}

#[test]
fn inspect_tells_what_an_adapter_holds() {
    let seen = fthost(&["model", "inspect", &golden("lora")]);
    insta::assert_snapshot!(said(&seen, &root()));
    let seen = fthost(&["model", "inspect", &golden("lora"), "--json"]);
    let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(seen["kind"], "adapter");
}

#[test]
fn inspect_refuses_what_is_no_model() {
    let seen = fthost(&["model", "inspect", "tests/golden"]);
    assert_eq!(seen.status.code(), Some(1));
    insta::assert_snapshot!(said(&seen, &root()), @"error: `tests/golden` is neither a GGUF file nor a folder with `config.json` or `adapter_config.json`");
}

/// The merge itself is compared with PEFT's in the engine's tests.
#[test]
fn a_merged_folder_has_the_base_models_weights_and_no_adapter() {
    let place = tempfile::tempdir().unwrap();
    let out = at(place.path(), "merged");
    let (base, adapter) = (golden("llama/gqa_tied"), golden("lora"));
    done(&["model", "merge", "--model", &base, "--adapter", &adapter, "--out", &out, "--dtype", "f16"]);
    let seen = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&fthost(&["model", "inspect", "--json", path]).stdout).unwrap()
    };
    let (merged, base) = (seen(&out), seen(&base));
    assert_eq!(merged["parts"], base["parts"]);
    assert!(merged["facts"].to_string().contains("F16"), "{}", merged["facts"]);
    let bytes = std::fs::read(place.path().join("merged/model.safetensors")).unwrap();
    let base = std::fs::read(root().join("tests/golden/llama/gqa_tied/model.safetensors")).unwrap();
    let name = "model.layers.0.self_attn.q_proj.weight";
    let tensor = |bytes: &[u8]| {
        let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
        tensors.tensor(name).unwrap().data().to_vec()
    };
    assert_ne!(tensor(&bytes).len(), tensor(&base).len(), "two bytes a value, not four");
}

#[test]
fn combine_tells_what_it_can_do() {
    insta::assert_snapshot!(said(&fthost(&["model", "combine", "--help"]), &root()), @r"
    Make one adapter of several of one base

    Usage: fthost model combine [OPTIONS] --adapter <DIR[=WEIGHT]> --out <OUT>

    Options:
          --adapter <DIR[=WEIGHT]>
              An adapter's folder, as PEFT writes it, and its weight, which may be below 0; 1 if absent.
              Given once an adapter

          --out <OUT>
              The folder to make

          --method <METHOD>
              How

              Possible values:
              - cat:         Their weighted sum, exactly; ranks add up
              - linear:      Weighted sums of A and of B, of one rank: rough, products of different
                adapters stand in it
              - ties:        As linear, of each tensor's largest values that agree in sign
              - dare_linear: As linear, of values drawn at random
              - dare_ties:   As ties, of values drawn at random
              - slerp:       On the arc between two; ranks add up
              
              [default: cat]

          --density <SHARE>
              Share of each adapter's values that is kept, of ties, dare_linear and dare_ties [default:
              0.5]

          --majority-sign <MAJORITY_SIGN>
              Which sign a value gets, of ties and dare_ties [default: total]

              Possible values:
              - total:     That of their sum
              - frequency: That of most

          --seed <N>
              Decides every draw, of dare_linear and dare_ties [default: 0]

          --t <T>
              Where between two adapters, 0 the first and 1 the second, of slerp [default: 0.5]

          --base <NAME>
              The base that the result names, for adapters that name one base differently

          --dtype <DTYPE>
              How weights are written: f32 keeps every value as it is

              Possible values:
              - f32:  Four bytes, exact
              - bf16: Two bytes, the range of f32
              - f16:  Two bytes, more digits and a smaller range
              
              [default: f32]

          --force
              Replace an adapter that is there already

      -h, --help
              Print help (see a summary with '-h')
    ");
}

/// The numbers are compared with PEFT's in the engine's tests.
#[test]
fn adapters_of_one_base_become_one() {
    let place = tempfile::tempdir().unwrap();
    let out = at(place.path(), "combined");
    let adapters = ["first=0.7", "second=-0.4", "wide=0.5"].map(|it| golden(&format!("combine/{it}")));
    let of = |more: &[&str]| {
        let [first, second, wide] = &adapters;
        let args =
            ["model", "combine", "--adapter", first, "--adapter", second, "--adapter", wide, "--out", &out];
        fthost(&[&args, more].concat())
    };
    assert!(of(&[]).status.success());
    assert_eq!(names(place.path().join("combined")), ["adapter_config.json", "adapter_model.safetensors"]);
    insta::assert_snapshot!("inspect_combined", said(&fthost(&["model", "inspect", &out]), place.path()));
    let again = of(&[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again, place.path()).contains("is already there"));
    let ranks = of(&["--force", "--method", "dare_ties", "--density", "0.3", "--majority-sign", "frequency"]);
    assert_eq!(ranks.status.code(), Some(1));
    insta::assert_snapshot!(said(&ranks, place.path()), @r"
    error: can't combine `tests/golden/combine/wide`: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` has rank 6, that of `tests/golden/combine/first` has 4
    hint: adapters of different ranks are combined by `cat`, or by `slerp`
    ");
    let option = of(&["--force", "--t", "0.3"]);
    assert_eq!(option.status.code(), Some(2));
    insta::assert_snapshot!(said(&option, place.path()), @r"
    error: `--t` is no option of `cat`
    hint: it goes with slerp
    ");
    assert_eq!(
        names(place.path().to_path_buf()),
        ["combined"],
        "what failed left nothing and replaced nothing"
    );

    // A path may hold `=`; what is behind it is a weight only if it is a number.
    let (first, second) = (at(place.path(), "a=b"), golden("combine/second"));
    done(&["model", "combine", "--adapter", &golden("combine/first"), "--out", &first, "--method", "linear"]);
    let between = at(place.path(), "between");
    let args = ["--adapter", &first, "--adapter", &second, "--out", &between, "--dtype", "bf16"];
    done(&[&["model", "combine", "--method", "slerp", "--t", "0.3"], &args[..]].concat());
    assert!(place.path().join("between/adapter_model.safetensors").is_file());
}

#[test]
fn a_model_from_nothing_is_decided_by_its_seed() {
    let place = tempfile::tempdir().unwrap();
    let made = |name: &str, seed: &str| {
        let out = at(place.path(), name);
        done(&["model", "init", &golden("train/model"), "--out", &out, "--seed", seed]);
        std::fs::read(place.path().join(name).join("model.safetensors")).unwrap()
    };
    let first = made("first", "1");
    assert_eq!(first, made("second", "1"));
    assert_ne!(first, made("third", "2"));
}
