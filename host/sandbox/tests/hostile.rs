//! Whatever a guest does, the host gets a failure that names the limit, lives, and the plugin goes on afresh.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fthost_data::{
    Candidate, Failure, Finish, Group, HostModel, ModelName, Origin, Outcome, Prompt, Record, Sampling,
    TextLogprob,
};
use fthost_sandbox::{ModelSlot, Plugin, Sandbox, SandboxConfig};
use serde_json::json;

use crate::support::{component, config, load, order, sandbox};

/// The failure of each completion; all are the same.
fn failure(toml: &str, what: &str) -> Failure {
    let mut reward = load("hostile", "tests/guests", toml).reward().unwrap();
    let outcomes = reward.score(&[order(what)]).remove(0);
    assert_eq!(outcomes.len(), 2, "one outcome a completion");
    assert_eq!(outcomes[0], outcomes[1]);
    // A fresh instance answers the next call.
    let after = reward.score(&[order("fine")]).remove(0);
    assert!(after.iter().all(|it| matches!(it, Outcome::Ok(score) if score.value == 1.0)), "{after:?}");
    match outcomes.into_iter().next() {
        Some(Outcome::Failed(failure)) => failure,
        other => panic!("{what} gave {other:?}"),
    }
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    let began = Instant::now();
    let failure = failure("limits.deadline_ms = 200", "loop");
    assert_eq!(failure, Failure::Timeout { limit: Duration::from_millis(200) });
    assert_eq!(failure.limit(), Some(("limits.deadline_ms", "200".into())));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn an_endless_loop_ends_when_its_fuel_is_used_up() {
    let failure = failure("limits.fuel = 50000000", "loop");
    assert_eq!(failure.limit(), Some(("limits.fuel", "50000000".into())));
}

#[test]
fn the_same_call_needs_the_same_fuel() {
    let works = |fuel: u64| {
        let toml = format!("limits.fuel = {fuel}");
        let mut reward = load("hostile", "tests/guests", &toml).reward().unwrap();
        matches!(reward.score(&[order("work")])[0][0], Outcome::Ok(_))
    };
    let (mut low, mut high) = (100_000, 100_000_000);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if works(middle) { high = middle } else { low = middle }
    }
    assert!((0..3).all(|_| works(high) && !works(high - 1)), "{high}");
}

#[test]
fn a_memory_bomb_is_told_its_limit() {
    let failure = failure("limits.memory_bytes = 33554432", "memory");
    assert_eq!(failure.limit(), Some(("limits.memory_bytes", "33554432".into())));
}

#[test]
fn deep_recursion_overflows_the_guests_stack_not_the_hosts() {
    let failure = failure("limits.stack_bytes = 262144", "recurse");
    assert_eq!(failure.limit(), Some(("limits.stack_bytes", "262144".into())));
}

#[test]
fn huge_output_is_refused() {
    assert_eq!(failure("", "output"), Failure::OutputTooLarge { limit: 16 << 20 });
}

#[test]
fn a_flood_of_log_lines_is_refused() {
    assert_eq!(failure("", "log"), Failure::LogTooLarge { limit: 1 << 20 });
}

#[test]
fn a_flood_of_host_calls_is_refused() {
    let failure = failure("limits.host_calls = 1000", "calls");
    assert_eq!(failure.limit(), Some(("limits.host_calls", "1000".into())));
}

#[test]
fn a_panic_keeps_its_message() {
    let Failure::Trap { message } = failure("", "panic") else { panic!("a panic traps") };
    assert!(message.contains("a plugin author's message"), "{message}");
    assert!(message.contains("hostile/src/lib.rs:"), "{message}");
}

#[test]
fn an_answer_that_breaks_the_contract_is_no_score() {
    assert_eq!(failure("", "count"), Failure::Contract { message: "0 outcomes for 2".into() });
    assert_eq!(failure("", "nan"), Failure::Contract { message: "a score is NaN".into() });
}

