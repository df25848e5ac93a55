//! Goldens of the data crate.

use std::path::{Path, PathBuf};

use fthost_data::{
    BAD, Batch, ChatTemplate, Columns, Completion, Content, Example, GOOD, IGNORED, Message, Origin,
    PreferencePair, Prompt, Role, Sequence, Tokenizer, encode,
};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/chat_template")
}

/// Oracle: pyarrow, `tests/golden/generate/parquet.py`: two row groups, a list of structs, numbers and nulls.
#[test]
fn parquet_rows_are_read_as_pyarrow_wrote_them() {
    let path = folder().join("../parquet/conversations.parquet");
    let rows: Vec<_> = fthost_data::source::read_rows(&path).unwrap().map(|it| it.unwrap()).collect();
    let lines: Vec<String> =
        rows.iter().map(|it| format!("{}: {}", it.origin.line, Value::Object(it.columns.clone()))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    1: {"messages":[{"role":"user","content":"What is 0 + 1?"},{"role":"assistant","content":"It is 1. Grüße, 你好"}],"id":0,"score":0.0,"note":"note 0"}
    2: {"messages":[{"role":"user","content":"What is 1 + 1?"},{"role":"assistant","content":"It is 2. Grüße, 你好"}],"id":1,"score":0.25,"note":null}
    3: {"messages":[{"role":"user","content":"What is 2 + 1?"},{"role":"assistant","content":"It is 3. Grüße, 你好"}],"id":2,"score":0.5,"note":"note 2"}
    4: {"messages":[{"role":"user","content":"What is 3 + 1?"},{"role":"assistant","content":"It is 4. Grüße, 你好"}],"id":3,"score":0.75,"note":null}
    5: {"messages":[{"role":"user","content":"What is 4 + 1?"},{"role":"assistant","content":"It is 5. Grüße, 你好"}],"id":4,"score":1.0,"note":"note 4"}
    "#);
    let example = fthost_data::rows::example(rows[1].clone()).unwrap();
    assert!(matches!(&example.content, Content::Messages(turns) if turns.len() == 2));
    assert_eq!(example.columns.keys().collect::<Vec<_>>(), ["id", "score", "note"]);
}

fn cases() -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(folder().join("cases.json")).unwrap()).unwrap()
}

fn template(case: &Value) -> ChatTemplate {
    ChatTemplate::new(case["source"].as_str().unwrap(), Some("<|begin_of_text|>"), Some("</s>"))
}

fn messages(case: &Value) -> Vec<Message> {
    serde_json::from_value(case["messages"].clone()).unwrap()
}

fn tokenizer(chat_template: Option<ChatTemplate>) -> Tokenizer {
    let mut tokenizer = Tokenizer::load(&folder()).unwrap();
    tokenizer.eos_token = Some("</s>".into());
    tokenizer.chat_template = chat_template;
    tokenizer
}

fn example(content: Content) -> Example {
    let origin = Origin { source: "rows.jsonl".into(), line: 3 };
    Example { content, columns: Columns::new(), origin, provenance: Vec::new() }
}

/// The decoded text of the supervised tokens, turn by turn.
fn learned(example: &Example, tokenizer: &Tokenizer) -> Vec<String> {
    let sequence = encode::encode(example, tokenizer, 1000).unwrap();
    let runs = sequence.labels.split(|it| *it == IGNORED).filter(|it| !it.is_empty());
    let ids = runs.map(|run| run.iter().map(|it| *it as u32).collect::<Vec<_>>());
    ids.map(|ids| tokenizer.decode(&ids, false).unwrap()).collect()
}

/// Oracle: transformers' `apply_chat_template`, `tests/golden/generate/chat_template.py`; text and ids are equal.
#[test]
fn templates_render_and_tokenise_as_transformers_does() {
    for case in cases() {
        let name = format!("{} / {}", case["template"], case["conversation"]);
        let (template, messages) = (template(&case), messages(&case));
        assert_eq!(template.render(&messages, false).unwrap(), case["text"].as_str().unwrap(), "{name}");
        let (_, asked) = messages.split_last().unwrap();
        assert_eq!(template.render(asked, true).unwrap(), case["prompt_text"].as_str().unwrap(), "{name}");
        let ids: Vec<u32> = serde_json::from_value(case["input_ids"].clone()).unwrap();
        assert_eq!(tokenizer(None).encode(case["text"].as_str().unwrap()).unwrap().ids, ids, "{name}");
    }
}

