//! Plugins in whole runs of the program. Components come from `plugins/build`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::model::sums;
use crate::support::workplace::{run, said, workplace};
use crate::support::{fthost, root};

const RUN_FILE: &str = r#"
plugin_sets = ["json-extraction"]

[model]
path = "model"

[data]
files = ["rows.jsonl"]
cache = false
held_out.rows = 3

[adapter.lora]
rank = 4

[optimizer.adamw]
learning_rate = 1e-2

[train]
steps = 3
micro_batch_size = 2

[eval]
generation.max_new_tokens = 6

[plugins.instruction-builder.config]
format = "text"

[plugins.constraint-augmenter.config]
share = 1.0

[output]
dir = "out"
"#;

/// A workplace whose rows are for the set `json-extraction`.
fn extraction(run_file: &str) -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = workplace(run_file);
    let row = |age: u32| json!({"text": format!("Ada is {age}."), "fields": {"name": "Ada", "age": age}});
    let rows: Vec<String> = (20..32).map(|age| row(age).to_string()).collect();
    std::fs::write(folder.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    (folder, path)
}

fn done(path: &Path, folder: &Path, more: &[&str]) -> String {
    let output = run(path, more);
    assert!(output.status.success(), "{}", said(&output, folder));
    String::from_utf8(output.stdout).unwrap()
}

