//! `fthost`: parse, dispatch, exit code.

mod args;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use fthost_run::{Result, RunConfig, sft};

use args::{Cli, DeviceArg, RunArgs, Verb};

/// Freed pages are kept: a training step asks for the same ones again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run(args) => run(&args),
        Verb::Check(args) => RunConfig::read(&args.file, &args.overrides)
            .map(|_| println!("`{}` is a sound run file", args.file.display())),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "fthost", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: &RunArgs) -> Result<()> {
    let config = RunConfig::read(&args.file.file, &args.file.overrides)?;
    let device = match args.device {
        DeviceArg::Cpu => fthost_run::DeviceKind::Cpu,
        DeviceArg::Cuda => fthost_run::DeviceKind::Cuda,
    };
    let steps = config.train.steps;
    let summary = sft::run(&config, device, &mut |step, metrics| {
        if !args.quiet {
            println!(
                "step {step}/{steps} loss {:.4} grad_norm {:.3} mean_token_accuracy {:.3}",
                metrics.loss, metrics.grad_norm, metrics.mean_token_accuracy
            );
        }
    })?;
    if !args.quiet {
        println!("{} rows, {} skipped; result: {}", summary.rows, summary.skipped, summary.result.display());
    }
    Ok(())
}
