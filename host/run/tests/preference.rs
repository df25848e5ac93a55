//! Learning from preference pairs.

use fthost_run::train::RunOptions;
use fthost_run::{Event, Interrupt, RunError};

use crate::support::{Workplace, figures};

/// A workplace with `rows` pairs, one of which prefers nothing.
fn pairs(rows: usize) -> Workplace {
    let place = Workplace::new(1);
    let row = |it: usize| {
        let rejected = if it == 2 { " It is 3." } else { " I do not know, and nobody does." };
        serde_json::json!({"prompt": format!("What is {it} + 1?"), "chosen": format!(" It is {}.", it + 1), "rejected": rejected})
    };
    let text: Vec<String> = (0..rows).map(|it| row(it).to_string()).collect();
    std::fs::write(place.path("rows.jsonl"), text.join("\n")).unwrap();
    place
}

const PAIRS: &[&str] =
    &["objective.dpo.beta=0.5", "data.on_bad_row=skip", "data.held_out.rows=3", "train.steps=6"];

#[test]
fn the_first_loss_is_ln_2_and_a_pair_that_prefers_nothing_is_skipped() {
    let place = pairs(13);
    let summary = place.run(&[PAIRS, &["optimizer.adamw.learning_rate=1e-2"]].concat());
    assert_eq!((summary.rows + summary.held_out_rows, summary.skipped_rows), (12, 1));
    let out = place.path("out");
    for name in ["loss", "eval_loss"] {
        let first = figures(&out, name)[0].1;
        assert!((first - std::f64::consts::LN_2).abs() < 1e-6, "{name}: {first}");
    }
    let margins = figures(&out, "eval_rewards/margins");
    assert!(margins[0].1 == 0.0 && margins.last().unwrap().1 > 0.1, "{margins:?}");
    let strict = [PAIRS, &["data.on_bad_row=stop", "output.dir=strict"]].concat();
    let error = place.watch(&strict, &RunOptions::default(), &mut |_| ()).unwrap_err().to_string();
    assert!(
        error.contains("rows.jsonl:3: `chosen` and `rejected` are equal: nothing is preferred"),
        "{error}"
    );
}

/// Every loss over pairs goes down on what it is trained on.
#[test]
fn every_preference_loss_learns() {
    for objective in [
        "objective.dpo.loss_type=[\"ipo\"]",
        "objective.dpo.loss_type=[\"sigmoid\", \"sft\"]",
        "objective.orpo.beta=0.2",
        "objective.simpo.beta=2.0",
        "objective.cpo.cpo_alpha=1.0",
    ] {
        let place = pairs(13);
        place.run(&[
            objective,
            "data.on_bad_row=skip",
            "train.steps=9",
            "optimizer.adamw.learning_rate=1e-2",
        ]);
        let losses = figures(&place.path("out"), "loss");
        assert!(losses.last().unwrap().1 < losses[0].1, "{objective}: {losses:?}");
    }
}

/// Every objective over pairs, bit for bit.
#[test]
fn a_resumed_run_over_pairs_equals_the_uninterrupted_one() {
    for objective in [
        "objective.dpo.beta=0.5",
        "objective.orpo.beta=0.2",
        "objective.simpo.beta=2.0",
        "objective.cpo.cpo_alpha=1.0",
        "objective.reward.center_rewards_coefficient=0.01",
    ] {
        let place = pairs(13);
        let base = [objective, "data.on_bad_row=skip", "train.steps=6", "optimizer.adamw.learning_rate=1e-2"];
        let left = |out: &str| {
            let metrics = std::fs::read_to_string(place.path(out).join("metrics.jsonl")).unwrap();
            (metrics, std::fs::read(place.path(out).join("adapter/adapter_model.safetensors")).unwrap())
        };
        place.run(&base);
        let parts = [&base[..], &["output.dir=parts"]].concat();
        let interrupt = Interrupt::none();
        let options = RunOptions { interrupt: interrupt.clone(), ..RunOptions::default() };
        let stopped = place.watch(&parts, &options, &mut |event| match event {
            Event::Stepped(it) if it.step == 3 => interrupt.raise(15),
            _ => {}
        });
        assert!(matches!(stopped, Err(RunError::Interrupted { step: 3, .. })), "{objective}");
        let options = RunOptions { resume: true, ..RunOptions::default() };
        place.watch(&parts, &options, &mut |_| ()).unwrap();
        assert!(left("parts") == left("out"), "{objective}");
    }
}

/// Packed as unpacked, up to the order of additions.
#[test]
fn pairs_are_learned_from_alike_however_they_are_laid_out() {
    let place = pairs(13);
    let losses = |more: &[&str]| {
        place.run(&[PAIRS, more].concat());
        figures(&place.path("out"), "loss")
    };
    let packed = losses(&["output.dir=out"]);
    let _ = std::fs::remove_dir_all(place.path("out"));
    for ((_, a), (_, b)) in packed.iter().zip(losses(&["data.packing=false"])) {
        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    }
}

/// The reference of a run that goes on from an adapter is the model with it: its first loss is ln 2 again.
#[test]
fn an_adapter_that_is_gone_on_with_is_the_reference() {
    let place = pairs(13);
    let base = [PAIRS, &["optimizer.adamw.learning_rate=1e-2"]].concat();
    place.run(&base);
    let text = std::fs::read_to_string(place.path("run.toml")).unwrap();
    let text = text.replace("[adapter.lora]\nrank = 4\n", "[adapter.peft]\npath = \"out/adapter\"\n");
    std::fs::write(place.path("run.toml"), text).unwrap();
    let more = [&base[..], &["output.dir=more", "checkpoint.every_steps=2"]].concat();
    place.run(&more);
    let losses = figures(&place.path("more"), "loss");
    assert!((losses[0].1 - std::f64::consts::LN_2).abs() < 1e-6, "{losses:?}");
    let moved =
        figures(&place.path("more"), "logps/chosen")[0].1 - figures(&place.path("out"), "logps/chosen")[0].1;
    assert!(moved.abs() > 1e-3, "the adapter was not loaded");
    // Another adapter in its place is another run.
    let adapter = place.path("out/adapter/adapter_config.json");
    let text = std::fs::read_to_string(&adapter).unwrap();
    std::fs::write(&adapter, format!("{text}\n")).unwrap();
    let options = RunOptions { resume: true, ..RunOptions::default() };
    let error = place.watch(&more, &options, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("`adapter.peft` was"), "{error}");
}
