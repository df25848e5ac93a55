//! Times what ranks do together, started by an MPI launcher, and prints one line of JSON on the first rank.
//!
//! - `ranks step MODEL_FOLDER [--shard N] [--zero 1|2|3] [--keep] [--rank 16 | --full] [--batch 4] [--length 256] [--steps 5]
//!   [--activation-checkpointing off|block]`: optimizer steps of one micro-batch a rank of random tokens, all supervised; `--shard 1`
//!   is plain data parallelism, `--keep` keeps blocks between forward and backward. The first step warms up and is not counted.
//! - `ranks simulate MODEL_FOLDER ...`, as `step`: besides, what `estimate::scaling` says that a step takes, fed with the time of a step
//!   that every rank takes at the same time for itself and with that of what they do together.
//! - `ranks collectives [--repeat 10]`: all-gather, reduce-scatter and all-reduce of 1 to 64 MiB of f32, the fastest of each.

mod support;

use std::path::PathBuf;
use std::time::Instant;

use fthost_data::Batch;
use fthost_engine::Device;
use fthost_engine::adapters::{LoraConfig, attach_lora};
use fthost_engine::checkpoint::{LoadConfig, load_model_as, load_shared};
use fthost_engine::device::DeviceKind;
use fthost_engine::estimate::scaling::{Cluster, Link, Speeds, Work, scaled, update_seconds};
use fthost_engine::estimate::{BatchTokens, ModelShape, Segment, StepShape, step_flops};
use fthost_engine::models::DecoderConfig;
use fthost_engine::optim::{AdamWConfig, MomentStorage};
use fthost_engine::parallel::{self, Collective, Ranks};
use fthost_engine::shard::{ParallelConfig, Zero};
use fthost_engine::train::memory::peak_rss_bytes;
use fthost_engine::train::{ActivationCheckpointing, StepConfig, TrainState, step};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use support::random_batch;

#[global_allocator]
static ALLOCATOR: fthost_engine::allocator::KeepPages = fthost_engine::allocator::KeepPages;

type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Clone)]
struct Arguments {
    model: PathBuf,
    parallel: ParallelConfig,
    rank: usize,
    batch: usize,
    length: usize,
    steps: usize,
    activation_checkpointing: ActivationCheckpointing,
    full: bool,
    repeat: usize,
}

fn arguments(given: impl Iterator<Item = String>) -> Result<Arguments, Failure> {
    let mut found = Arguments {
        model: PathBuf::new(),
        parallel: ParallelConfig::default(),
        rank: 16,
        batch: 4,
        length: 256,
        steps: 5,
        activation_checkpointing: ActivationCheckpointing::Off,
        full: false,
        repeat: 10,
    };
    let mut given = given;
    while let Some(argument) = given.next() {
        let mut number = || -> Result<usize, Failure> {
            let value = given.next().and_then(|it| it.parse().ok()).filter(|it| *it > 0);
            value.ok_or_else(|| format!("`{argument}` needs a number > 0").into())
        };
        match argument.as_str() {
            "--bench" => {}
            "--full" => found.full = true,
            "--keep" => found.parallel.reshard_after_forward = false,
            "--shard" => found.parallel.data_parallel_shard = number()? as i64,
            "--zero" => found.parallel.zero = Zero::try_from(number()? as u8)?,
            "--rank" => found.rank = number()?,
            "--batch" => found.batch = number()?,
            "--length" => found.length = number()?,
            "--steps" => found.steps = number()?,
            "--repeat" => found.repeat = number()?,
            "--activation-checkpointing" => {
                found.activation_checkpointing = match given.next().as_deref() {
                    Some("off") => ActivationCheckpointing::Off,
                    Some("block") => ActivationCheckpointing::Block,
                    _ => return Err(format!("`{argument}` must be `off` or `block`").into()),
                }
            }
            _ if argument.starts_with('-') => return Err(format!("`{argument}` is not known").into()),
            _ => found.model = PathBuf::from(argument),
        }
    }
    Ok(found)
}

/// What a step of one micro-batch a rank takes.
struct Measured {
    seconds: Vec<f64>,
    losses: Vec<f64>,
    config: DecoderConfig,
}

impl Measured {
    /// The median of all but the first.
    fn median(&self) -> f64 {
        let mut counted = self.seconds[1..].to_vec();
        counted.sort_by(f64::total_cmp);
        counted[counted.len() / 2]
    }
}