#[test]
fn a_plugins_own_error_and_an_abstention_are_told_apart() {
    assert_eq!(failure("", "error"), Failure::Plugin { message: "this one can't be scored".into() });
    let mut reward = load("hostile", "tests/guests", "").reward().unwrap();
    let outcomes = reward.score(&[order("abstain")]).remove(0);
    assert_eq!(outcomes[1], Outcome::Abstain { reason: "not my kind of row".into() });
}

#[test]
fn imports_without_a_grant_name_the_line_that_grants_them() {
    for import in ["generate", "logprobs", "embed"] {
        let grant = format!("`plugins.hostile.grants.{import} = true`");
        assert_eq!(failure("", import), Failure::Denied { import: import.into(), grant });
    }
}

#[test]
fn log_lines_cannot_write_over_the_terminal() {
    let (sandbox, lines, _) = sandbox();
    let plugin = sandbox.load("hostile", &component("tests/guests", "hostile"), &config("")).unwrap();
    plugin.reward().unwrap().score(&[order("escape")]);
    assert_eq!(*lines.lock().unwrap(), ["hostile Warn red  [31m alert  second line"]);
}

#[test]
fn random_numbers_depend_on_seed_step_and_call_alone() {
    let at = |step, what: &str| Group { step, ..order(what) };
    let draw = |before: &[&str]| {
        let mut reward = load("hostile", "tests/guests", "").reward().unwrap();
        // A trap in between replaces the instance, not the numbers.
        before.iter().for_each(|what| drop(reward.score(&[at(1, what)])));
        (reward.score(&[at(1, "random")]), reward.score(&[at(2, "random")]))
    };
    let (one, other) = (draw(&[]), draw(&["random", "panic", "fine"]));
    assert_eq!(one, other);
    assert_ne!(one.0, one.1);
}

/// Answers with as many letters as it may use tokens, slowly.
struct Parrot;

impl HostModel for Parrot {
    fn generate(&mut self, prompts: &[Prompt], sampling: &Sampling) -> Result<Vec<Vec<Candidate>>, String> {
        assert_eq!(prompts, [Prompt::Text("judge me".into())]);
        std::thread::sleep(Duration::from_millis(300));
        let text = "x".repeat(sampling.max_new_tokens as usize);
        Ok(vec![vec![Candidate { text, token_count: 4, finish: Finish::Length }]])
    }

    fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String> {
        Ok(pairs.iter().map(|_| TextLogprob { sum: -2.5, token_count: 1 }).collect())
    }

    fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        Ok(texts.iter().map(|_| vec![0.25]).collect())
    }
}

#[test]
fn a_granted_model_is_asked_on_the_hosts_time() {
    let (sandbox, _, model) = sandbox();
    let toml = "limits.deadline_ms = 100\ngrants = { generate = true, logprobs = true, embed = true }";
    let plugin = sandbox.load("hostile", &component("tests/guests", "hostile"), &config(toml)).unwrap();
    let mut reward = plugin.reward().unwrap();
    let mut first = |what: &str| reward.score(&[order(what)])[0][0].clone();
    let Outcome::Failed(Failure::Plugin { message }) = first("generate") else { panic!("no model yet") };
    assert_eq!(message, "model `run` can't be asked at this time of the run");
    model.set(ModelName::Run, Some(Box::new(Parrot)));
    assert!(matches!(first("generate"), Outcome::Ok(score) if score.value == 4.0));
    assert!(matches!(first("logprobs"), Outcome::Ok(score) if score.value == -2.5));
    assert!(matches!(first("embed"), Outcome::Ok(score) if score.value == 0.25));
    let usage = plugin.usage();
    assert_eq!(usage.asked["generate(run)"], 2);
    assert!(usage.host_s >= 0.3 && usage.guest_s < 0.1, "{usage:?}");
}

