//! Guests of released versions beside those of the version in work, and guests that need WASI.

use fthost_data::{
    Candidate, Columns, Content, EvalSample, Example, Finish, Group, HostModel, ModelName, Occasion, Origin,
    Outcome, Prompt, Purpose, Sampling, TextLogprob,
};
use fthost_sandbox::{Contract, PluginConfig};
use serde_json::json;

use crate::support::{component, config, group, load, order, sandbox};

/// Answers 1, 2, 3, ... to whatever is asked.
#[derive(Default)]
pub struct Counting(f64);

impl HostModel for Counting {
    fn generate(&mut self, _: &[Prompt], _: &Sampling) -> Result<Vec<Vec<Candidate>>, String> {
        Err("no text".into())
    }

    fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String> {
        self.0 += 1.0;
        Ok(pairs.iter().map(|_| TextLogprob { sum: -self.0, token_count: 1 }).collect())
    }

    fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        self.0 += 1.0;
        Ok(texts.iter().map(|_| vec![self.0 as f32]).collect())
    }
}

fn values(outcomes: &[Outcome]) -> Vec<f64> {
    let value = |it: &Outcome| match it {
        Outcome::Ok(score) => score.value,
        other => panic!("{other:?}"),
    };
    outcomes.iter().map(value).collect()
}

#[test]
fn guests_of_every_version_play_on_one_host() {
    let (sandbox, _, model) = sandbox();
    let toml = "grants.logprobs = true";
    let old = sandbox.load("old", &component("tests/guests", "contract-0-1"), &config(toml)).unwrap();
    let next = sandbox.load("next", &component("tests/guests", "contract-0-2"), &config(toml)).unwrap();
    let new = sandbox.load("new", &component("tests/guests", "hostile"), &config(toml)).unwrap();
    let contracts = [&old, &next, &new].map(|it| it.contract());
    assert_eq!(contracts, [Contract::V0_1, Contract::V0_2, Contract::V1]);
    let (mut old, mut next, mut new) = (old.reward().unwrap(), next.reward().unwrap(), new.reward().unwrap());
    assert_eq!(values(&old.score(&[group(json!({}), &["four", "sixsix"])])[0]), [4.0, 6.0]);
    model.set(ModelName::Run, Some(Box::new(Counting::default())));
    assert_eq!(values(&old.score(&[group(json!({}), &["ask"])])[0]), [-1.0]);
    assert_eq!(values(&next.score(&[group(json!({}), &["four", "ask"])])[0]), [4.0, -2.0]);
    assert_eq!(values(&new.score(&[group(json!({}), &["logprobs"])])[0]), [-3.0]);
}

#[test]
fn an_augmenter_of_0_2_leaves_examples_out() {
    let example = Example {
        content: Content::Text("ab".into()),
        columns: Columns::new(),
        origin: Origin { source: "rows.jsonl".into(), line: 3 },
        provenance: Vec::new(),
    };
    let plugin = load("contract-0-2", "tests/guests", "");
    let augmented = plugin.augmenter().unwrap().augment(&[example]).unwrap().remove(0);
    assert_eq!(augmented.dropped.as_deref(), Some("doubled"));
    assert_eq!(augmented.variants[0].content, Content::Text("abab".into()));
}

#[test]
fn a_reward_of_1_knows_what_a_group_is_scored_for() {
    let mut reward = load("hostile", "tests/guests", "").reward().unwrap();
    let occasion = Occasion { purpose: Purpose::Training, steps: 30, max_tokens: 6 };
    let groups = [Group { step: 4, occasion, ..order("occasion") }, order("occasion")];
    let found: Vec<Outcome> = reward.score(&groups).into_iter().map(|mut it| it.remove(0)).collect();
    let of = |outcome: &Outcome| match outcome {
        Outcome::Ok(score) => (score.value, score.components.iter().map(|it| it.1).collect::<Vec<_>>()),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(&found[0]), (1.0, vec![4.0, 30.0, 6.0]));
    assert_eq!(of(&found[1]), (0.0, vec![0.0, 0.0, 0.0]));
}

#[test]
fn every_role_of_0_1_is_played() {
    let plugin = load("contract-0-1", "tests/guests", "");
    let example = Example {
        content: Content::Text("ab".into()),
        columns: Columns::new(),
        origin: Origin { source: "rows.jsonl".into(), line: 3 },
        provenance: Vec::new(),
    };
    let augmented = plugin.augmenter().unwrap().augment(&[example]).unwrap().remove(0);
    assert_eq!(augmented.dropped, None, "0.1 keeps every example");
    assert_eq!(augmented.variants[0].content, Content::Text("abab".into()));
    assert_eq!(augmented.variants[0].origin.line, 3);
    let sample = EvalSample {
        id: 7,
        step: 1,
        steps: 2,
        prompt: Prompt::Text("?".into()),
        completion: Candidate { text: "a".into(), token_count: 1, finish: Finish::Stop },
        reference: None,
        columns: Columns::new(),
    };
    let mut evaluator = plugin.evaluator().unwrap();
    assert_eq!(evaluator.grade(&[sample]).unwrap()[0].id, 7);
    assert_eq!(evaluator.finish().unwrap()[0].value, 1.0);
}

