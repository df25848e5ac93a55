//! `fthost run`: a run file, trained.

use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

use fthost_run::prepare::plan;
use fthost_run::train::{self, RunOptions};
use fthost_run::{Interrupt, Ranks, Result, RunError, parallel};

use crate::args::RunArgs;
use crate::plugin;
use crate::render::Renderer;
use crate::stop::Stop;

/// How long ranks wait for the first to say what ends them all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Trains, or says what would be done, with the ranks that a launcher has started. The first alone prints.
pub fn run(args: &RunArgs) -> std::result::Result<(), Stop> {
    let ranks = parallel::open().map_err(RunError::from)?;
    let done = on_ranks(args, &ranks);
    match &done {
        // All have stopped after the same step.
        Err(RunError::Interrupted { .. }) if !ranks.is_first() => {
            done.map_err(|error| Stop { message: None, ..Stop::from(error) })
        }
        Err(error) if ranks.are_many() && !matches!(error, RunError::Interrupted { .. }) => {
            end_all(error, &ranks)
        }
        _ => done.map_err(Stop::from),
    }
}

/// The others would wait for a rank that is gone. What is wrong with the run file is wrong on every rank: the first says it.
fn end_all(error: &RunError, ranks: &Ranks) -> ! {
    if ranks.is_first() {
        eprintln!("error: {error}");
    } else {
        std::thread::sleep(PATIENCE);
        eprintln!("error: rank {}: {error}", ranks.global_rank());
    }
    ranks.abort(i32::from(error.exit_code()))
}

fn on_ranks(args: &RunArgs, ranks: &Ranks) -> Result<()> {
    let mut config = plugin::config(&args.file)?;
    config.train.data_parallel = ranks.size();
    let mut plugins = plugin::load(&config, &args.file.file, args.locked)?;
    let mut renderer = if !ranks.is_first() {
        Renderer::quiet()
    } else if args.json {
        Renderer::json()
    } else if args.quiet {
        Renderer::quiet()
    } else if stderr().is_terminal() && stdout().is_terminal() {
        Renderer::terminal()
    } else {
        Renderer::plain()
    };
    let device = args.device.into();
    if args.dry_run {
        let plan = plan(&config, &mut plugins, device)?;
        renderer.planned(&plan);
        renderer.note("a dry run: nothing was trained or written");
        return Ok(());
    }
    let interrupt = Interrupt::on_signals()
        .map_err(|source| RunError::Output { path: "signal handlers".to_string(), source })?;
    let options = RunOptions {
        device,
        resume: args.resume,
        overwrite: args.overwrite,
        interrupt,
        ranks: ranks.clone(),
    };
    let done = train::run(&config, &mut plugins, &options, &mut |event| renderer.event(event));
    match &done {
        Ok(summary) => renderer.done(summary),
        Err(error) => renderer.failed(error),
    }
    done.map(drop)
}
