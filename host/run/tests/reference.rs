//! What a reference says, computed once and kept.

use std::cell::RefCell;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use fthost_run::reference::PrecomputedRows;
use fthost_run::train::RunOptions;
use fthost_run::{Event, Interrupt, RunError};
use serde_json::json;

use crate::support::{Workplace, figures};

/// A workplace that takes what it cached with it.
struct Place {
    place: Workplace,
    files: RefCell<Vec<PathBuf>>,
}

impl Deref for Place {
    type Target = Workplace;

    fn deref(&self) -> &Workplace {
        &self.place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for file in self.files.borrow().iter() {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Pairs that no other test has, so that nothing of them is cached.
fn workplace() -> Place {
    let place = Place { place: Workplace::new(1), files: RefCell::default() };
    write(&place, &mark());
    place
}

/// Another one every time.
fn mark() -> String {
    format!("{:x}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos())
}

fn write(place: &Workplace, mark: &str) {
    let pair = |it: usize| {
        let rejected = format!(" I do not know {mark}, and {}.", "so on ".repeat(it % 3));
        json!({"prompt": format!("What is {it} + 1?"), "chosen": format!(" It is {}.", it + 1), "rejected": rejected})
    };
    let rows: Vec<String> = (0..14).map(|it| pair(it).to_string()).collect();
    std::fs::write(place.path("rows.jsonl"), rows.join("\n")).unwrap();
}

/// Of a run into `out`: metrics, what was precomputed, and notes.
fn run(place: &Place, out: &str, overrides: &[&str]) -> (String, Option<PrecomputedRows>, Vec<String>) {
    let out = format!("output.dir={out}");
    let mut notes = Vec::new();
    let overrides = [&["data.held_out.rows=3", "data.max_length=64", &out][..], overrides].concat();
    let summary = place
        .watch(&overrides, &RunOptions::default(), &mut |event| {
            if let Event::Noted(it) = event {
                notes.push(it.to_string());
            }
        })
        .unwrap();
    place.files.borrow_mut().extend(summary.precomputed.iter().flat_map(|it| it.files.clone()));
    let metrics = place.path(&out["output.dir=".len()..]).join("metrics.jsonl");
    (std::fs::read_to_string(metrics).unwrap(), summary.precomputed, notes)
}

fn counts(rows: Option<PrecomputedRows>) -> Option<(usize, usize)> {
    rows.map(|it| (it.computed, it.cached))
}

const DPO: &str = "objective.dpo.beta=0.3";
const KEPT: &str = "objective.dpo.precompute_ref_log_probs=true";

/// Bit for bit where the layout is that of a row alone, up to the order of additions where rows are packed as a step has them.
#[test]
fn losses_are_those_of_a_reference_that_is_asked_step_by_step() {
    let place = workplace();
    let alone = ["data.packing=false", "train.micro_batch_size=1", "train.gradient_accumulation_steps=4"];
    let asked = run(&place, "asked", &[&[DPO], &alone[..]].concat());
    let kept = run(&place, "kept", &[&[DPO, KEPT], &alone[..]].concat());
    assert_eq!(kept.0, asked.0);
    assert_eq!((counts(asked.1), counts(kept.1)), (None, Some((14, 0))));

    run(&place, "packed", &[DPO]);
    let (_, rows, _) = run(&place, "packed-kept", &[DPO, KEPT]);
    assert_eq!(counts(rows), Some((14, 0)), "another layout is another answer's place");
    for name in ["loss", "eval_loss", "rewards/margins"] {
        let (asked, kept) = (figures(&place.path("packed"), name), figures(&place.path("packed-kept"), name));
        assert!(!asked.is_empty() && asked.len() == kept.len());
        for (a, b) in asked.iter().zip(&kept) {
            assert!((a.1 - b.1).abs() < 2e-5, "{name}: {a:?} is not {b:?}");
        }
    }
}

#[test]
fn a_later_run_reads_what_was_kept_and_asks_nothing() {
    let place = workplace();
    let first = run(&place, "first", &[DPO, KEPT]);
    let again = run(&place, "again", &[DPO, KEPT]);
    assert_eq!((counts(first.1), counts(again.1)), (Some((14, 0)), Some((0, 14))));
    assert_eq!(first.0, again.0);
    // Neither the loss nor the run's length, seed or batch changes what a reference says of a row.
    let others = [
        "objective.dpo.loss_type=[\"ipo\"]",
        "train.seed=5",
        "train.gradient_accumulation_steps=1",
        "train.steps=3",
        "adapter.lora.rank=2",
    ];
    let (_, rows, _) = run(&place, "others", &[&[DPO, KEPT], &others[..]].concat());
    assert_eq!(counts(rows), Some((0, 14)));

    // An adapter to begin with, another model, other rows: each is another reference.
    let begun = format!("adapter.peft.path={}", place.path("first/adapter").display());
    let text = std::fs::read_to_string(place.path("run.toml")).unwrap();
    std::fs::write(place.path("run.toml"), text.replace("[adapter.lora]\nrank = 4\n", "")).unwrap();
    let (_, rows, _) = run(&place, "begun", &[DPO, KEPT, &begun]);
    assert_eq!(counts(rows), Some((14, 0)));
    let (_, rows, _) = run(&place, "full", &[DPO, KEPT]);
    assert_eq!(counts(rows), Some((0, 14)), "a whole model that is trained begins as the base");
    let config = place.path("model/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text} ")).unwrap();
    let (_, rows, _) = run(&place, "model", &[DPO, KEPT]);
    assert_eq!(counts(rows), Some((14, 0)));
    write(&place, &mark());
    let (_, rows, _) = run(&place, "rows", &[DPO, KEPT]);
    assert_eq!(counts(rows), Some((14, 0)));
}

#[test]
fn a_damaged_file_is_told_and_made_again() {
    let place = workplace();
    let (whole, rows, _) = run(&place, "first", &[DPO, KEPT]);
    for file in rows.unwrap().files {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() - 3]).unwrap();
    }
    let (again, rows, notes) = run(&place, "again", &[DPO, KEPT]);
    assert_eq!((again == whole, counts(rows)), (true, Some((14, 0))));
    assert_eq!(notes.len(), 2, "of rows to train on, and held out: {notes:?}");
    for note in notes {
        assert!(note.starts_with("cached log-probabilities of the reference can't be used"), "{note}");
        assert!(note.ends_with(": its checksum is another"), "{note}");
    }
    assert_eq!(counts(run(&place, "third", &[DPO, KEPT]).1), Some((0, 14)));
}

/// A signal while the reference is asked: the run can be gone on with, and ends as the one that was not interrupted.
#[test]
fn a_signal_before_the_first_step_leaves_a_run_to_go_on_with() {
    let place = workplace();
    let overrides = [DPO, KEPT, "data.held_out.rows=3"];
    let interrupt = Interrupt::none();
    let options = RunOptions { interrupt: interrupt.clone(), ..RunOptions::default() };
    let stopped = place.watch(&overrides, &options, &mut |event| {
        if matches!(event, Event::Precomputing { .. }) {
            interrupt.raise(15);
        }
    });
    let Err(RunError::Interrupted { step: 0, .. }) = stopped else { panic!("it was not interrupted") };
    let options = RunOptions { resume: true, ..RunOptions::default() };
    let resumed = place.watch(&overrides, &options, &mut |_| ()).unwrap();
    place.files.borrow_mut().extend(resumed.precomputed.iter().flat_map(|it| it.files.clone()));
    assert_eq!(resumed.precomputed.map(|it| it.computed + it.cached), Some(14));
    let left = |out: &str| std::fs::read_to_string(place.path(out).join("metrics.jsonl")).unwrap();
    place.run(&[&overrides[..], &["output.dir=whole"]].concat());
    assert_eq!(left("out"), left("whole"));
}

/// Rows judged alone: what the divergence is estimated from is still asked.
#[test]
fn judged_completions_are_held_against_what_was_kept() {
    let place = workplace();
    let alone = ["data.packing=false", "train.micro_batch_size=1", "train.gradient_accumulation_steps=4"];
    for loss_type in ["kto", "apo_zero_unpaired"] {
        let loss_type = format!("objective.kto.loss_type={loss_type}");
        let overrides = [&["objective.kto.beta=0.3", &loss_type], &alone[..]].concat();
        let asked = run(&place, "asked", &overrides);
        let kept = ["objective.kto.precompute_ref_log_probs=true"];
        let kept = run(&place, "kept", &[&overrides[..], &kept].concat());
        assert_eq!(kept.0, asked.0, "{loss_type}");
        assert_eq!(counts(kept.1).map(|it| it.0 + it.1), Some(28), "two of each pair");
        for out in ["asked", "kept"] {
            std::fs::remove_dir_all(place.path(out)).unwrap();
        }
    }
}
