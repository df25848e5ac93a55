//! Who scores what, how often it is tried, and what is counted.

use fthost_data::{Candidate, Failure, Finish, Group, ModelName, Outcome, Prompt};
use fthost_sandbox::Plugin;

use crate::contracts::Counting;
use crate::support::{component, config, load, order, sandbox};

/// `count` groups of one completion each, that tell the hostile guest `what`.
fn groups(count: u64, what: impl Fn(u64) -> &'static str) -> Vec<Group> {
    let completion = |id| Candidate { text: what(id).into(), token_count: 1, finish: Finish::Stop };
    let group = |id| Group {
        id,
        step: 1,
        occasion: Default::default(),
        prompt: Prompt::Text("?".into()),
        completions: vec![completion(id)],
        columns: fthost_data::Columns::new(),
    };
    (0..count).map(group).collect()
}

fn flat(outcomes: Vec<Vec<Outcome>>) -> Vec<Outcome> {
    outcomes.into_iter().flatten().collect()
}

fn hostile(toml: &str) -> Plugin {
    load("hostile", "tests/guests", toml)
}

#[test]
fn workers_change_neither_scores_nor_their_order() {
    let scores = |workers: usize| {
        let mut reward = hostile(&format!("workers = {workers}\nbatch = 5")).reward().unwrap();
        let groups = groups(64, |id| if id % 3 == 0 { "random" } else { "id" });
        let later: Vec<Group> = groups.iter().map(|it| Group { step: 2, ..it.clone() }).collect();
        (flat(reward.score(&groups)), flat(reward.score(&later)))
    };
    let alone = scores(1);
    assert_eq!(alone, scores(3));
    assert_eq!(alone, scores(8));
    assert_ne!(alone.0, alone.1, "another step draws other numbers");
    let of_row = |row: usize| matches!(&alone.0[row], Outcome::Ok(score) if score.value == row as f64);
    assert!((0..64).filter(|it| it % 3 != 0).all(of_row));
}

#[test]
fn one_bad_answer_takes_no_other_with_it_where_it_is_skipped() {
    let groups = groups(40, |id| if id == 17 || id == 31 { "panic" } else { "id" });
    let failed = |toml: &str| {
        let outcomes = flat(hostile(toml).reward().unwrap().score(&groups));
        let failed: Vec<usize> =
            (0..40).filter(|it| matches!(outcomes[*it], Outcome::Failed(Failure::Trap { .. }))).collect();
        failed
    };
    assert_eq!(failed("on_failure = \"skip\""), [17, 31]);
    // A run that stops at once has no use for the others.
    assert_eq!(failed("").len(), 40);
}

#[test]
fn what_failed_is_tried_again_as_often_as_the_run_file_says() {
    let flaky = |toml: &str| {
        let (sandbox, _, model) = sandbox();
        // Fails once, then answers 1, 2, ...
        model.set(ModelName::Run, Some(Box::new(OnceDown::default())));
        let toml = format!("grants.embed = true\n{toml}");
        let plugin = sandbox.load("hostile", &component("tests/guests", "hostile"), &config(&toml)).unwrap();
        let outcomes = flat(plugin.reward().unwrap().score(&[order("flaky")]));
        (outcomes[0].clone(), plugin.usage())
    };
    let (outcome, usage) = flaky("");
    assert_eq!(outcome, Outcome::Failed(Failure::Plugin { message: "the line is down".into() }));
    assert_eq!((usage.calls, usage.outcomes["error"]), (1, 2));
    let (outcome, usage) = flaky("on_failure = { retry = 2 }");
    assert!(matches!(outcome, Outcome::Ok(score) if score.value == 1.0));
    assert_eq!((usage.calls, usage.outcomes["ok"]), (2, 2));
}

#[derive(Default)]
struct OnceDown {
    asked: u64,
    inner: Counting,
}

impl fthost_data::HostModel for OnceDown {
    fn generate(
        &mut self,
        prompts: &[Prompt],
        sampling: &fthost_data::Sampling,
    ) -> Result<Vec<Vec<Candidate>>, String> {
        self.inner.generate(prompts, sampling)
    }

    fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<fthost_data::TextLogprob>, String> {
        self.inner.logprobs(pairs)
    }

    fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        self.asked += 1;
        if self.asked == 1 { Err("the line is down".into()) } else { self.inner.embed(texts) }
    }
}

#[test]
fn calls_fuel_memory_and_outcomes_are_counted() {
    let plugin = hostile("limits.fuel = 100000000\non_failure = \"skip\"\nbatch = 4");
    let mut reward = plugin.reward().unwrap();
    reward.score(&groups(8, |id| if id == 5 { "loop" } else { "work" }));
    let usage = plugin.usage();
    assert_eq!(usage.outcomes["ok"], 7);
    assert_eq!(usage.outcomes["out_of_fuel"], 1);
    assert_eq!(usage.limits_hit().collect::<Vec<_>>(), [("out_of_fuel", 1)]);
    // Two batches; the second is halved twice, and what fails alone is asked once more for its failure.
    assert!(usage.calls > 2 && usage.instances > 1, "{usage:?}");
    assert!(usage.fuel > 100_000_000 && usage.memory_bytes > 65_536, "{usage:?}");
    assert!(usage.guest_s > 0.0 && usage.longest_call_s <= usage.guest_s, "{usage:?}");
}
