//! `fthost model`: models' files.

use bytesize::ByteSize;
use fthost_run::Result;
use fthost_run::doctor::available_memory;
use fthost_run::estimate::modes::{Mode, Modes};
use fthost_run::models::{Written, combine, convert, folder, hub, init, inspect, merge};

use crate::args::{CombineArgs, ConvertArgs, InitArgs, InspectArgs, MergeArgs, ModelVerb, PullArgs};
use crate::render::grouped;

/// Does what was asked and says where the result is.
pub fn run(verb: &ModelVerb) -> Result<()> {
    match verb {
        ModelVerb::Convert(args) => converted(args),
        ModelVerb::Pull(args) => fetched(args),
        ModelVerb::Init(args) => initialised(args),
        ModelVerb::Merge(args) => merged(args),
        ModelVerb::Combine(args) => combined(args),
        ModelVerb::Inspect(args) => inspected(args),
    }
}

fn converted(args: &ConvertArgs) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| folder::beside(&args.source));
    let blocks = args.blocks.map(Into::into);
    let written = Written { keep_blocks: args.keep_blocks, blocks, ..(&args.written).into() };
    for note in convert::convert(&args.source, &out, &written)? {
        eprintln!("note: {note}");
    }
    println!("`{}` is written", out.display());
    Ok(())
}

fn fetched(args: &PullArgs) -> Result<()> {
    let tell = &mut |name: &str| eprintln!("fetching {name}");
    let folder = hub::Hub::from_env().fetch(&args.repo, args.revision.as_deref(), tell)?;
    println!("`{}`", folder.display());
    Ok(())
}

fn initialised(args: &InitArgs) -> Result<()> {
    init::init(&args.source, &args.out, args.seed, &(&args.written).into())?;
    println!("`{}` is written", args.out.display());
    Ok(())
}

fn merged(args: &MergeArgs) -> Result<()> {
    merge::merge(&args.model, &args.adapter, &args.out, args.dequantize, &(&args.written).into())?;
    println!("`{}` is written", args.out.display());
    Ok(())
}

fn combined(args: &CombineArgs) -> Result<()> {
    let combination = args.options().of(args.method.into())?;
    let base = args.base.as_deref();
    combine::combine(&args.adapters, &combination, base, &args.out, args.dtype.into(), args.force)?;
    println!("`{}` is written", args.out.display());
    Ok(())
}

fn inspected(args: &InspectArgs) -> Result<()> {
    let found = inspect::inspect(&args.path)?;
    let memory = args.memory.map(|it| it.as_u64()).or_else(available_memory);
    if args.json {
        let mut told = serde_json::json!(found);
        if found.memory.is_some() {
            told["memory"]["available"] = serde_json::json!(memory);
        }
        println!("{told}");
    } else {
        print!("{}", told(&found));
        print!("{}", found.memory.as_ref().map_or_else(String::new, |it| told_memory(it, memory)));
    }
    Ok(())
}

/// Each way of training, and whether it fits `available`.
fn told_memory(modes: &Modes, available: Option<u64>) -> String {
    let shape = format!("1 row of {} tokens a step, blocks computed again", grouped(modes.tokens));
    let mut text = format!("  {:<26}{shape}\n", "memory to train, about");
    for Mode { name, bytes } in &modes.modes {
        let fits = available.map(|it| if *bytes <= it { "fits" } else { "does not fit" });
        let of = available.map_or_else(String::new, |it| format!(" {}", ByteSize::b(it)));
        let fits = fits.map_or_else(String::new, |it| format!(" ({it}{of})"));
        text += &format!("    {name:<24}{}{fits}\n", ByteSize::b(*bytes));
    }
    text
}

fn told(found: &inspect::Inspection) -> String {
    let mut text = format!("{} `{}`\n", found.kind, found.path.display());
    for (name, value) in &found.facts {
        // What is said in several lines stays in its column.
        let value = value.replace('\n', &format!("\n  {:26}", ""));
        text += &format!("  {name:<26}{value}\n");
    }
    text += &format!("  {:<26}{}\n", "parameters", grouped(found.parameters as u64));
    for (name, parameters) in &found.parts {
        let share = 100.0 * *parameters as f64 / found.parameters.max(1) as f64;
        text += &format!("    {name:<24}{} ({share:.1} %)\n", grouped(*parameters as u64));
    }
    text
}
