//! Groups that teach nothing are left out, and further prompts rolled out in their place.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fthost_data::sampler::Windows;
use fthost_data::{Group, Outcome, Then};
use fthost_run::scores::Scores;
use fthost_run::train::RunOptions;
use fthost_run::{Event, Interrupt, RunError};

use crate::policy::{ROLLOUTS, failed, left, letters, ok, played, run};
use crate::support::{Workplace, figures};

/// Nothing to learn from the prompts of even rows.
fn of_odd_rows(group: &Group, completion: usize) -> Outcome {
    if group.id.is_multiple_of(2) { ok(1.0) } else { letters(group, completion) }
}

const DYNAMIC: &[&str] = &["objective.grpo.dynamic_sampling=true"];

#[test]
fn groups_that_do_not_differ_are_left_out_and_the_next_prompts_drawn() {
    let place = Workplace::new(6);
    run(&place, &[ROLLOUTS, DYNAMIC].concat(), of_odd_rows);
    let (out, rollouts) = (place.path("out"), Scores::rollouts(&place.path("out")).unwrap());
    assert_eq!(rollouts.len(), 3);
    let ids: Vec<usize> =
        rollouts.iter().flat_map(|it| it.groups.iter().map(|it| it.group.id as usize)).collect();
    assert_eq!(ids, Windows::new(6, 1, 0).flatten().take(ids.len()).collect::<Vec<_>>(), "in their order");
    assert!(ids.len() > 6, "some are left out: {ids:?}");
    for (rollout, at) in rollouts.iter().zip([1, 5, 9]) {
        let told = |name: &str| figures(&out, name).into_iter().find(|it| it.0 == at).unwrap().1;
        let even = |it: &usize| rollout.groups[*it].group.id.is_multiple_of(2);
        let expected: Vec<usize> = (0..rollout.groups.len()).filter(even).collect();
        assert_eq!(rollout.left_out, expected);
        assert_eq!(rollout.groups.len() - expected.len(), 2, "two prompts a rollout");
        assert_eq!(told("dynamic_sampling/groups_left_out"), expected.len() as f64);
        assert_eq!(told("dynamic_sampling/groups_missing"), 0.0);
        assert!(told("dynamic_sampling/num_gen_batches") >= 1.0 + f64::from(!expected.is_empty()));
        // Of what is learned from, in both steps of the rollout.
        assert_eq!(told("frac_reward_zero_std"), 0.0);
        let kept = (0..rollout.groups.len()).filter(|it| !even(it)).flat_map(|it| &rollout.sums[it]);
        let kept: Vec<f64> = kept.map(|it| it.unwrap()).collect();
        assert!((told("reward") - kept.iter().sum::<f64>() / kept.len() as f64).abs() < 1e-6);
    }
    // Without it nothing is drawn again.
    run(&place, &[ROLLOUTS, &["output.dir=all"]].concat(), of_odd_rows);
    let all = Scores::rollouts(&place.path("all")).unwrap();
    assert!(all.iter().all(|it| it.groups.len() == 2 && it.left_out.is_empty()));
    assert_eq!(figures(&place.path("all"), "dynamic_sampling/num_gen_batches"), []);
}

/// The bound is reached: with fewer groups, and where none differ, with the newest ones that have a score.
#[test]
fn after_so_many_batches_a_step_takes_what_there_is() {
    fn one_row(group: &Group, completion: usize) -> Outcome {
        if group.id == 3 { letters(group, completion) } else { ok(1.0) }
    }
    let place = Workplace::new(6);
    let bound = |bound: &'static str, out: &'static str| [ROLLOUTS, DYNAMIC, &[bound, out]].concat();
    let three = bound("objective.grpo.max_num_gen_batches=3", "output.dir=three");
    run(&place, &three, |_, _| ok(1.0));
    for rollout in Scores::rollouts(&place.path("three")).unwrap() {
        assert_eq!((rollout.groups.len(), rollout.left_out), (6, vec![0, 1, 2, 3]));
    }
    let told = |out: &str, name: &str| -> Vec<f64> {
        figures(&place.path(out), &format!("dynamic_sampling/{name}")).iter().map(|it| it.1).collect()
    };
    assert_eq!(told("three", "num_gen_batches"), [3.0; 3]);
    assert_eq!(told("three", "groups_missing"), [2.0; 3]);
    // Nothing but the first two groups is scored: these are the newest.
    static GROUPS: AtomicUsize = AtomicUsize::new(0);
    fn first_two(_: &Group, completion: usize) -> Outcome {
        let group = GROUPS.fetch_add(usize::from(completion == 0), Ordering::Relaxed);
        if group + usize::from(completion == 0) <= 2 { ok(1.0) } else { failed() }
    }
    let skip = bound("objective.grpo.max_num_gen_batches=3", "output.dir=skip");
    let skip = [&skip[..], &["train.steps=4"]].concat();
    let options = RunOptions::default();
    place.watch_with(&mut played(Then::Skip, first_two), &skip, &options, &mut |_| ()).unwrap();
    let scored = &Scores::rollouts(&place.path("skip")).unwrap()[0];
    assert_eq!((scored.groups.len(), &scored.left_out[..]), (6, &[2, 3, 4, 5][..]));
    // One row of six: a batch of two prompts an epoch at most has it, once in three rollouts.
    let one = bound("objective.grpo.max_num_gen_batches=1", "output.dir=one");
    let summary = run(&place, &one, one_row);
    let missing = told("one", "groups_missing");
    assert!(missing.contains(&1.0) && missing.contains(&2.0), "{missing:?}");
    // A group alone is one step, twice.
    assert_eq!(summary.steps, 12);
}