fn rows(orders: &[&str]) -> Vec<Record> {
    let row = |(line, what): (usize, &&str)| {
        let serde_json::Value::Object(columns) = json!({"do": what}) else { unreachable!() };
        Record { columns, origin: Origin { source: "rows.jsonl".into(), line: line as u64 + 1 } }
    };
    orders.iter().enumerate().map(row).collect()
}

#[test]
fn a_builder_cannot_forge_where_a_row_came_from() {
    let mut builder = load("hostile", "tests/guests", "").data_builder().unwrap();
    let error = builder.build(&rows(&["forge"])).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"plugin `hostile` broke the contract: an example of row 1000, which was not given in `build` of 1 items");
}

#[test]
fn a_builder_that_traps_names_plugin_call_and_batch() {
    let mut builder = load("hostile", "tests/guests", "").data_builder().unwrap();
    let error = builder.build(&rows(&["fine", "panic"])).unwrap_err().to_string();
    assert!(error.starts_with("plugin `hostile` trapped: panicked at "), "{error}");
    assert!(error.ends_with("in `build` of 2 items"), "{error}");
    // The next batch's rows are known by their own lines.
    let built = builder.build(&rows(&["fine"])).unwrap();
    let fthost_data::BuildOutcome::Examples(examples) = &built[0] else { panic!("{built:?}") };
    assert_eq!(examples[0].origin.line, 1);
}

/// Resident memory of this process, in kB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}

/// Calls of each kind: enough to see a kilobyte that is kept at each.
const CALLS: usize = 10_000;

/// Calls `plugin` badly and well in turns; every good answer must be right. Gives what the process has grown by, in kB.
fn round(plugin: &Plugin, what: &str, count: usize) -> u64 {
    let mut reward = plugin.reward().unwrap();
    let mut calls = |count: usize| {
        for index in 0..count {
            let outcome = &reward.score(&[order(what)])[0][0];
            assert!(matches!(outcome, Outcome::Failed(_)), "{what} gave {outcome:?}");
            let good = Group { id: index as u64, ..order("id") };
            let after = &reward.score(&[good])[0][1];
            assert!(
                matches!(after, Outcome::Ok(score) if score.value == index as f64),
                "after {what}: {after:?}"
            );
        }
    };
    calls(count.min(50));
    let before = resident();
    calls(count);
    resident().saturating_sub(before)
}

#[test]
fn ten_thousand_hostile_calls_of_each_kind_leave_the_host_as_it_was() {
    // Lines are thrown away: keeping them is not the sandbox's growth.
    let log: fthost_sandbox::LogSink = Arc::new(|_, _, _| {});
    let sandbox = SandboxConfig { cache_dir: None, seed: 0, log, model: ModelSlot::default() };
    let sandbox = Sandbox::new(sandbox).unwrap();
    let path = component("tests/guests", "hostile");
    let limits = "memory_bytes = 2097152, stack_bytes = 65536, output_bytes = 262144, log_bytes = 65536, \
                  host_calls = 1000";
    let timed =
        sandbox.load("hostile", &path, &config(&format!("limits = {{ {limits}, deadline_ms = 500 }}")));
    let timed = timed.unwrap();
    let fueled = sandbox.load("hostile", &path, &config("limits.fuel = 200000")).unwrap();
    let quick = ["memory", "panic", "recurse", "count", "nan", "error", "log", "calls", "generate", "long"];
    let kinds = quick.map(|it| (&timed, it, CALLS)).into_iter();
    // An endless loop is ended by its fuel, and less often by its deadline, which takes its time.
    for (plugin, what, count) in kinds.chain([(&fueled, "loop", CALLS), (&timed, "loop", 5)]) {
        let began = Instant::now();
        let grown = round(plugin, what, count);
        eprintln!("{what}: {count} calls in {:.1} s, {grown} kB more", began.elapsed().as_secs_f64());
        // A kilobyte kept at each call would be ten megabytes.
        assert!(grown < 8 << 10, "{what}: {grown} kB more after {count} calls");
    }
}
