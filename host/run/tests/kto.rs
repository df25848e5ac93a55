//! Learning from completions that were judged alone.

use fthost_run::train::RunOptions;
use fthost_run::{Event, Interrupt, RunError};
use serde_json::{Value, json};

use crate::support::{Workplace, figures};

fn workplace(rows: &[Value]) -> Workplace {
    let place = Workplace::new(1);
    write(&place, rows);
    place
}

fn write(place: &Workplace, rows: &[Value]) {
    let text: Vec<String> = rows.iter().map(ToString::to_string).collect();
    std::fs::write(place.path("rows.jsonl"), text.join("\n")).unwrap();
}

/// Right sums are good, refusals are not: every second row.
fn judged(count: usize) -> Vec<Value> {
    judged_with(count, 2)
}

/// A refusal every so many rows.
fn judged_with(count: usize, every: usize) -> Vec<Value> {
    let row = |it: usize| {
        let good = it % every != every - 1;
        let answer = if good { format!(" It is {}.", it + 1) } else { " I do not know.".to_string() };
        json!({"prompt": format!("What is {it} + 1?"), "completion": answer, "label": good})
    };
    (0..count).map(row).collect()
}

const KTO: &[&str] =
    &["objective.kto.beta=0.5", "objective.kto.undesirable_weight=1.5", "data.held_out.rows=3"];

fn failure(place: &Workplace, overrides: &[&str]) -> String {
    let error = place.watch(overrides, &RunOptions::default(), &mut |_| ()).unwrap_err().to_string();
    error.replace(&format!("{}/", place.path("").display()).replace("//", "/"), "")
}

#[test]
fn good_completions_become_likelier_and_bad_ones_less_so() {
    let place = workplace(&judged(15));
    let more = ["train.steps=30", "eval.every_steps=10", "data.held_out.rows=5"];
    let summary = place.run(&[KTO, &more].concat());
    assert_eq!((summary.rows, summary.held_out_rows), (10, 5));
    let out = place.path("out");
    let (good, bad) = (figures(&out, "rewards/chosen"), figures(&out, "rewards/rejected"));
    assert!(good.last().unwrap().1 > 0.05 && bad.last().unwrap().1 < -0.05, "{good:?}, {bad:?}");
    // Of what was held out too, and more so with each evaluation.
    let margins = figures(&out, "eval_rewards/margins");
    assert!(margins[0].1 == 0.0 && margins.is_sorted_by(|a, b| a.1 < b.1), "{margins:?}");
    assert_eq!((figures(&out, "kl")[0].1, figures(&out, "eval_kl")[0].1), (0.0, 0.0));
    assert!(figures(&out, "eval_kl").iter().all(|it| it.1 >= 0.0));
    let losses = figures(&out, "eval_loss");
    assert!(losses.last().unwrap().1 < losses[0].1, "{losses:?}");
}

/// Packed or not, in one micro-batch or several, up to the order of additions.
#[test]
fn a_step_is_the_same_however_it_is_laid_out() {
    // Mostly good ones: they become likelier after other prompts too, so that there is a divergence.
    let place = workplace(&judged_with(15, 4));
    let losses = |more: &[&str]| {
        let _ = std::fs::remove_dir_all(place.path("out"));
        place.run(&[KTO, more].concat());
        (figures(&place.path("out"), "loss"), figures(&place.path("out"), "kl"))
    };
    let packed = losses(&[]);
    // The last step of an epoch has the rows that are left; the first is half the mean weight.
    assert!(packed.0[0].1 >= 0.5 && packed.0[0].1 < 0.75 && packed.1.len() == 9, "{packed:?}");
    assert!(packed.1.iter().any(|it| it.1 > 0.0), "{packed:?}");
    let apart = ["train.micro_batch_size=1", "train.gradient_accumulation_steps=4"];
    for more in [&["data.packing=false"][..], &apart] {
        let other = losses(more);
        for (a, b) in packed.0.iter().chain(&packed.1).zip(other.0.iter().chain(&other.1)) {
            assert!((a.1 - b.1).abs() < 2e-5, "{a:?} is not {b:?}");
        }
    }
}

/// Bit for bit: the completions that are exchanged are those of the step, however the run came to it.
#[test]
fn resume_equals_uninterrupted() {
    let place = workplace(&judged_with(15, 4));
    let left = || std::fs::read_to_string(place.path("out/metrics.jsonl")).unwrap();
    place.run(KTO);
    let whole = left();
    for stop in [1, 5] {
        let interrupt = Interrupt::none();
        let options = RunOptions { overwrite: true, interrupt: interrupt.clone(), ..RunOptions::default() };
        let stopped = place.watch(KTO, &options, &mut |event| match event {
            Event::Stepped(it) if it.step == stop => interrupt.raise(15),
            _ => {}
        });
        assert!(matches!(stopped, Err(RunError::Interrupted { step, .. }) if step == stop));
        let options = RunOptions { resume: true, ..RunOptions::default() };
        place.watch(KTO, &options, &mut |_| ()).unwrap();
        assert_eq!(left(), whole, "stopped after step {stop}");
    }
}

