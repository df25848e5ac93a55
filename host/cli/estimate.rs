//! `fthost estimate`: what a run would take, before it is started.

use bytesize::ByteSize;
use fthost_run::Result;
use fthost_run::estimate::{self, Estimate, OnRanks};

use crate::args::EstimateArgs;
use crate::plugin;
use crate::render::grouped;

/// Prints memory by part, floating point operations, and keys that would save memory.
pub fn run(args: &EstimateArgs) -> Result<()> {
    let config = plugin::config(&args.file)?;
    let mut plugins = plugin::load(&config, &args.file.file, false)?;
    let found = estimate::estimate(&config, &mut plugins)?;
    match args.json {
        true => println!("{}", serde_json::json!(found)),
        false => print!("{}", told(&found)),
    }
    Ok(())
}

fn told(found: &Estimate) -> String {
    let mut text = format!(
        "model      {} ({} weights, {} trained)\n",
        found.model,
        grouped(found.parameters),
        grouped(found.trainable_parameters)
    );
    text += &format!(
        "steps      {} by {}; at most {} tokens a micro-batch, {} supervised\n",
        found.steps.map_or("unknown".to_string(), grouped),
        found.objective,
        grouped(found.tokens),
        grouped(found.supervised_tokens)
    );
    text += &format!("lengths    {}\n\n", found.lengths);
    let width = found.parts.iter().map(|it| it.name.len()).max().unwrap_or(0).max(14);
    text += &format!("{:<width$}  {:>8}  decided by\n", "memory", "MiB");
    for part in &found.parts {
        text += &format!("{:<width$}  {:>8.1}  {}\n", part.name, mib(part.bytes), part.decided_by);
    }
    text += &format!("{:<width$}  {:>8.1}\n\n", "peak RSS about", mib(found.peak_rss_bytes));
    for phase in &found.phases {
        text += &format!("{:<width$}  {:>8.1}  at the peak of this phase\n", phase.name, mib(phase.bytes));
    }
    text += &format!("\nFLOPs      {} a step", flops(found.flops.step));
    if let Some(training) = found.flops.training {
        text += &format!(", {} in all", flops(training));
    }
    if found.flops.evaluation > 0 {
        text += &format!("; {} an evaluation", flops(found.flops.evaluation));
    }
    text += "\n";
    text += &found.on_ranks.as_ref().map(on_ranks).unwrap_or_default();
    for hint in &found.hints {
        text += &format!("hint: {} saves {}: {}\n", hint.keys, ByteSize::b(hint.saves), hint.costs);
    }
    for note in &found.notes {
        text += &format!("note: {note}\n");
    }
    text += "On a CUDA device weights, adapter, gradients, moments and activations lie in its memory instead; that was not measured.\n";
    text
}

/// A step on several ranks.
fn on_ranks(found: &OnRanks) -> String {
    let OnRanks { ranks, replicate, shard, memory, step } = found;
    let mut text =
        format!("\n{ranks} ranks   {replicate} x {shard} (`parallel`: replicate x shard), a training step\n");
    let parts = [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("moments", memory.moments),
        ("gathered", memory.gathered),
        ("activations", memory.activations),
        ("a rank in all", memory.total()),
    ];
    for (name, bytes) in parts {
        text += &format!("{name:<14}  {:>8.1}\n", mib(bytes));
    }
    match step {
        Some(step) => {
            let (waited, seconds) = (100.0 * (1.0 - step.efficiency), step.step_seconds);
            let tokens = grouped(step.tokens_per_second.round() as u64);
            text += &format!(
                "{seconds:.3} s a step by `launch.speeds`, {waited:.0}% of it waiting; {tokens} tokens a second\n"
            );
        }
        None => text += "how long a step takes: `launch.speeds` is not set\n",
    }
    text
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// `1.23e12`, with its prefix: `1.2 TFLOP`.
fn flops(count: u64) -> String {
    let mut value = count as f64;
    let prefixes = ["", "k", "M", "G", "T", "P", "E"];
    let steps = prefixes.iter().take_while(|_| {
        let more = value >= 1000.0;
        if more {
            value /= 1000.0;
        }
        more
    });
    let prefix = prefixes[steps.count().min(prefixes.len() - 1)];
    format!("{value:.1} {prefix}FLOP")
}
