//! The standard plugins, as components.

use fthost_data::{
    BuildOutcome, Candidate, Columns, Completion, Content, Direction, EvalSample, Example, Finish, Message,
    Origin, Outcome, Prompt, Provenance, Record, Role,
};
use fthost_sandbox::RoleKind;
use serde_json::{Value, json};

use crate::support::{group, load};

fn record(columns: Value, line: u64) -> Record {
    let Value::Object(columns) = columns else { panic!("columns are an object") };
    Record { columns, origin: Origin { source: "rows.jsonl".into(), line } }
}

fn chat(example: &Example) -> (Vec<Message>, Vec<Message>) {
    match &example.content {
        Content::PromptCompletion {
            prompt: Prompt::Messages(prompt),
            completion: Completion::Messages(completion),
        } => (prompt.clone(), completion.clone()),
        other => panic!("{other:?}"),
    }
}

const BUILDER: &str = r#"
config.system = "JSON only."
config.prompt = "Text: {{ text }}"
config.completion = "{{ fields }}"
config.keep = ["fields"]
"#;

fn built() -> Vec<BuildOutcome> {
    let rows = [
        record(json!({"text": "Ada, 36", "fields": {"name": "Ada", "age": 36}, "more": 1}), 1),
        record(json!({"fields": {}}), 2),
    ];
    load("instruction-builder", "plugins", BUILDER).data_builder().unwrap().build(&rows).unwrap()
}

#[test]
fn the_builder_makes_conversations_and_names_bad_rows() {
    let outcomes = built();
    let BuildOutcome::Examples(examples) = &outcomes[0] else { panic!("{outcomes:?}") };
    let (prompt, completion) = chat(&examples[0]);
    assert_eq!(prompt, [Message::new(Role::System, "JSON only."), Message::new(Role::User, "Text: Ada, 36")]);
    assert_eq!(completion, [Message::new(Role::Assistant, r#"{"name": "Ada", "age": 36}"#)]);
    assert_eq!(examples[0].columns.keys().collect::<Vec<_>>(), ["fields"]);
    assert_eq!(examples[0].origin.to_string(), "rows.jsonl:1");
    let build = Provenance { plugin: "instruction-builder".into(), operation: "build".into() };
    assert_eq!(examples[0].provenance, [build]);
    let BuildOutcome::BadRow { reason } = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(reason, "template `prompt` asks for a column that is not there; columns: fields");
}

#[test]
fn the_augmenter_states_a_constraint_and_the_answer_keeps_it() {
    let BuildOutcome::Examples(examples) = built().remove(0) else { panic!() };
    let toml = "config.constraints = [\"only-keys\"]";
    let augment =
        || load("constraint-augmenter", "plugins", toml).augmenter().unwrap().augment(&examples).unwrap();
    let variants = augment();
    assert_eq!(variants, augment(), "seeded");
    let variant = &variants[0].variants[0];
    let (prompt, completion) = chat(variant);
    let answer: Columns = serde_json::from_str(&completion[0].content).unwrap();
    assert_eq!(answer.len(), 1);
    let key = answer.keys().next().unwrap();
    assert_eq!(prompt[1].content, format!("Text: Ada, 36\nGive only these keys: {key}."));
    assert_eq!(variant.origin, examples[0].origin);
    let operations: Vec<&str> = variant.provenance.iter().map(|it| it.operation.as_str()).collect();
    assert_eq!(operations, ["build", "constraint:only-keys"]);
}

#[test]
fn the_reward_scores_a_group_in_order() {
    let mut reward = load("json-match", "plugins", "").reward().unwrap();
    let groups =
        [group(json!({"answer": {"a": 1}}), &["no", r#"{"a": 1}"#]), group(json!({"other": 1}), &["{}"])];
    let outcomes = reward.score(&groups);
    let value = |it: &Outcome| match it {
        Outcome::Ok(score) => score.value,
        other => panic!("{other:?}"),
    };
    assert_eq!((value(&outcomes[0][0]), value(&outcomes[0][1])), (0.0, 1.0));
    let Outcome::Abstain { reason } = &outcomes[1][0] else { panic!("{outcomes:?}") };
    assert_eq!(reason, "column `answer` holds no JSON object");
}

#[test]
fn the_evaluator_grades_and_sums_up() {
    let mut evaluator = load("exact-and-f1", "plugins", "").evaluator().unwrap();
    let sample = |id, answer: &str| EvalSample {
        id,
        step: 0,
        steps: 0,
        prompt: Prompt::Text("?".into()),
        completion: Candidate { text: answer.into(), token_count: 1, finish: Finish::Stop },
        reference: Some("Rome and Oslo".into()),
        columns: Columns::new(),
    };
    let details = evaluator.grade(&[sample(4, "Rome and Oslo"), sample(5, "Rome and Bern")]).unwrap();
    assert_eq!((details[0].id, details[1].id), (4, 5));
    // A later batch belongs to the same evaluation.
    evaluator.grade(&[sample(6, "no")]).unwrap();
    let metrics = evaluator.finish().unwrap();
    assert_eq!((metrics[0].name.as_str(), metrics[0].count), ("exact_match", 3));
    assert!((metrics[0].value - 1.0 / 3.0).abs() < 1e-12);
    assert!((metrics[1].value - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
    assert_eq!(metrics[0].direction, Direction::HigherIsBetter);
    assert!(evaluator.finish().unwrap().is_empty(), "starts afresh");
}

#[test]
fn each_plugin_says_what_it_is_and_imports_no_more_than_it_uses() {
    let names = ["constraint-augmenter", "exact-and-f1", "instruction-builder", "json-match"];
    let roles = [RoleKind::Augmenter, RoleKind::Evaluator, RoleKind::DataBuilder, RoleKind::Reward];
    for (name, role) in names.into_iter().zip(roles) {
        let plugin = load(name, "plugins", "");
        let description = plugin.description();
        assert_eq!((description.name.as_str(), description.version.as_str()), (name, "0.1.0"));
        assert!(description.summary.len() > 20, "{description:?}");
        assert!(description.config_schema["properties"].is_object(), "{description:?}");
        assert_eq!(plugin.roles(), [role]);
        // `log` carries panics.
        assert!(
            plugin.imports().iter().all(|it| ["log", "random"].contains(&it.as_str())),
            "{:?}",
            plugin.imports()
        );
    }
}
