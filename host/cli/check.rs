//! `fthost check`: a run file, read and judged; nothing is loaded.

use std::path::Path;

use fthost_run::config::Adapter;
use fthost_run::dataset::HeldOut;
use fthost_run::{Result, RunConfig};

use crate::args::FileArgs;
use crate::plugin;

/// Says what the run file asks for, and what of it is not there.
pub fn run(args: &FileArgs) -> Result<()> {
    let config = plugin::config(args)?;
    println!("`{}` is a sound run file", args.file.display());
    print!("{}", told(&config));
    Ok(())
}

fn told(config: &RunConfig) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<12}{value}\n"));
    let there = |path: &Path| if path.exists() { "" } else { " (not there)" };
    let files = |files: &[std::path::PathBuf]| {
        files.iter().map(|it| format!("{}{}", it.display(), there(it))).collect::<Vec<_>>().join(", ")
    };
    line(
        "model",
        match (&config.model.path, &config.model.hub) {
            (Some(path), _) => format!("{}{}", path.display(), there(path)),
            (None, Some(hub)) => {
                let revision = config.model.revision.as_deref().unwrap_or("main");
                format!("{hub} at {revision}, of the hub")
            }
            (None, None) => "the embedded one".to_string(),
        },
    );
    line("data", files(&config.data.files));
    line(
        "held out",
        match &config.data.held_out {
            None => "nothing".to_string(),
            Some(HeldOut::Rows(rows)) => format!("{rows} rows"),
            Some(HeldOut::Fraction(share)) => format!("{} percent of the rows", share * 100.0),
            Some(HeldOut::Files(paths)) => files(paths),
        },
    );
    line("trains", trains(config.adapter.as_ref()));
    line("by", config.objective.name().to_string());
    let train = &config.train;
    let length = match (train.steps, train.epochs) {
        (None, None) => format!("{} steps", train.total_steps(1)),
        (Some(steps), None) => format!("{steps} steps"),
        (None, Some(epochs)) => format!("{epochs} epochs"),
        (Some(steps), Some(epochs)) => format!("{epochs} epochs, {steps} steps at most"),
    };
    let unit = if config.objective.samples() { "completions" } else { "rows" };
    line("for", format!("{length} of {} {unit}", train.global_batch_size()));
    if !config.plugins.0.is_empty() {
        let names: Vec<&str> = config.plugins.0.iter().map(|it| it.0.as_str()).collect();
        line("plugins", names.join(", "));
    }
    line("into", config.output.dir.display().to_string());
    lines.concat()
}

/// Modules that are trained whole beside an adapter.
fn beside(modules: &[String]) -> String {
    if modules.is_empty() { String::new() } else { format!(", and {}", modules.join(", ")) }
}

/// What a run trains.
fn trains(adapter: Option<&Adapter>) -> String {
    match adapter {
        Some(Adapter::Lora(lora)) => {
            format!("a LoRA adapter of rank {}{}", lora.rank, beside(&lora.modules_to_save))
        }
        Some(Adapter::Ia3(ia3)) => format!("(IA)^3's factors{}", beside(&ia3.modules_to_save)),
        Some(Adapter::PromptTuning(it)) => format!("{} virtual tokens", it.num_virtual_tokens),
        Some(Adapter::PrefixTuning(it)) => {
            let how = if it.prefix_projection { ", by a network that makes them" } else { "" };
            format!("keys and values of {} virtual tokens{how}", it.num_virtual_tokens)
        }
        Some(Adapter::Peft { path }) => format!("the adapter in `{}`", path.display()),
        None => "every weight".to_string(),
    }
}