fn json_of(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn lines(path: PathBuf) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

#[test]
fn rows_are_built_augmented_rewarded_and_judged_by_four_plugins() {
    let (folder, path) = extraction(RUN_FILE);
    let told = done(&path, folder.path(), &[]);
    // Nine rows of twelve are trained on, each with a variant.
    assert!(told.contains("18 rows, 3 held out, 0 skipped"), "{told}");
    let out = folder.path().join("out");
    for step in [0, 3] {
        let judgement = json_of(out.join(format!("evaluations/step-{step}.json")));
        let answers = judgement["answers"].as_array().unwrap();
        assert_eq!(answers.len(), 3);
        for answer in answers {
            let reference = answer["reference"].as_str().unwrap();
            assert!(reference.starts_with(r#"{"name": "Ada", "age": "#), "{reference}");
            assert_eq!(answer["scores"][0][0], "json-match");
            assert_eq!(answer["values"][0][0], "exact-and-f1/exact_match");
        }
    }
    let evaluations: Vec<Value> =
        lines(out.join("metrics.jsonl")).into_iter().filter(|it| it.get("eval_loss").is_some()).collect();
    assert_eq!(evaluations.len(), 2);
    for name in ["eval_rewards/json-match/mean", "eval_exact-and-f1/exact_match", "eval_exact-and-f1/f1"] {
        assert!(evaluations[0][name].is_number(), "{name}: {}", evaluations[0]);
    }
}

#[test]
fn the_lock_file_names_everything_by_digest_and_the_same_run_writes_the_same() {
    let (folder, path) = extraction(RUN_FILE);
    done(&path, folder.path(), &[]);
    let read = |name: &str| std::fs::read(folder.path().join("out").join(name)).unwrap();
    let names =
        ["fthost.lock.json", "adapter/adapter_model.safetensors", "metrics.jsonl", "evaluations/step-3.json"];
    let first = names.map(read);
    done(&path, folder.path(), &["--overwrite"]);
    assert!(first == names.map(read), "the same run file, plugins and data gave other bytes");
    let lock: Value = serde_json::from_slice(&first[0]).unwrap();
    let plugins = lock["plugins"].as_array().unwrap();
    assert_eq!(plugins.len(), 4);
    let inspected = |name: &str| -> Value {
        serde_json::from_slice(&fthost(&["plugin", "inspect", name, "--json"]).stdout).unwrap()
    };
    for plugin in plugins {
        assert_eq!(plugin["digest"], inspected(plugin["name"].as_str().unwrap())["digest"]);
    }
    assert_eq!(plugins[0]["roles"], json!(["data-builder"]));
    assert_eq!(plugins[0]["config"]["format"], "text");
    for (part, key) in [("run", "digest"), ("data", "digest"), ("model", "digest"), ("result", "digest")] {
        assert!(lock[part][key].as_str().unwrap().starts_with("sha256:"), "{part}: {lock}");
    }
}

#[test]
fn a_seed_changes_what_the_augmenter_draws() {
    let digest = |seed: &str| {
        let (folder, path) = extraction(RUN_FILE);
        done(&path, folder.path(), &["--set", seed]);
        json_of(folder.path().join("out/fthost.lock.json"))["data"]["digest"].clone()
    };
    assert_ne!(digest("train.seed=1"), digest("train.seed=2"));
}

/// A run with a reward that does `what` whenever it is asked.
fn hostile(what: &str, more: &str) -> (tempfile::TempDir, PathBuf) {
    let component = root().join("tests/guests/dist/hostile.wasm");
    assert!(component.is_file(), "`{}` is missing: run `plugins/build`", component.display());
    let component = component.display();
    extraction(&format!(
        "{RUN_FILE}\n{more}\n[plugins.hostile]\ncomponent = \"{component}\"\nroles = [\"reward\"]\n\
         config.always = \"{what}\"\nlimits.deadline_ms = 300\n"
    ))
}

#[test]
fn a_reward_that_never_ends_stops_the_run_and_names_its_limit() {
    let (folder, path) = hostile("loop", "");
    let output = run(&path, &["--quiet"]);
    assert_eq!(output.status.code(), Some(4));
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    error: plugin `hostile` ran past its deadline in `score` of 3 items
      limit: `plugins.hostile.limits.deadline_ms` = 300
    hint: raise the limit, or give the plugin less to do
    ");
}

#[test]
fn a_reward_that_may_fail_is_counted_and_never_a_number() {
    let (folder, path) = hostile("panic", "");
    done(&path, folder.path(), &["--set", "plugins.hostile.on_failure=skip"]);
    let metrics = lines(folder.path().join("out/metrics.jsonl"));
    assert_eq!(metrics[0]["eval_rewards/hostile/outcomes/trap"], 3.0);
    assert!(metrics[0].get("eval_rewards/hostile/mean").is_none());
    let judgement = json_of(folder.path().join("out/evaluations/step-0.json"));
    let note = judgement["answers"][0]["notes"][0].as_str().unwrap();
    assert!(note.starts_with("hostile trapped: panicked at "), "{note}");
}

#[test]
fn what_is_wrong_with_plugins_is_told_by_name() {
    let (folder, path) = extraction(RUN_FILE);
    let failed = |more: &[&str]| {
        let output = run(&path, more);
        let told = said(&output, folder.path()).replace(&root().display().to_string(), "REPOSITORY");
        format!("{told}exit code {}\n", output.status.code().unwrap())
    };
    let told = failed(&["--plugins", "json-extract"]);
    assert!(told.starts_with("error: plugin set `json-extract` was not found; looked for `"), "{told}");
    assert!(told.contains("plugins/sets/json-extract.toml`") && told.ends_with("exit code 2\n"), "{told}");
    let told = failed(&["--set", "plugins.json-mtach.config.column=fields"]);
    assert!(told.starts_with("error: plugin `json-mtach` was not found; looked for `"), "{told}");
    insta::assert_snapshot!(failed(&["--set", "plugins.json-match.config.colum=fields"]), @r"
    error: plugin `json-match` refuses its configuration
      `plugins.json-match.config.colum`: unknown key, expected one of `column`, `allow_fence`, `weights`
    exit code 2
    ");
    insta::assert_snapshot!(failed(&["--set", "plugins.json-match.limits.feul=1"]), @r"
    error: invalid run file `run.toml`
      `plugins.json-match.limits.feul` (`--set plugins.json-match.limits.feul=1`): unknown field `feul`, expected one of `memory_bytes`, `deadline_ms`, `fuel`, `output_bytes`, `log_bytes`, `host_calls`, `stack_bytes`, `table_elements`, `instances`
    exit code 2
    ");
    insta::assert_snapshot!(failed(&["--set", "plugins.json-match.limits.memory_bytes=0"]), @r"
    error: invalid run file `run.toml`
      `plugins.json-match.limits.memory_bytes` must be > 0, got `0`
    exit code 2
    ");
    let second = ["--set", "plugins.again.component=plugins/dist/instruction-builder.wasm"];
    let component = root().join("plugins/dist/instruction-builder.wasm");
    let second = [second[0], &format!("plugins.again.component={}", component.display())];
    insta::assert_snapshot!(failed(&second), @r"
    error: plugins `instruction-builder` and `again` both build data, and a run has one data builder
    hint: give one of them `roles` without `data-builder`, or leave it out
    exit code 2
    ");
}

#[test]
fn plugins_are_listed_and_inspected() {
    let told = |args: &[&str]| {
        let output = fthost(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let text = regex::Regex::new("sha256:[0-9a-f]{64}")
            .unwrap()
            .replace_all(&text, "sha256:DIGEST")
            .into_owned();
        text.replace(&format!("{}/", root().display()), "")
    };
    insta::assert_snapshot!(told(&["plugin", "list"]), @r"
    plugins
      answer-match              reward        0.1.0    Reward the right answer: text after normalisation, or a number in whatever way it is written
      back-translation          augmenter     0.1.0    Say texts in other words by translating them into another language and back
      bleu                      evaluator     0.1.0    Judge answers by corpus BLEU, with sacrebleu's numbers and tokenisers
      calibration               evaluator     0.1.0    Judge whether a model's confidence means what it says: calibration error and Brier score
      chain-of-thought-builder  data-builder  0.1.0    Build examples that reason step by step, with calculations that are checked
      chat-builder              data-builder  0.1.0    Build conversations of chat data: ShareGPT, OpenAI messages, alternating turns
      chrf                      evaluator     0.1.0    Judge answers by corpus chrF or chrF++, with sacrebleu's numbers
      coherence                 evaluator     0.1.0    Judge answers by coherence: how near neighbouring sentences are in meaning, and how much one tells of the next
      constraint-augmenter      augmenter     0.1.0    Derive examples that ask for the same answer under a constraint that can be checked
      diversity                 evaluator     0.1.0    Judge answers by how different they are: distinct-n and self-BLEU
      exact-and-f1              evaluator     0.1.0    Judge answers by exact match and token F1 against the expected answer
      format-tags               reward        0.1.0    Reward an answer laid out in tags, as <think> and <answer>
      instruction-builder       data-builder  0.1.0    Build prompts and answers from any columns by templates
      instruction-synthesis     augmenter     0.1.0    Ask a model for new instructions that need a named capability, and for their answers
      json-match                reward        0.1.0    Reward how far an answer is the expected JSON object: well-formed, its keys, its values
      json-schema               reward        0.1.0    Reward JSON that is valid against a schema
      judge                     evaluator     0.1.0    Let a model judge answers on a rubric: relevance, fluency, informativeness and correctness from 1 to 5
      judge-reward              reward        0.1.0    Let a model judge answers on a scale
      length-band               reward        0.1.0    Reward answers of a wanted length; punish overlong ones softly
      near-duplicates           augmenter     0.1.0    Leave out examples that are nearly the same as an earlier one, by MinHash
      noise                     augmenter     0.1.0    Add typing errors to prompts, so that a model learns to read them
      overlap-reward            reward        0.1.0    Reward answers by BLEU, ROUGE or chrF against the expected ones
      paraphrase                augmenter     0.1.0    Ask a model to say prompts or answers in other words
      pattern                   reward        0.1.0    Reward what matches regular expressions
      perplexity                evaluator     0.1.0    Judge a model by the perplexity of expected answers or of its own, per token and per byte
      preference-builder        data-builder  0.1.0    Build preference pairs of pairs, ranked lists, scored answers and whole conversations
      qa-from-context           augmenter     0.1.0    Ask a model for questions and answers about a text
      repetition-penalty        reward        0.1.0    Punish repeated n-grams of words or characters
      rouge                     evaluator     0.1.0    Judge answers by ROUGE-1, 2, L and Lsum, with rouge-score's numbers, and by characters where there are no words
      self-instruct             augmenter     0.1.0    Ask a model for new tasks like those of the batch, and keep those that are new
      squad-builder             data-builder  0.1.0    Build question-answer examples of SQuAD-like data, flat or nested
      text-chunks               data-builder  0.1.0    Cut plain texts into chunks by characters, words, sentences or paragraphs
      toxicity-words            evaluator     0.1.0    Judge answers by a list of words that should not be in them, in any language
      unit-checks               reward        0.1.0    Reward the share of named checks that an answer passes; checks are data, not code
    sets
      json-extraction           Sentences to JSON: rows with `text` and `fields` are built, augmented, rewarded and judged
    ");
    insta::assert_snapshot!(told(&["plugin", "inspect", "json-match"]), @r#"
    json-match 0.1.0
      Reward how far an answer is the expected JSON object: well-formed, its keys, its values
      from      plugins/dist/json-match.wasm
      digest    sha256:DIGEST
      signature none: a component in no package
      contract  1
      roles     reward
      imports   log
      grants    none needed
      config
        column (string): The column that holds the expected object, as an object or as JSON text. (default "answer")
        allow_fence (boolean): Whether an object inside a Markdown code fence counts as well-formed. (default false)
        weights: Shares of the parts in the score; divided by their sum.
    "#);
}

#[test]
fn an_adapter_evaluated_by_itself_gives_the_runs_last_figures() {
    let (folder, path) = extraction(RUN_FILE);
    done(&path, folder.path(), &[]);
    let adapter = folder.path().join("out/adapter");
    let output = fthost(&["eval", path.to_str().unwrap(), "--adapter", adapter.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let last = lines(folder.path().join("out/metrics.jsonl")).pop().unwrap();
    let metrics = told["metrics"].as_array().unwrap();
    assert!(metrics.len() > 5);
    for metric in metrics {
        let name = metric[0].as_str().unwrap();
        assert_eq!(metric[1], last[name], "{name}");
    }
}

const ASKING: &str = r#"
[model]
path = "model"

[data]
files = ["rows.jsonl"]
held_out.rows = 4

[adapter.lora]
rank = 4

[optimizer.adamw]
learning_rate = 1e-2

[train]
steps = 12
micro_batch_size = 4

[eval]
generation.max_new_tokens = 6
MORE

[output]
dir = "out"
"#;

/// Plugins that ask a model, answered by the run's own and by what it was before training, not by scripts.
#[test]
fn plugins_that_ask_are_answered_by_the_model_in_training() {
    let more = r#"
[plugins.perplexity]
grants.logprobs = true
config = { of = ["reference", "answer"] }

[plugins.before]
component = "PLUGINS/perplexity.wasm"
grants.logprobs = ["reference"]
config = { of = ["reference"], model = "reference" }

[plugins.calibration]
grants.logprobs = true

[plugins.judge]
grants.generate = true
on_failure = "skip"
config = { max_new_tokens = 8 }

[plugins.judge-reward]
grants.generate = true
on_failure = "skip"
config = { max_new_tokens = 8 }
"#;
    let text =
        ASKING.replace("MORE", more).replace("PLUGINS", &root().join("plugins/dist").display().to_string());
    let (folder, path) = workplace(&text);
    std::fs::write(folder.path().join("rows.jsonl"), sums(14)).unwrap();
    done(&path, folder.path(), &[]);
    let lines = lines(folder.path().join("out/metrics.jsonl"));
    let evaluations: Vec<&Value> = lines.iter().filter(|it| it.get("loss").is_none()).collect();
    let [first, last] = evaluations[..] else { panic!("before and after: {evaluations:?}") };
    let figure =
        |of: &Value, name: &str| of[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {of:#}"));
    // The model learns, and what it was before does not.
    let perplexity = "eval_perplexity/perplexity_reference";
    assert!(figure(last, perplexity) < 0.9 * figure(first, perplexity), "{first:#} {last:#}");
    let before = "eval_before/perplexity_reference";
    assert_eq!(figure(first, before), figure(last, before));
    assert_eq!(figure(first, before), figure(first, perplexity), "before training both are one model");
    assert!(figure(last, "eval_calibration/ece").is_finite());
    // A random model gives no rating: that is an outcome with a reason, never a number.
    let audited = json_of(folder.path().join("out/plugins.json"));
    for plugin in audited.as_array().unwrap() {
        let asked = plugin["asked"].as_object().unwrap();
        assert!(!asked.is_empty(), "`{}` asked nobody", plugin["name"]);
    }
}
