//! `fthost run`: a run file, trained.

use std::io::{IsTerminal, stderr, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fthost_run::parallel::Collective;
use fthost_run::prepare::plan;
use fthost_run::train::{self, RunOptions};
use fthost_run::{DeviceKind, Interrupt, Ranks, Result, RunError, parallel};

use crate::args::RunArgs;
use crate::plugin;
use crate::render::Renderer;
use crate::stop::Stop;

/// How long ranks wait for the first to say what ends them all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Exit code of a program that panicked.
const PANICKED: i32 = 101;

/// Trains, or says what would be done, with the ranks that a launcher has started. The first alone prints.
pub fn run(args: &RunArgs) -> std::result::Result<(), Stop> {
    let ranks = parallel::open(args.device.into()).map_err(RunError::from)?;
    if !ranks.are_many() {
        return Ok(on_ranks(args, &ranks)?);
    }
    // A panic has said what it is; the others would wait for this rank.
    let done = catch_unwind(AssertUnwindSafe(|| on_ranks(args, &ranks)));
    match done.unwrap_or_else(|_| ranks.abort(PANICKED)) {
        // All have stopped after the same step. A launcher may end the first as soon as another has left.
        Err(error @ RunError::Interrupted { .. }) => {
            if ranks.is_first() {
                eprintln!("error: {error}");
            }
            let _ = ranks.barrier();
            Err(Stop { message: None, ..Stop::from(error) })
        }
        Err(error) => end_all(&error, &ranks),
        Ok(()) => Ok(()),
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
    let config = plugin::config(&args.file)?;
    let mut plugins = plugin::load_on(&config, &args.file.file, args.locked, ranks.global_rank())?;
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
    let device = DeviceKind::from(args.device).of_rank(&**ranks);
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
