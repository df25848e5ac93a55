//! What a shared beginning must not change. It is computed once in place of once a sequence: every sum has the same terms,
//! in another order where copies were added up, so that f32 rounding is all that may differ. Values of order 1 through two
//! blocks, gradients against the largest of their parameter: 1e-5.

use std::sync::Arc;

use fthost_data::{Batch, IGNORED, Origin, Sequence};
use fthost_engine::objectives::grpo::GroupTotals;
use fthost_engine::objectives::{DpoConfig, GrpoConfig, OrpoConfig};
use fthost_engine::optim::adamw::Moments;
use fthost_engine::parallel::Ranks;
use fthost_engine::train::policy::completion_logps;
use fthost_engine::train::{
    ActivationCheckpointing, Gradients, PolicyBatch, PreferenceLoss, StepConfig, StepMetrics, TrainState,
    evaluate_preferences, policy_step, preference_step, reference_logps,
};

use super::support::{config, full, lora};

const ROUNDING: f64 = 1e-5;

/// `count` tokens, others for another seed.
fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|it| (it * 7 + seed * 13 + it * it * seed) % 64).collect()
}

fn row(prompt: &[u32], answer: &[u32], line: u64) -> Sequence {
    let labels = [vec![IGNORED; prompt.len()], answer.iter().map(|it| i64::from(*it)).collect()].concat();
    let origin = Arc::new(Origin { source: "rows.jsonl".into(), line });
    Sequence { input_ids: [prompt, answer].concat(), labels, cut: 0, judgement: 0.0, origin }
}

/// One prompt of 20 tokens and another that begins as it does.
fn prompts() -> [Vec<u32>; 2] {
    let prompt = tokens(20, 1);
    let other = [&prompt[..11], &tokens(6, 2)].concat();
    [prompt, other]
}

/// Completions of each prompt, some as long as one token.
fn completions() -> Vec<Sequence> {
    let [prompt, other] = prompts();
    let of = |prompt: &[u32], lengths: &[usize], seed: u32| -> Vec<Sequence> {
        let each = lengths.iter().zip(seed..);
        each.map(|(length, seed)| row(prompt, &tokens(*length, seed), u64::from(seed))).collect()
    };
    [of(&prompt, &[9, 1, 14, 3], 3), of(&other, &[5, 12], 7)].concat()
}

/// Pairs of answers: to two prompts, and two to the same.
fn pairs() -> Vec<Sequence> {
    let [prompt, other] = prompts();
    let pair = |prompt: &[u32], chosen: usize, rejected: usize, line: u32| {
        let (mut both, rejected) =
            (row(prompt, &tokens(chosen, line), 1), row(prompt, &tokens(rejected, line + 1), 1));
        both.cut = both.input_ids.len();
        both.input_ids.extend(rejected.input_ids);
        both.labels.extend(rejected.labels);
        both
    };
    vec![pair(&prompt, 8, 5, 3), pair(&other, 1, 11, 5), pair(&other, 6, 6, 9)]
}

/// Shared and not, in `count` rows a micro-batch.
fn both(rows: &[Sequence], count: usize) -> [Vec<Batch>; 2] {
    let shared: Vec<Batch> = rows.chunks(count).map(Batch::shared).collect();
    let apart: Vec<Batch> = rows.chunks(count).map(Batch::new).collect();
    let tokens = |it: &[Batch]| it.iter().map(Batch::len).sum::<usize>();
    assert!(tokens(&shared) * 4 < tokens(&apart) * 3, "{} of {}", tokens(&shared), tokens(&apart));
    [shared, apart]
}

#[track_caller]
fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |largest, it| largest.max(it.abs()));
    assert!(largest > 0.0, "{what}: nothing to compare");
    for (got, expected) in got.iter().zip(expected) {
        let difference = f64::from((got - expected).abs() / largest);
        assert!(difference <= ROUNDING, "{what}: {got} is not {expected}, of {largest} ({difference:e})");
    }
}

#[track_caller]
fn assert_same_step([shared, apart]: [(StepMetrics, TrainState); 2]) {
    let (got, expected) = (&shared.0, &apart.0);
    assert_eq!((got.num_tokens, got.supervised_tokens), (expected.num_tokens, expected.supervised_tokens));
    let figures = |it: &StepMetrics| {
        let own = [("loss".to_string(), it.loss), ("grad_norm".to_string(), it.grad_norm)];
        own.into_iter().chain(it.figures.clone()).collect::<Vec<_>>()
    };
    for ((name, got), (expected_name, expected)) in figures(got).iter().zip(figures(expected)) {
        assert_eq!(*name, expected_name);
        assert!((got - expected).abs() <= ROUNDING * expected.abs().max(1.0), "{name}: {got}, {expected}");
    }
    // The first moments after one step are its gradients, each times the same factor: weights would be worse, since Adam
    // divides by the root of the second, which magnifies the rounding of what is near 0.
    let moments = |it: &TrainState| {
        let of = |it: &Moments| match it {
            Moments::F32(it) => it.first.clone().try_into_vec_as::<f32>().unwrap(),
            Moments::Blocks(_) | Moments::Paged(_) | Moments::Host(_) => {
                panic!("moments are in f32 unless asked otherwise")
            }
        };
        it.optimizer.moments.iter().map(|(name, it)| (name.clone(), of(it))).collect::<Vec<_>>()
    };
    for ((name, got), (_, expected)) in moments(&shared.1).iter().zip(moments(&apart.1)) {
        assert_close(name, got, &expected);
    }
}

