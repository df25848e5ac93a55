//! `fthost run`: a run file, trained.

use std::io::{IsTerminal, stderr, stdout};

use fthost_run::prepare::plan;
use fthost_run::train::{self, RunOptions};
use fthost_run::{Interrupt, Result, RunError};

use crate::args::RunArgs;
use crate::plugin;
use crate::render::Renderer;

/// Trains, or says what would be done.
pub fn run(args: &RunArgs) -> Result<()> {
    let config = plugin::config(&args.file)?;
    let mut plugins = plugin::load(&config, &args.file.file, args.locked)?;
    let mut renderer = if args.json {
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
    let options = RunOptions { device, resume: args.resume, overwrite: args.overwrite, interrupt };
    let done = train::run(&config, &mut plugins, &options, &mut |event| renderer.event(event));
    match &done {
        Ok(summary) => renderer.done(summary),
        Err(error) => renderer.failed(error),
    }
    done.map(drop)
}