/// Two rows of one pair: the loss begins at half the mean of both weights.
#[test]
fn pairs_are_taken_apart() {
    let pair = |it: usize| {
        let (chosen, rejected) = (format!(" It is {}.", it + 1), " I do not know.");
        json!({"prompt": format!("What is {it} + 1?"), "chosen": chosen, "rejected": rejected})
    };
    let place = workplace(&(0..9).map(pair).collect::<Vec<_>>());
    let summary = place.run(&[KTO, &["train.steps=6"]].concat());
    assert_eq!((summary.rows, summary.held_out_rows), (12, 6), "both of a pair are held out");
    let losses = figures(&place.path("out"), "eval_loss");
    assert!((losses[0].1 - 0.5 * 1.25).abs() < 1e-6 && losses[1].1 < losses[0].1, "{losses:?}");
}

/// Conversations, and the judgement with them, come back out of the cache; other labels are other rows.
#[test]
fn judgements_are_kept_in_the_cache() {
    let turn = |role: &str, content: String| json!([{"role": role, "content": content}]);
    let row = |it: usize, label: bool| {
        let (prompt, answer) =
            (turn("user", format!("What is {it} + 1?")), turn("assistant", format!("{}", it + 1)));
        json!({"prompt": prompt, "completion": answer, "label": label})
    };
    let place = workplace(&(0..15).map(|it| row(it, it % 3 == 0)).collect::<Vec<_>>());
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    std::fs::write(place.path("model/chat_template.jinja"), template).unwrap();
    let cached = [KTO, &["data.cache=true", "data.max_length=40", "train.steps=4"]].concat();
    let run = |out: &str| {
        let out = format!("output.dir={out}");
        place.run(&[&cached[..], &[&out]].concat());
        figures(&place.path(&out["output.dir=".len()..]), "loss")
    };
    let (first, again) = (run("first"), run("again"));
    assert_eq!(first, again);
    write(&place, &(0..15).map(|it| row(it, it % 3 != 0)).collect::<Vec<_>>());
    assert_ne!(run("turned"), first);
}

#[test]
fn a_label_that_is_none_is_told_with_its_line() {
    let with = |label: Value| {
        let mut rows = judged(8);
        rows[4]["label"] = label;
        rows
    };
    let place = workplace(&with(json!("yes")));
    insta::assert_snapshot!(failure(&place, KTO), @r#"rows.jsonl:5: `label` must be true or false, got `"yes"`"#);
    write(&place, &with(Value::Null));
    insta::assert_snapshot!(failure(&place, KTO), @"rows.jsonl:5: it has no `label`: whether its completion is good, `true` or `false`");
    let skipping =
        place.run(&[KTO, &["data.on_bad_row=skip", "train.steps=1", "output.dir=skipped"]].concat());
    assert_eq!((skipping.rows + skipping.held_out_rows, skipping.skipped_rows), (7, 1));
    std::fs::write(place.path("rows.jsonl"), "{\"text\": \"plain\"}\n").unwrap();
    insta::assert_snapshot!(failure(&place, &["objective.kto.beta=0.5"]), @"rows.jsonl:1: it is no judged completion: `prompt`, `completion` and `label`, or a pair of `chosen` and `rejected`");
}

#[test]
fn a_step_of_one_row_is_refused_where_others_are_needed() {
    let place = workplace(&judged(4));
    let one = ["train.micro_batch_size=1", "train.gradient_accumulation_steps=1", "train.steps=2"];
    let read = |loss_type: &str| {
        let overrides: Vec<String> = one.iter().chain(&[loss_type]).map(ToString::to_string).collect();
        fthost_run::RunConfig::read(&place.path("run.toml"), &overrides, &[])
    };
    let error = read("objective.kto.loss_type=kto").unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&place.path("").display().to_string(), ""), @r#"
    invalid run file `run.toml`
      `train.micro_batch_size` * `train.gradient_accumulation_steps` must be > 1 for `objective.kto`, got `1`: its divergence is estimated from completions of other rows of the step; `loss_type = "apo_zero_unpaired"` needs none
    "#);
    assert!(read("objective.kto.loss_type=apo_zero_unpaired").is_ok());
    place.run(&[&one[..], &["objective.kto.loss_type=apo_zero_unpaired"]].concat());
    assert_eq!(figures(&place.path("out"), "kl"), [], "nothing is compared with a divergence");
    assert_eq!(figures(&place.path("out"), "loss")[0].1, 0.5);
}
