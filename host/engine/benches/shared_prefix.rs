//! Times optimizer steps over micro-batches whose prompts are there once, in turns with the same rows each with its own:
//! DPO on pairs, its reference among it, and GRPO on one prompt's completions. One line of JSON each.
//!
//! `cargo bench -p fthost-engine --bench shared_prefix -- MODEL_FOLDER [--prompt 64] [--answer 32] [--pairs 4] [--group 8]
//! [--steps 5]`
//!
//! LoRA of rank 16; rows are random tokens; the first step of each kind warms up and is not counted. CPU seconds are those
//! of all threads, as `sft_step` counts them: the least noisy on a machine that others use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use fthost_data::{Batch, IGNORED, Origin, Sequence};
use fthost_engine::Device;
use fthost_engine::adapters::{LoraConfig, attach_lora};
use fthost_engine::checkpoint::load_model;
use fthost_engine::models::CausalLm;
use fthost_engine::objectives::grpo::GroupTotals;
use fthost_engine::objectives::{DpoConfig, GrpoConfig};
use fthost_engine::optim::AdamWConfig;
use fthost_engine::train::{
    ActivationCheckpointing, PolicyBatch, PreferenceLoss, StepConfig, TrainState, policy_step,
    preference_step, reference_logps,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[global_allocator]
static ALLOCATOR: fthost_engine::allocator::KeepPages = fthost_engine::allocator::KeepPages;

struct Arguments {
    model: PathBuf,
    prompt: usize,
    answer: usize,
    pairs: usize,
    group: usize,
    steps: usize,
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut found = Arguments { model: PathBuf::new(), prompt: 64, answer: 32, pairs: 4, group: 8, steps: 5 };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let place = match argument.as_str() {
            // cargo passes this to every benchmark.
            "--bench" => continue,
            "--prompt" => &mut found.prompt,
            "--answer" => &mut found.answer,
            "--pairs" => &mut found.pairs,
            "--group" => &mut found.group,
            "--steps" => &mut found.steps,
            _ if argument.starts_with('-') => return Err(format!("`{argument}` is not known")),
            _ => {
                found.model = PathBuf::from(argument);
                continue;
            }
        };
        let value = given.next().and_then(|it| it.parse().ok()).filter(|it| *it > 0);
        *place = value.ok_or_else(|| format!("`{argument}` needs a number > 0"))?;
    }
    Ok((!found.model.as_os_str().is_empty()).then_some(found))
}

/// Random answers to one random prompt.
fn answers(vocab: u32, count: usize, arguments: &Arguments, rng: &mut ChaCha8Rng) -> Vec<Sequence> {
    let origin = Arc::new(Origin { source: "random".into(), line: 1 });
    let mut tokens = |count: usize| -> Vec<u32> { (0..count).map(|_| rng.random_range(0..vocab)).collect() };
    let prompt = tokens(arguments.prompt);
    let one = |answer: Vec<u32>| Sequence {
        input_ids: [&prompt[..], &answer].concat(),
        labels: [vec![IGNORED; prompt.len()], answer.iter().map(|it| i64::from(*it)).collect()].concat(),
        cut: 0,
        judgement: 0.0,
        origin: Arc::clone(&origin),
    };
    (0..count).map(|_| one(tokens(arguments.answer))).collect()
}

/// User and system seconds of this process, from `/proc/self/stat` (fields 14 and 15, after the name in brackets), in
/// ticks that Linux fixes at 100 a second for programs; 0 where `/proc` does not tell.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |it| it.1).split_whitespace().skip(11).take(2);
    fields.filter_map(|it| it.parse::<u64>().ok()).sum::<u64>() as f64 / 100.0
}

/// The middle of what was measured.
fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    measured[measured.len() / 2]
}

fn dpo(state: &mut TrainState, reference: &CausalLm, batch: Batch, config: &StepConfig) -> f64 {
    let references = [reference_logps(reference, &batch)];
    let loss = PreferenceLoss::Dpo(DpoConfig::default());
    preference_step(state, &[batch], &references, &loss, config).expect("a finite step").loss
}

fn grpo(state: &mut TrainState, batch: Batch, config: &StepConfig) -> f64 {
    let lengths = batch.supervised_tokens();
    let totals = GroupTotals {
        completions: lengths.len(),
        tokens: lengths.iter().sum(),
        micro_batches: 1,
        max_completion_length: lengths.iter().copied().max().unwrap_or(1),
    };
    let advantages = (0..lengths.len()).map(|it| if it % 2 == 0 { 1.0 } else { -1.0 }).collect();
    // About what random tokens have, whatever was drawn: only the time counts.
    let old = vec![-11.0; totals.tokens];
    let batch = PolicyBatch { batch, old, reference: None, advantages };
    let objective = GrpoConfig::default();
    policy_step(state, &[batch], &totals, &objective, 1.0, false, config).expect("a finite step").loss
}

/// Steps over the answers, `each` to one prompt, of `prompts` prompts.
fn measure(
    kind: &str,
    [prompts, each]: [usize; 2],
    start: &TrainState,
    reference: &CausalLm,
    config: &StepConfig,
    arguments: &Arguments,
) -> serde_json::Value {
    let vocab = reference.config.vocab_size as u32;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut states = [start.clone(), start.clone()];
    let (mut tokens, mut losses) = ([0; 2], [0.0; 2]);
    let (mut seconds, mut used) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for step in 0..=arguments.steps {
        let rows: Vec<Sequence> =
            (0..prompts).flat_map(|_| answers(vocab, each, arguments, &mut rng)).collect();
        for (index, batch) in [Batch::shared(&rows), Batch::new(&rows)].into_iter().enumerate() {
            tokens[index] = batch.len();
            let (begin, used_before, state) = (Instant::now(), cpu_seconds(), &mut states[index]);
            losses[index] = match kind {
                "pairs" => dpo(state, reference, batch, config),
                _ => grpo(state, batch, config),
            };
            if step > 0 {
                seconds[index].push(begin.elapsed().as_secs_f64());
                used[index].push(cpu_seconds() - used_before);
            }
        }
    }
    let [seconds, used] = [seconds, used].map(|it| it.map(median));
    serde_json::json!({
        "bench": "shared_prefix",
        "kind": kind,
        "sequences": prompts * each,
        "prompt": arguments.prompt,
        "answer": arguments.answer,
        "tokens": { "shared": tokens[0], "apart": tokens[1] },
        "median_step_seconds": { "shared": seconds[0], "apart": seconds[1] },
        "median_step_cpu_seconds": { "shared": used[0], "apart": used[1] },
        "tokens_ratio": tokens[1] as f64 / tokens[0] as f64,
        "speedup": seconds[1] / seconds[0],
        "speedup_cpu": used[1] / used[0],
        "last_losses": losses,
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(arguments) = arguments()? else {
        eprintln!("SKIPPED shared_prefix: no model folder given");
        return Ok(());
    };
    let reference = load_model(&arguments.model, &Device::flex())?;
    let (mut model, adapter) = (reference.clone(), LoraConfig { rank: 16, ..LoraConfig::default() });
    attach_lora(&mut model, &adapter, 0)?;
    let start = TrainState::new(model, Some(adapter.into()));
    let config = StepConfig {
        adamw: AdamWConfig::default(),
        learning_rate: 1e-5,
        max_grad_norm: Some(1.0),
        activation_checkpointing: ActivationCheckpointing::Off,
        gradient_release: false,
    };
    for (kind, shape) in [("pairs", [arguments.pairs, 2]), ("group", [1, arguments.group])] {
        println!("{}", measure(kind, shape, &start, &reference, &config, &arguments));
    }
    Ok(())
}
