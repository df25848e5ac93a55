//! `fthost launch`: a job's file, to be submitted by who asked for it.

use std::env;
use std::path::Path;

use fthost_run::Result;
use fthost_run::launch::{Launch, Request};

use crate::args::LaunchArgs;

/// Writes the job beside the run file and says how to submit it, or prints it.
pub fn run(args: &LaunchArgs) -> Result<()> {
    let file = &args.file.file;
    let launch = Launch::new(&Request {
        file: file.clone(),
        overrides: args.file.overrides.clone(),
        plugin_sets: args.file.plugin_sets.clone(),
        locked: args.locked,
        device: args.device.into(),
        to: args.to.map(Into::into),
        folder: env::current_dir().unwrap_or_else(|_| ".".into()),
        program: env::current_exe().unwrap_or_else(|_| "fthost".into()),
    })?;
    for note in &launch.notes {
        eprintln!("note: {note}");
    }
    if args.dry_run {
        print!("{}", launch.text);
        return Ok(());
    }
    let beside = file.with_extension(launch.target.extension());
    let path: &Path = args.out.as_deref().unwrap_or(&beside);
    launch.write(path, args.force)?;
    println!(
        "wrote `{}` ({}); submit it with `{}`",
        path.display(),
        launch.shape,
        launch.target.submission(path)
    );
    Ok(())
}