#[test]
fn shared_prefix_equals_unshared() {
    for state in [full(), lora()] {
        for count in [2, 3, 6] {
            let found = both(&completions(), count).map(|batches| {
                let logps: Vec<f32> =
                    batches.iter().flat_map(|it| completion_logps(&state.model, it, 0.7)).collect();
                let mut sums = Gradients::default();
                batches.iter().for_each(|it| sums.add(&state.model, it, ActivationCheckpointing::Off));
                let gradients: Vec<Vec<f32>> =
                    sums.sums.values().into_iter().map(|it| it.try_into_vec_as().unwrap()).collect();
                (logps, [sums.loss_sum, sums.entropy_sum, sums.correct], sums.supervised_tokens, gradients)
            });
            let [shared, apart] = found;
            assert_close("log-probabilities", &shared.0, &apart.0);
            for (got, expected) in shared.1.iter().zip(apart.1) {
                assert!((got - expected).abs() <= ROUNDING * expected.abs(), "{got} is not {expected}");
            }
            assert_eq!(shared.2, apart.2);
            for (index, (got, expected)) in shared.3.iter().zip(&apart.3).enumerate() {
                assert_close(&format!("gradient {index}"), got, expected);
            }
        }
    }
}

#[test]
fn shared_prefix_equals_unshared_in_preferences() {
    let losses = [
        PreferenceLoss::Dpo(DpoConfig { ld_alpha: Some(0.5), ..DpoConfig::default() }),
        PreferenceLoss::Orpo(OrpoConfig::default()),
    ];
    for (state, loss) in [full(), lora()].iter().flat_map(|it| losses.iter().map(move |loss| (it, loss))) {
        let held_against = [lora(), full()].into_iter().find(|it| it.adapter != state.adapter).unwrap().model;
        for checkpointing in [ActivationCheckpointing::Off, ActivationCheckpointing::Block] {
            let config = StepConfig { activation_checkpointing: checkpointing, ..config(1e-3) };
            let steps = both(&pairs(), 2).map(|batches| {
                let mut state = state.clone();
                let references: Vec<Vec<f32>> =
                    batches.iter().map(|it| reference_logps(&held_against, it)).collect();
                let eval = evaluate_preferences(&state.model, &batches, &references, loss, &Ranks::default())
                    .unwrap()
                    .unwrap();
                let done = preference_step(&mut state, &batches, &references, loss, &config).unwrap();
                (eval, (done, state))
            });
            let [(got, shared), (expected, apart)] = steps;
            for ((name, got), (_, expected)) in got.iter().zip(expected) {
                assert!((got - expected).abs() <= ROUNDING * expected.abs().max(1.0), "{name}");
            }
            assert_same_step([shared, apart]);
        }
    }
}

#[test]
fn shared_prefix_equals_unshared_in_policies() {
    let rows = completions();
    let advantages = [0.5, -1.0, 1.5, -0.25, 1.0, -1.0];
    let objective = GrpoConfig { beta: 0.05, ..GrpoConfig::default() };
    for state in [full(), lora()] {
        let held_against = [lora(), full()].into_iter().find(|it| it.adapter != state.adapter).unwrap().model;
        let steps = both(&rows, 3).map(|batches| {
            let mut state = state.clone();
            let micro_batches: Vec<PolicyBatch> = batches
                .into_iter()
                .zip(advantages.chunks(3))
                .map(|(batch, advantages)| PolicyBatch {
                    old: completion_logps(&state.model, &batch, 0.9),
                    reference: Some(completion_logps(&held_against, &batch, 0.9)),
                    advantages: advantages.to_vec(),
                    batch,
                })
                .collect();
            let totals = GroupTotals {
                completions: rows.len(),
                tokens: rows.iter().map(Sequence::supervised_tokens).sum(),
                micro_batches: micro_batches.len(),
                max_completion_length: 20,
            };
            let done =
                policy_step(&mut state, &micro_batches, &totals, &objective, 0.9, false, &config(1e-3))
                    .unwrap();
            (done, state)
        });
        assert_same_step(steps);
    }
}