/// Steps of `ranks`, while all of `around` take theirs.
fn measured(arguments: &Arguments, ranks: &Ranks, around: &Ranks) -> Result<Measured, Failure> {
    let mesh = arguments.parallel.mesh(ranks)?;
    let load = LoadConfig { to_train: arguments.full, ..LoadConfig::default() };
    let mut model = match &mesh {
        Some(mesh) => load_shared(&arguments.model, &Device::flex(), &load, mesh)?,
        None => load_model_as(&arguments.model, &Device::flex(), &load)?,
    };
    let adapter = (!arguments.full).then(|| LoraConfig { rank: arguments.rank, ..LoraConfig::default() });
    if let Some(adapter) = &adapter {
        attach_lora(&mut model, adapter, 0)?;
    }
    let vocab = model.config.vocab_size;
    let mut state = TrainState::new(model, adapter.map(Into::into));
    state.ranks = ranks.clone();
    if let Some(mesh) = &mesh {
        state.share(mesh);
        state.ranks = mesh.ranks(ranks);
    }
    let config = StepConfig {
        adamw: AdamWConfig::default(),
        learning_rate: 2e-4,
        max_grad_norm: Some(1.0),
        activation_checkpointing: arguments.activation_checkpointing,
        gradient_release: false,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..=arguments.steps {
        let batches: Vec<Batch> = (0..ranks.size())
            .map(|_| random_batch(vocab, [arguments.batch, arguments.length], &mut rng))
            .collect();
        around.barrier()?;
        let begin = Instant::now();
        losses.push(step(&mut state, &batches, &config)?.loss);
        around.barrier()?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    Ok(Measured { seconds, losses, config: state.model.config.clone() })
}

fn steps(arguments: &Arguments, ranks: &Ranks) -> Result<Value, Failure> {
    let found = measured(arguments, ranks, ranks)?;
    let median = found.median();
    let tokens = (ranks.size() * arguments.batch * arguments.length) as f64;
    let peaks = ranks.merged(vec![peak_rss_bytes().unwrap_or_default() as f64 / f64::from(1 << 30)])?;
    Ok(json!({
        "bench": "ranks step",
        "ranks": ranks.size(),
        "parallel": arguments.parallel,
        "full": arguments.full,
        "median_step_seconds": median,
        "tokens_per_second": tokens / median,
        "step_seconds": found.seconds,
        "losses": found.losses,
        "peak_rss_gib_of_ranks": peaks,
    }))
}

/// Seconds of what ranks do together, on the fastest of several times, and of a copy in memory: what a simulation is fed with.
fn links(arguments: &Arguments, ranks: &Ranks) -> Result<(Link, f64), Failure> {
    let times = |values: usize| -> Result<[f64; 2], Failure> {
        let length = values / ranks.size() * ranks.size();
        let (mut all, mut own) = (vec![1f32; length], vec![0f32; length / ranks.size()]);
        let gather =
            fastest(ranks, arguments.repeat, || ranks.all_gather(bytemuck::cast_slice_mut(&mut all)))?;
        let reduce = fastest(ranks, arguments.repeat, || ranks.reduce_scatter(&all, &mut own))?;
        Ok([gather / 1e3, reduce / 1e3])
    };
    // As much as a block of the model has, about.
    let values = 4 << 20;
    let (small, large) = (times(256)?, times(values)?);
    let others = (ranks.size() - 1) as f64 / ranks.size() as f64;
    let rate = |which: usize| (values * size_of::<f32>()) as f64 * others / (large[which] - small[which]);
    let (from, mut to) = (vec![1f32; 64 << 20], vec![0f32; 64 << 20]);
    let copy = fastest(ranks, arguments.repeat, || {
        to.copy_from_slice(&from);
        Ok(())
    })?;
    let latency_seconds = small[0] / (ranks.size() - 1) as f64;
    let link = Link { gather_bytes_per_second: rate(0), reduce_bytes_per_second: rate(1), latency_seconds };
    Ok((link, (2 * size_of_val(&from[..])) as f64 / (copy / 1e3)))
}

fn simulate(arguments: &Arguments, ranks: &Ranks) -> Result<Value, Failure> {
    if !ranks.are_many() {
        return Err("a simulation is of several ranks: start it by a launcher".into());
    }
    let alone = Arguments { parallel: ParallelConfig::default(), ..arguments.clone() };
    let alone = measured(&alone, &Ranks::default(), ranks)?;
    let (link, memory_bytes_per_second) = links(arguments, ranks)?;
    let together = measured(arguments, ranks, ranks)?;
    let mut shape = ModelShape::of(&alone.config);
    if !arguments.full {
        shape = shape.with_lora(&LoraConfig { rank: arguments.rank, ..LoraConfig::default() })?;
    }
    let tokens = (arguments.batch * arguments.length) as u64;
    let segments = vec![Segment { before: 0, tokens: arguments.length as u64 }; arguments.batch];
    let how = StepShape { checkpointing: arguments.activation_checkpointing, ..StepShape::default() };
    let batch = BatchTokens { tokens, supervised: tokens, sequences: arguments.batch as u64 };
    let flops = step_flops(&shape, &how, batch, &segments) as f64;
    let update = update_seconds(shape.trained_values(), memory_bytes_per_second);
    let speeds = Speeds {
        flops_per_second: flops / (alone.median() - update),
        memory_bytes_per_second,
        within: link,
        between: link,
    };
    let cluster = Cluster { ranks_per_machine: ranks.size(), speeds };
    let load = LoadConfig { to_train: arguments.full, ..LoadConfig::default() };
    let work = Work {
        shape: &shape,
        load: &load,
        moments: &MomentStorage::F32,
        how,
        batch,
        segments: &segments,
        micro_batches: 1,
        parallel: &arguments.parallel,
    };
    let simulated = scaled(&work, &cluster, ranks.size())?;
    Ok(json!({
        "bench": "ranks simulate",
        "ranks": ranks.size(),
        "parallel": arguments.parallel,
        "full": arguments.full,
        "cluster": cluster,
        "alone_seconds": alone.median(),
        "measured_seconds": together.median(),
        "simulated": simulated,
        "simulated_over_measured": simulated.step_seconds / together.median(),
    }))
}

/// The fastest of several times, in milliseconds, which all ranks begin together.
fn fastest(
    ranks: &Ranks,
    repeat: usize,
    mut once: impl FnMut() -> fthost_engine::Result<()>,
) -> Result<f64, Failure> {
    once()?;
    let mut least = f64::INFINITY;
    for _ in 0..repeat {
        ranks.barrier()?;
        let begin = Instant::now();
        once()?;
        ranks.barrier()?;
        least = least.min(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(least)
}

fn collectives(arguments: &Arguments, ranks: &Ranks) -> Result<Value, Failure> {
    let mut found = Vec::new();
    for mib in [1usize, 4, 16, 64] {
        let length = (mib << 18) / ranks.size() * ranks.size();
        let (mut all, mut own) = (vec![1f32; length], vec![0f32; length / ranks.size()]);
        let gather =
            fastest(ranks, arguments.repeat, || ranks.all_gather(bytemuck::cast_slice_mut(&mut all)))?;
        all.fill(1.0);
        let reduce_scatter = fastest(ranks, arguments.repeat, || ranks.reduce_scatter(&all, &mut own))?;
        let all_reduce = fastest(ranks, arguments.repeat, || {
            all.fill(1.0);
            ranks.all_reduce(&mut all)
        })?;
        found.push(json!({
            "mib": mib, "all_gather_ms": gather, "reduce_scatter_ms": reduce_scatter, "all_reduce_ms": all_reduce,
        }));
    }
    Ok(
        json!({ "bench": "ranks collectives", "ranks": ranks.size(), "library": ranks.name(), "sizes": found }),
    )
}

fn main() -> Result<(), Failure> {
    let mut given = std::env::args().skip(1).filter(|it| it != "--bench");
    let Some(what) = given.next() else {
        eprintln!("SKIPPED ranks: none of `step`, `simulate` and `collectives` was asked for");
        return Ok(());
    };
    let (arguments, ranks) = (arguments(given)?, parallel::open(DeviceKind::Cpu)?);
    let report = match what.as_str() {
        "step" => steps(&arguments, &ranks)?,
        "simulate" => simulate(&arguments, &ranks)?,
        "collectives" => collectives(&arguments, &ranks)?,
        other => return Err(format!("`{other}` is not known: `step`, `simulate` or `collectives`").into()),
    };
    if ranks.is_first() {
        println!("{report}");
    }
    Ok(())
}