#[test]
fn a_token_that_the_model_lacks_is_named() {
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(folder().join("tokenizer.json"), place.path().join("tokenizer.json")).unwrap();
    let whole = Tokenizer::load(place.path()).unwrap();
    let ids = whole.encode("Hello</s>").unwrap().ids;
    let most = *ids.iter().max().unwrap();
    let with = |vocab_size: u32| {
        let config = serde_json::json!({"vocab_size": vocab_size}).to_string();
        std::fs::write(place.path().join("config.json"), config).unwrap();
        Tokenizer::load(place.path()).unwrap().encode("Hello</s>")
    };
    assert_eq!(with(most + 1).unwrap().ids, ids);
    let error = with(most).unwrap_err().to_string();
    let token = whole.decode(&[most], false).unwrap();
    let said =
        format!("`{token}` has the id {most}, and the model {most} tokens (`vocab_size` in `config.json`)");
    assert!(
        error.contains(&said) && error.contains("\nhint: the tokenizer is that of another model"),
        "{error}"
    );
}

/// Oracle: transformers' assistant mask. Its template writes a newline inside the tags, so the mask holds it too.
#[test]
fn generation_tags_supervise_what_transformers_masks() {
    let mut seen = 0;
    for case in cases().iter().filter(|it| !it["assistant_mask"].is_null()) {
        let mask: Vec<u8> = serde_json::from_value(case["assistant_mask"].clone()).unwrap();
        let content = Content::Messages(messages(case));
        let sequence = encode::encode(&example(content), &tokenizer(Some(template(case))), 1000).unwrap();
        let got: Vec<u8> = sequence.labels.iter().map(|it| u8::from(*it != IGNORED)).collect();
        assert_eq!(got, mask, "{}", case["conversation"]);
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn without_tags_an_assistant_turn_and_its_end_are_supervised() {
    let case = &cases()[2];
    assert_eq!(
        (&case["template"], &case["conversation"]),
        (&"chatml_default_system".into(), &"multi_turn".into())
    );
    let content = Content::Messages(messages(case));
    let learned = learned(&example(content), &tokenizer(Some(template(case))));
    assert_eq!(learned, ["Grüß Gott, 你好 🙂<|im_end|>", "{\"name\": \"Łukasz\", \"age\": 30}<|im_end|>"]);
}

#[test]
fn a_text_completion_is_supervised_with_its_end() {
    let content = Content::PromptCompletion {
        prompt: Prompt::Text("Text: Ana is 30.\nJSON:".into()),
        completion: Completion::Text(" {\"age\": 30}".into()),
    };
    assert_eq!(learned(&example(content), &tokenizer(None)), [" {\"age\": 30}</s>"]);
}

#[test]
fn a_row_without_a_supervised_token_is_an_error_that_names_it() {
    let content = Content::Messages(vec![Message::new(Role::User, "Anybody there?")]);
    let tokenizer = tokenizer(Some(template(&cases()[0])));
    let error = encode::encode(&example(content), &tokenizer, 1000).unwrap_err();
    insta::assert_snapshot!(error, @"rows.jsonl:3: no supervised token within max_length = 1000: nothing would be learned");
}

#[test]
fn a_template_that_refuses_says_so_in_its_own_words() {
    let refusing = ChatTemplate::new("{{ raise_exception('roles must alternate') }}", None, None);
    let error = refusing.render(&[], false).unwrap_err().to_string();
    assert!(error.contains("roles must alternate"), "{error}");
}

fn pair(prompt: &str, chosen: &str, rejected: &str) -> Example {
    let text = |it: &str| Completion::Text(it.into());
    let (prompt, chosen, rejected) = (Prompt::Text(prompt.into()), text(chosen), text(rejected));
    example(Content::Preference(PreferencePair { prompt, chosen, rejected }))
}

#[test]
fn a_pair_is_its_two_answers_end_to_end() {
    let tokenizer = tokenizer(None);
    let both = encode::encode_pair(&pair("Ask: why?\n", " Because.", " No idea, friend."), &tokenizer, 1000)
        .unwrap();
    let apart = [" Because.", " No idea, friend."].map(|it| {
        let content = Content::PromptCompletion {
            prompt: Prompt::Text("Ask: why?\n".into()),
            completion: Completion::Text(it.into()),
        };
        encode::encode(&example(content), &tokenizer, 1000).unwrap()
    });
    assert_eq!(Batch::new([&both]), Batch::new(&apart));
}

#[test]
fn a_pair_that_prefers_nothing_is_told() {
    let tokenizer = tokenizer(None);
    let said =
        |example: &Example, most| encode::encode_pair(example, &tokenizer, most).unwrap_err().to_string();
    let plain = example(Content::Text("plain".into()));
    insta::assert_snapshot!([
        said(&pair("a", "b", "b"), 100),
        said(&pair("a", "", "b"), 100),
        said(&pair("a", "b", ""), 100),
        said(&pair("a prompt that leaves no room", "b", "c"), 4),
        said(&plain, 100),
    ].join("\n"), @r"
    rows.jsonl:3: `chosen` and `rejected` are equal: nothing is preferred
    rows.jsonl:3: `chosen` is empty
    rows.jsonl:3: `rejected` is empty
    rows.jsonl:3: no supervised token within max_length = 4: nothing would be learned
    rows.jsonl:3: it is no preference pair: `prompt`, `chosen` and `rejected`
    ");
}

#[test]
fn a_completion_is_judged_by_its_label_and_a_pair_is_taken_apart() {
    let tokenizer = tokenizer(None);
    let judged = |label: Option<Value>| {
        let content = Content::PromptCompletion {
            prompt: Prompt::Text("Ask: why?\n".into()),
            completion: Completion::Text(" Because.".into()),
        };
        let columns = label.map(|it| ("label".to_string(), it)).into_iter().collect();
        Example { columns, ..example(content) }
    };
    let encoded = |example: &Example| encode::encode_judged(example, &tokenizer, 1000);
    let plain = encode::encode(&judged(None), &tokenizer, 1000).unwrap();
    for (label, judgement) in [(true, GOOD), (false, BAD)] {
        let expected = Sequence { judgement, ..plain.clone() };
        assert_eq!(encoded(&judged(Some(label.into()))).unwrap(), [expected]);
    }
    let empty = Content::PromptCompletion {
        prompt: Prompt::Text("Ask: why?\n".into()),
        completion: Completion::Text(String::new()),
    };
    let empty = Example { content: empty, ..judged(Some(true.into())) };
    assert_eq!(encoded(&empty).unwrap_err().to_string(), "rows.jsonl:3: `completion` is empty");
    let pair = pair("Ask: why?\n", " Because.", " No idea, friend.");
    let apart = encoded(&pair).unwrap();
    assert_eq!(apart[0], Sequence { judgement: GOOD, ..plain });
    assert_eq!((apart.len(), apart[1].judgement, apart[1].cut), (2, BAD, 0));
    let together = Batch::new([&encode::encode_pair(&pair, &tokenizer, 1000).unwrap()]);
    assert_eq!(Batch { judgements: vec![0.0; 2], ..Batch::new(&apart) }, together);

    let said = |example: &Example| encoded(example).unwrap_err().to_string();
    insta::assert_snapshot!([
        said(&judged(None)),
        said(&judged(Some(Value::Null))),
        said(&judged(Some("yes".into()))),
        said(&judged(Some(1.into()))),
        said(&example(Content::Text("plain".into()))),
    ].join("\n"), @r#"
    rows.jsonl:3: it has no `label`: whether its completion is good, `true` or `false`
    rows.jsonl:3: it has no `label`: whether its completion is good, `true` or `false`
    rows.jsonl:3: `label` must be true or false, got `"yes"`
    rows.jsonl:3: `label` must be true or false, got `1`
    rows.jsonl:3: it is no judged completion: `prompt`, `completion` and `label`, or a pair of `chosen` and `rejected`
    "#);
}
