//! Every format and shape of row through the program, and what a person sees of them.

use std::path::Path;

use serde_json::json;

use crate::support::workplace::{RUN_FILE, run, said, workplace};
use crate::support::{fthost, root};

/// A template without marks for generation, as most models have.
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn preview(path: &Path, more: &[&str]) -> std::process::Output {
    fthost(&[&["data", "preview", path.to_str().unwrap()], more].concat())
}

/// A workplace whose model has a chat template.
fn chat_workplace() -> (tempfile::TempDir, std::path::PathBuf) {
    let (folder, path) = workplace(RUN_FILE);
    std::fs::write(folder.path().join("model/chat_template.jinja"), TEMPLATE).unwrap();
    (folder, path)
}

#[test]
fn every_format_trains() {
    let (folder, path) = workplace(&RUN_FILE.replace("steps = 12", "steps = 2"));
    let pairs: Vec<_> = (0..6)
        .map(
            |it| json!({"prompt": format!("What is {it} + 1?"), "completion": format!(" It is {}.", it + 1)}),
        )
        .collect();
    let lines: Vec<String> = pairs.iter().map(ToString::to_string).collect();
    let csv: Vec<String> = pairs.iter().map(|it| format!("{},{}", it["prompt"], it["completion"])).collect();
    std::fs::write(folder.path().join("rows.jsonl"), lines.join("\n")).unwrap();
    std::fs::write(folder.path().join("rows.json"), json!({"data": pairs}).to_string()).unwrap();
    std::fs::write(folder.path().join("rows.csv"), format!("prompt,completion\n{}\n", csv.join("\n")))
        .unwrap();
    let parquet = root().join("tests/golden/parquet/pairs.parquet");
    std::fs::copy(parquet, folder.path().join("rows.parquet")).unwrap();
    let trained = |format: &str| {
        let (data, out) = (format!("data.files=[\"rows.{format}\"]"), format!("output.dir={format}"));
        let output = run(&path, &["--quiet", "--set", &data, "--set", &out]);
        assert!(output.status.success(), "{format}: {}", said(&output, folder.path()));
        std::fs::read(folder.path().join(format).join("adapter/adapter_model.safetensors")).unwrap()
    };
    let jsonl = trained("jsonl");
    for format in ["json", "csv", "parquet"] {
        assert!(trained(format) == jsonl, "{format}: the same rows give another adapter");
    }
}

#[test]
fn every_known_shape_is_previewed_with_its_supervised_part() {
    let (folder, path) = chat_workplace();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let rows = [
        json!({"messages": [turn("system", "Add."), turn("user", "1 + 1?"), turn("assistant", "2"), turn("user", "Sure?"), turn("assistant", "Yes,\n2.")]}),
        json!({"prompt": "The sum of 1 and 1 is", "completion": " 2, 你好 🙂."}),
        json!({"prompt": [turn("user", "1 + 1?")], "completion": [turn("assistant", "2")]}),
        json!({"text": "One and one is two."}),
        json!({"instruction": "Add.", "input": "1, 1", "output": "2"}),
        json!({"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]}),
        json!({"prompt": "a", "chosen": "b", "rejected": "c"}),
        json!({"question": "?"}),
    ];
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    std::fs::write(folder.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    let output = preview(&path, &["--rows", "6", "--set", "data.on_bad_row=skip"]);
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    ⟦supervised⟧, the rest is masked

    rows.jsonl:1: 61 tokens, 10 supervised
    <|im_start|>system
    Add.<|im_end|>
    <|im_start|>user
    1 + 1?<|im_end|>
    <|im_start|>assistant
    ⟦2<|im_end|>⟧
    <|im_start|>user
    Sure?<|im_end|>
    <|im_start|>assistant
    ⟦Yes,
    2.<|im_end|>⟧

    rows.jsonl:2: 27 tokens, 13 supervised
    The sum of 1 and 1 is⟦ 2, 你好 🙂.</s>⟧

    rows.jsonl:3: 22 tokens, 2 supervised
    <|im_start|>user
    1 + 1?<|im_end|>
    <|im_start|>assistant
    ⟦2<|im_end|>⟧

    rows.jsonl:4: 11 tokens, 10 supervised
    ⟦One and one is two.</s>⟧

    rows.jsonl:5: 25 tokens, 2 supervised
    <|im_start|>user
    Add.

    1, 1<|im_end|>
    <|im_start|>assistant
    ⟦2<|im_end|>⟧

    rows.jsonl:6: 22 tokens, 2 supervised
    <|im_start|>user
    1 + 1?<|im_end|>
    <|im_start|>assistant
    ⟦2<|im_end|>⟧

    6 rows to train on, 0 held out, 2 skipped
      skipped rows.jsonl:7: a row without one answer can't be learned by `[objective.sft]`
      skipped rows.jsonl:8: no known shape: the columns are question (known: messages; prompt + completion; prompt + chosen + rejected; text; instruction + output (Alpaca); conversations (ShareGPT); prompt); a data-builder plugin maps anything else
    168 tokens, 39 supervised; a row has 11 to 61, 28 on average
    ");
    let output =
        preview(&path, &["--rows", "1", "--set", "data.on_bad_row=skip", "--set", "data.max_length=40"]);
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    ⟦supervised⟧, the rest is masked

    rows.jsonl:1: 40 tokens, cut from 61, 2 supervised
    <|im_start|>system
    Add.<|im_end|>
    <|im_start|>user
    1 + 1?<|im_end|>
    <|im_start|>assistant
    ⟦2<|im_end|>⟧
    <|im_start|>user
    S

    6 rows to train on, 0 held out, 2 skipped
      skipped rows.jsonl:7: a row without one answer can't be learned by `[objective.sft]`
      skipped rows.jsonl:8: no known shape: the columns are question (known: messages; prompt + completion; prompt + chosen + rejected; text; instruction + output (Alpaca); conversations (ShareGPT); prompt); a data-builder plugin maps anything else
    147 tokens, 31 supervised; a row has 11 to 40, 24 on average
    ");
    let output = preview(&path, &[]);
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(said(&output, folder.path()).lines().last().unwrap(), @"error: rows.jsonl:8: no known shape: the columns are question (known: messages; prompt + completion; prompt + chosen + rejected; text; instruction + output (Alpaca); conversations (ShareGPT); prompt); a data-builder plugin maps anything else");
}

#[test]
fn parquet_conversations_are_previewed() {
    let (folder, path) = chat_workplace();
    let file = root().join("tests/golden/parquet/conversations.parquet");
    std::fs::copy(file, folder.path().join("rows.parquet")).unwrap();
    let output = preview(
        &path,
        &["--rows", "1", "--set", "data.files=[\"rows.parquet\"]", "--set", "data.held_out.fraction=0.4"],
    );
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    ⟦supervised⟧, the rest is masked

    rows.parquet:2: 38 tokens, 15 supervised
    <|im_start|>user
    What is 1 + 1?<|im_end|>
    <|im_start|>assistant
    ⟦It is 2. Grüße, 你好<|im_end|>⟧

    3 rows to train on, 2 held out, 0 skipped
    114 tokens, 45 supervised; a row has 38 to 38, 38 on average
    ");
}

#[test]
fn a_run_shows_a_row_before_its_first_step() {
    let (folder, path) = workplace(RUN_FILE);
    let output = run(&path, &["--set", "data.on_bad_row=skip", "--set", "train.steps=1"]);
    let said = said(&output, folder.path());
    let (row, step) = (said.find("⟦ It is 1.</s>⟧").expect(&said), said.find("step 1/1").expect(&said));
    assert!(row < step, "{said}");
}
