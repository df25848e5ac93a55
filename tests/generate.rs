//! `fthost generate` from the outside, on a tiny random model.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::fthost;
use crate::support::model::write_model;

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}assistant: {% endif %}";

fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("model"));
    std::fs::write(folder.path().join("model/chat_template.jinja"), TEMPLATE).unwrap();
    folder
}

fn generate(folder: &Path, more: &[&str]) -> Output {
    let model = folder.join("model");
    let args = ["generate", "--model", model.to_str().unwrap(), "--max-new-tokens", "12"];
    fthost(&[&args[..], more].concat())
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

fn said(output: &Output, folder: &Path) -> String {
    String::from_utf8_lossy(&output.stderr).replace(&format!("{}/", folder.display()), "")
}

#[test]
fn an_answer_is_a_line_of_json_where_asked() {
    let folder = workplace();
    let got = lines(&generate(folder.path(), &["--json", "--system", "Be brief.", "Hello"]));
    assert_eq!(got.len(), 1);
    let prompt = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]);
    assert_eq!(got[0]["prompt"], prompt);
    assert_eq!(
        got[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["prompt", "text", "tokens", "finish"]
    );
    let tokens = got[0]["tokens"].as_array().unwrap().len();
    assert_eq!(got[0]["finish"], if tokens == 12 { "length" } else { "stop" });
    let plain = generate(folder.path(), &["--system", "Be brief.", "Hello"]);
    assert_eq!(String::from_utf8_lossy(&plain.stdout), format!("{}\n", got[0]["text"].as_str().unwrap()));
}

#[test]
fn the_chat_template_is_left_out_where_a_prompt_is_raw() {
    let folder = workplace();
    let rendered = lines(&generate(folder.path(), &["--json", "--raw", "user: Hello\nassistant: "]));
    let chat = lines(&generate(folder.path(), &["--json", "Hello"]));
    assert_eq!(rendered[0]["tokens"], chat[0]["tokens"]);
    assert_eq!(rendered[0]["prompt"], "user: Hello\nassistant: ");
}

#[test]
fn the_same_seed_gives_the_same_answers_at_every_batch_size() {
    let folder = workplace();
    let sampled = |more: &[&str]| {
        let args = ["--json", "--temperature", "1", "--top-p", "0.9", "--n", "3", "Hello", "Bye"];
        lines(&generate(folder.path(), &[&args[..], more].concat()))
    };
    let got = sampled(&["--seed", "5"]);
    assert_eq!(got.len(), 6);
    assert_eq!(got, sampled(&["--seed", "5", "--batch-size", "1"]));
    assert_eq!(got, sampled(&["--seed", "5", "--batch-size", "4"]));
    assert_ne!(got, sampled(&["--seed", "6"]));
}

#[test]
fn rows_of_a_file_are_answered_in_order_and_a_bad_one_is_named() {
    let folder = workplace();
    let path = folder.path().join("rows.jsonl");
    let rows = [json!({"prompt": "One"}), json!({"messages": [{"role": "user", "content": "Two"}]})];
    std::fs::write(&path, rows.iter().map(|it| format!("{it}\n")).collect::<String>()).unwrap();
    let file = ["--json", "--file", path.to_str().unwrap()];
    let got = lines(&generate(folder.path(), &file));
    let prompts: Vec<&Value> = got.iter().map(|it| &it["prompt"]).collect();
    assert_eq!(prompts, [&json!("One"), &json!([{"role": "user", "content": "Two"}])]);

    std::fs::write(&path, format!("{}\n{}\n", rows[0], json!({"prompt": "word ".repeat(200)}))).unwrap();
    let output = generate(folder.path(), &file);
    assert_eq!(output.status.code(), Some(3));
    let said = said(&output, folder.path());
    assert!(said.starts_with("error: rows.jsonl:2: "), "{said}");
    assert!(said.contains("tokens do not fit the model's context of 128"), "{said}");
}

#[test]
fn what_cant_be_generated_says_why() {
    let folder = workplace();
    let output = generate(folder.path(), &["--temperature=-1", "--top-p", "0", "Hello"]);
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    error: invalid generation settings: `temperature` must be >= 0, got `-1`; `top_p` must be in (0, 1], got `0`
    ");
    assert_eq!(generate(folder.path(), &[]).status.code(), Some(2), "no prompt");
    std::fs::remove_file(folder.path().join("model/chat_template.jinja")).unwrap();
    let output = generate(folder.path(), &["Hello"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output, folder.path()).starts_with("error: chat template: the model has none"));
}

#[test]
fn an_adapter_that_a_run_left_changes_the_answers() {
    let folder = workplace();
    let row = json!({"prompt": "What is it?", "completion": " It is that."});
    std::fs::write(folder.path().join("rows.jsonl"), format!("{row}\n")).unwrap();
    let run_file = "[model]\npath = \"model\"\n[data]\nfiles = [\"rows.jsonl\"]\n[adapter.lora]\nrank = 4\n\
                    [optimizer.adamw]\nlearning_rate = 2e-2\n[train]\nsteps = 30\nmicro_batch_size = 1\n\
                    [output]\ndir = \"out\"\n";
    let path = folder.path().join("run.toml");
    std::fs::write(&path, run_file).unwrap();
    let trained = fthost(&["run", "--quiet", path.to_str().unwrap()]);
    assert!(trained.status.success(), "{}", said(&trained, folder.path()));
    let adapter = folder.path().join("out/adapter");
    let asked = ["--json", "--raw", "What is it?"];
    let before = lines(&generate(folder.path(), &asked));
    let after =
        lines(&generate(folder.path(), &[&asked[..], &["--adapter", adapter.to_str().unwrap()]].concat()));
    assert_eq!(before[0]["prompt"], after[0]["prompt"]);
    assert_ne!(before[0]["tokens"], after[0]["tokens"]);
    // Several are their sum: two halves are the whole, and what is taken away again leaves the base.
    let with = |weights: &[&str]| {
        let adapter = adapter.to_str().unwrap();
        let given = weights.iter().flat_map(|it| ["--adapter".to_string(), format!("{adapter}={it}")]);
        let given: Vec<String> = given.collect();
        let all: Vec<&str> = asked.into_iter().chain(given.iter().map(String::as_str)).collect();
        lines(&generate(folder.path(), &all))[0]["tokens"].clone()
    };
    assert_eq!(with(&["0.5", "0.5"]), after[0]["tokens"]);
    assert_eq!(with(&["1", "-1"]), before[0]["tokens"]);
}
