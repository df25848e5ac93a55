//! Times optimizer steps of supervised fine-tuning, LoRA or with `--full` every weight, and prints one line of JSON.
//!
//! `cargo bench -p fthost-engine --bench sft_step -- MODEL_FOLDER [--rank 16] [--batch 4] [--length 256]
//! [--steps 5] [--activation-checkpointing off|block|N|first-N] [--full] [--gradient-release] [--frozen-dtype f32|bf16]
//! [--quant nf4|fp4|int8] [--turns]`
//!
//! Rows are random tokens, all supervised; the first step warms up and is not counted. With `--turns` a line is printed before
//! every step, which begins when a line comes in: a driver has a peer's steps in between. CPU seconds are user and system
//! time of all threads, to the kernel's tick of 10 ms.

mod support;

use std::path::PathBuf;
use std::time::Instant;

use fthost_engine::Device;
use fthost_engine::adapters::{LoraConfig, attach_lora};
use fthost_engine::checkpoint::{LoadConfig, load_model_as};
use fthost_engine::nn::FloatDtype;
use fthost_engine::optim::AdamWConfig;
use fthost_engine::quant::QuantConfig;
use fthost_engine::train::memory::peak_rss_bytes;
use fthost_engine::train::{ActivationCheckpointing, StepConfig, TrainState, step};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use support::random_batch;

#[global_allocator]
static ALLOCATOR: fthost_engine::allocator::KeepPages = fthost_engine::allocator::KeepPages;

struct Arguments {
    model: PathBuf,
    rank: usize,
    batch: usize,
    length: usize,
    steps: usize,
    activation_checkpointing: ActivationCheckpointing,
    full: bool,
    gradient_release: bool,
    frozen_dtype: FloatDtype,
    quant: Option<QuantConfig>,
    turns: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            rank: 16,
            batch: 4,
            length: 256,
            steps: 5,
            activation_checkpointing: ActivationCheckpointing::Off,
            full: false,
            gradient_release: false,
            frozen_dtype: FloatDtype::F32,
            quant: None,
            turns: false,
        }
    }
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut found = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let number = |value: Option<String>| {
            let value = value.and_then(|it| it.parse().ok()).filter(|it| *it > 0);
            value.ok_or_else(|| format!("`{argument}` needs a number > 0"))
        };
        match argument.as_str() {
            // cargo passes this to every benchmark.
            "--bench" => {}
            "--full" => found.full = true,
            "--turns" => found.turns = true,
            "--gradient-release" => found.gradient_release = true,
            "--rank" => found.rank = number(given.next())?,
            "--batch" => found.batch = number(given.next())?,
            "--length" => found.length = number(given.next())?,
            "--steps" => found.steps = number(given.next())?,
            "--frozen-dtype" => {
                found.frozen_dtype = match given.next().as_deref() {
                    Some("f32") => FloatDtype::F32,
                    Some("bf16") => FloatDtype::Bf16,
                    _ => return Err(format!("`{argument}` must be `f32` or `bf16`")),
                }
            }
            "--quant" => {
                found.quant = Some(match given.next().as_deref() {
                    Some("nf4") => QuantConfig::Nf4(Default::default()),
                    Some("fp4") => QuantConfig::Fp4(Default::default()),
                    Some("int8") => QuantConfig::Int8(Default::default()),
                    _ => return Err(format!("`{argument}` must be `nf4`, `fp4` or `int8`")),
                })
            }
            "--activation-checkpointing" => {
                found.activation_checkpointing = match given.next().as_deref() {
                    Some("off") => ActivationCheckpointing::Off,
                    Some("block") => ActivationCheckpointing::Block,
                    Some(n) if n.parse::<usize>().is_ok_and(|it| it > 0) => {
                        ActivationCheckpointing::EveryN(n.parse().expect("just parsed"))
                    }
                    Some(n) if n.strip_prefix("first-").is_some_and(|it| it.parse::<usize>().is_ok()) => {
                        ActivationCheckpointing::FirstN(n["first-".len()..].parse().expect("just parsed"))
                    }
                    _ => {
                        return Err(format!(
                            "`{argument}` must be `off`, `block`, a number > 0 or `first-N`"
                        ));
                    }
                }
            }
            _ if argument.starts_with('-') => return Err(format!("`{argument}` is not known")),
            _ => found.model = PathBuf::from(argument),
        }
    }
    Ok((!found.model.as_os_str().is_empty()).then_some(found))
}

/// User and system seconds of this process, from `/proc/self/stat` (fields 14 and 15, after the name in brackets), in
/// ticks that Linux fixes at 100 a second for programs; `None` where `/proc` does not tell.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    let ticks: Option<Vec<u64>> = ticks.map(|it| it.parse().ok()).collect();
    Some(ticks?.iter().sum::<u64>() as f64 / 100.0)
}

/// Tells the driver that a step may begin, and waits for its line.
fn wait_for_turn() -> std::io::Result<usize> {
    println!("ready");
    std::io::stdin().read_line(&mut String::new())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(arguments) = arguments()? else {
        eprintln!("SKIPPED sft_step: no model folder given");
        return Ok(());
    };
    let (to_train, dtype, quant) = (arguments.full, arguments.frozen_dtype, arguments.quant.clone());
    let load = LoadConfig { to_train, dtype, quant };
    let mut model = load_model_as(&arguments.model, &Device::flex(), &load)?;
    let loaded = peak_rss_bytes();
    let adapter = (!arguments.full).then(|| LoraConfig { rank: arguments.rank, ..LoraConfig::default() });
    if let Some(adapter) = &adapter {
        attach_lora(&mut model, adapter, 0)?;
    }
    let vocab = model.config.vocab_size;
    let mut state = TrainState::new(model, adapter.map(Into::into));
    let config = StepConfig {
        adamw: AdamWConfig::default(),
        learning_rate: 2e-4,
        max_grad_norm: (!arguments.gradient_release).then_some(1.0),
        activation_checkpointing: arguments.activation_checkpointing,
        gradient_release: arguments.gradient_release,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (mut seconds, mut used, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=arguments.steps {
        let batch = random_batch(vocab, [arguments.batch, arguments.length], &mut rng);
        if arguments.turns {
            wait_for_turn()?;
        }
        let (begin, used_before) = (Instant::now(), cpu_seconds());
        losses.push(step(&mut state, &[batch], &config)?.loss);
        seconds.push(begin.elapsed().as_secs_f64());
        used.extend(cpu_seconds().zip(used_before).map(|(after, before)| after - before));
    }
    let mut counted = seconds[1..].to_vec();
    counted.sort_by(f64::total_cmp);
    let median = counted[counted.len() / 2];
    let tokens = (arguments.batch * arguments.length) as f64;
    let report = serde_json::json!({
        "bench": "sft_step",
        "full": arguments.full,
        "rank": arguments.rank,
        "batch": arguments.batch,
        "length": arguments.length,
        "steps": arguments.steps,
        "activation_checkpointing": arguments.activation_checkpointing,
        "frozen_dtype": arguments.frozen_dtype,
        "quant": arguments.quant,
        "loaded_peak_rss_bytes": loaded,
        "median_step_seconds": median,
        "tokens_per_second": tokens / median,
        "step_seconds": seconds,
        "step_cpu_seconds": used,
        "losses": losses,
        "peak_rss_bytes": peak_rss_bytes(),
    });
    println!("{report}");
    Ok(())
}