/// Bit for bit: stopped by a signal, and dead in the middle of a rollout.
#[test]
fn resume_equals_uninterrupted() {
    /// The rollout that the run dies in, and how many of its groups were scored by then.
    static STEP: AtomicU64 = AtomicU64::new(0);
    static SCORED: AtomicUsize = AtomicUsize::new(0);
    fn dying(group: &Group, completion: usize) -> Outcome {
        let is_it = group.step == STEP.load(Ordering::Relaxed) && completion == 0;
        if is_it && SCORED.fetch_add(1, Ordering::Relaxed) == 2 {
            return failed();
        }
        of_odd_rows(group, completion)
    }
    let place = Workplace::new(6);
    let overrides = [ROLLOUTS, DYNAMIC, &["train.steps=24"]].concat();
    run(&place, &overrides, of_odd_rows);
    let (whole, rollouts) = (left(&place.path("out")), Scores::rollouts(&place.path("out")).unwrap());
    let step = rollouts[1..].iter().find(|it| it.groups.len() > 2).expect("one has several batches").step;
    STEP.store(step, Ordering::Relaxed);
    let parts = [&overrides[..], &["output.dir=parts"]].concat();
    let resume = || {
        let options = RunOptions { resume: true, ..RunOptions::default() };
        place.watch_with(&mut played(Then::Stop, of_odd_rows), &parts, &options, &mut |_| ()).unwrap();
        assert!(left(&place.path("parts")) == whole);
        assert_eq!(Scores::rollouts(&place.path("parts")).unwrap(), rollouts);
        std::fs::remove_dir_all(place.path("parts")).unwrap();
    };
    let options = RunOptions::default();
    let died = place.watch_with(&mut played(Then::Stop, dying), &parts, &options, &mut |_| ());
    assert!(matches!(died, Err(RunError::Plugin(_))), "{died:?}");
    assert!(place.path(&format!("parts/checkpoint-{step}")).is_dir());
    assert!(!place.path(&format!("parts/scores/rollout-{step}.json")).exists(), "nothing of it was kept");
    resume();
    for stop in [2, 8] {
        let interrupt = Interrupt::none();
        let options = RunOptions { interrupt: interrupt.clone(), ..RunOptions::default() };
        let mut plugins = played(Then::Stop, of_odd_rows);
        let stopped = place.watch_with(&mut plugins, &parts, &options, &mut |event| match event {
            Event::Stepped(it) if it.step == stop => interrupt.raise(15),
            _ => {}
        });
        assert!(matches!(stopped, Err(RunError::Interrupted { .. })));
        resume();
    }
}

#[test]
fn what_can_have_no_difference_is_refused() {
    let place = Workplace::new(6);
    let read = |more: &[&str]| {
        let overrides: Vec<String> = more.iter().map(ToString::to_string).collect();
        let error = fthost_run::RunConfig::read(&place.path("run.toml"), &overrides, &[]).unwrap_err();
        error.to_string().replace(&place.path("").display().to_string(), "")
    };
    let more = ["rollout.num_generations=1", "objective.grpo.max_num_gen_batches=0"];
    insta::assert_snapshot!(read(&[ROLLOUTS, DYNAMIC, &more].concat()), @r"
    invalid run file `run.toml`
      `objective.grpo.max_num_gen_batches` must be > 0, got `0`
      `rollout.num_generations` must be > 1 for `objective.grpo.dynamic_sampling`, got `1`: the rewards of one completion never differ
    ");
}