#[test]
fn a_grant_names_the_model_that_is_asked() {
    let (sandbox, _, model) = sandbox();
    let path = component("tests/guests", "hostile");
    let toml = r#"grants.generate = ["run", "reference"]"#;
    let mut reward = sandbox.load("hostile", &path, &config(toml)).unwrap().reward().unwrap();
    let mut told = |what: &str| match reward.score(&[order(what)])[0][0].clone() {
        Outcome::Failed(failure) => format!("{failure}{}", failure.advice("hostile")),
        other => panic!("{other:?}"),
    };
    insta::assert_snapshot!(told("generate judge"), @r#"
    called `generate`, which it was not granted
    hint: `plugins.hostile.grants.generate = ["run", "reference", "judges.big"]` would grant it
    "#);
    model.set(ModelName::Run, Some(Box::new(Counting::default())));
    assert_eq!(told("generate"), "returned an error: no text");
    assert_eq!(
        told("generate reference"),
        "returned an error: model `reference` can't be asked at this time of the run"
    );
}

#[test]
fn files_beside_the_component_and_granted_ones_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.wasm");
    std::fs::copy(component("tests/guests", "hostile"), &path).unwrap();
    let words = folder.path().join("words");
    std::fs::write(&words, "granted").unwrap();
    let toml = |digest: &str| {
        let digest = format!("sha256:{digest}");
        config(&format!("grants.resources.\"words.txt\" = {{ file = {words:?}, digest = \"{digest}\" }}"))
    };
    let score = |config: &PluginConfig| {
        let plugin = sandbox().0.load("hostile", &path, config).unwrap();
        plugin.reward().unwrap().score(&[order("resources")])[0][0].clone()
    };
    let Outcome::Failed(failure) = score(&config("")) else { panic!("there is none") };
    insta::assert_snapshot!(failure, @r#"returned an error: no resource `words.txt` (there is: none); `plugins.hostile.grants.resources."words.txt" = { file = "...", digest = "sha256:..." }` would grant a file"#);

    let own = fthost_sandbox::resource_folder(&path);
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("words.txt"), "own").unwrap();
    std::fs::write(own.join("more.txt"), "more").unwrap();
    let Outcome::Ok(of_package) = score(&config("")) else { panic!("its own file") };
    assert_eq!((of_package.value, of_package.components[0].1), (3.0, 2.0));

    let digest = "5e6b1f2cd2a7d0b5a5d7d3c2b8b3c35a0c7c1f9a0f1b2c3d4e5f60718293a4b5";
    let refused = sandbox().0.load("hostile", &path, &toml(digest)).err().unwrap().to_string();
    let (_, found) = refused.split_once("has digest sha256:").unwrap();
    let found = &found[..64];
    assert!(refused.contains("`plugins.hostile.grants.resources.\"words.txt\".digest` pins"), "{refused}");
    let Outcome::Ok(granted) = score(&toml(found)) else { panic!("the granted file") };
    assert_eq!((granted.value, granted.components[0].1), (7.0, 2.0), "in the place of its own");
}

#[test]
fn wasi_gives_a_stopped_clock_seeded_numbers_and_nothing_else() {
    let mut reward = load("wasi", "tests/guests", "limits.deadline_ms = 2000").reward().unwrap();
    let mut found = |what: &str| reward.score(&[group(json!({}), &[what])])[0][0].clone();
    let value = |outcome: Outcome| values(&[outcome])[0];
    assert_eq!(value(found("wall clock")), 946_684_800.0);
    assert_eq!(value(found("monotonic clock")), 0.0);
    assert_eq!(value(found("sleep")), 1.0, "a century passes at once");
    assert_eq!(value(found("environment")), 0.0);
    assert_eq!(value(found("directories")), 0.0);
    let again = || {
        let mut reward = load("wasi", "tests/guests", "").reward().unwrap();
        let at = |step| Group { step, ..group(json!({}), &["random", "random"]) };
        [1, 2].map(|step| values(&reward.score(&[at(step)])[0]))
    };
    let drawn = again();
    assert_eq!(drawn, again());
    assert!(drawn[0] != drawn[1] && drawn[0][0] != drawn[0][1]);
    let Outcome::Failed(failure) = found("pollables") else { panic!("they are bounded") };
    assert_eq!(failure.kind(), "trap", "{failure}");
    assert_eq!(value(found("directories")), 0.0, "and a fresh instance goes on");
}
