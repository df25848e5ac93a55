//! `fthost plugin`, and what every verb does to get its plugins.

mod author;
mod inspect;
mod share;

use std::path::Path;
use std::sync::Arc;

use fthost_registry::Sets;
use fthost_run::packages::Packages;
use fthost_run::place::cache_dir;
use fthost_run::plugins::PluginReport;
use fthost_run::standard::search_path;
use fthost_run::{LogLevel, LogSink, Plugins, Result, RunConfig, SearchPath};

use crate::args::{FileArgs, PluginVerb};
use crate::stop::Stop;

/// The run file with what the command line changes in it.
pub fn config(args: &FileArgs) -> Result<RunConfig> {
    RunConfig::read(&args.file, &args.overrides, &args.plugin_sets)
}

/// The plugins of a run file; what they log goes to stderr.
pub fn load(config: &RunConfig, file: &Path, locked: bool) -> Result<Plugins> {
    load_on(config, file, locked, 0)
}

/// As [`load`], on the rank of this number.
pub fn load_on(config: &RunConfig, file: &Path, locked: bool, rank: usize) -> Result<Plugins> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let search = search_path(folder)?;
    let packages = Packages::around(folder)?;
    let loadable = packages.resolve(&config.plugins, &config.plugin_sets, &search, locked)?;
    let mut plugins = Plugins::load(&loadable.table, &search, config.train.seed, log_on(rank))?;
    plugins.signers = loadable.signers;
    Ok(plugins)
}

/// What plugins log goes to stderr.
pub fn log() -> LogSink {
    log_on(0)
}

fn log_on(rank: usize) -> LogSink {
    Arc::new(move |plugin, level, line| {
        if let Some(told) = told(rank, plugin, level, line) {
            eprintln!("{told}");
        }
    })
}

/// A line that a plugin logs on a rank, as it is printed: every rank has the plugin, the first speaks for all, and another is heard
/// where something is wrong.
fn told(rank: usize, plugin: &str, level: LogLevel, line: &str) -> Option<String> {
    let least = if rank == 0 { LogLevel::Info } else { LogLevel::Warn };
    let of_rank = if rank == 0 { String::new() } else { format!("rank {rank}: ") };
    let named = format!("{level:?}").to_lowercase();
    (level >= least).then(|| format!("{of_rank}plugin `{plugin}` ({named}): {line}"))
}

/// Lists, inspects, or does what an author asks for.
pub fn run(verb: &PluginVerb) -> std::result::Result<(), Stop> {
    let search = search_path(Path::new(""))?;
    match verb {
        PluginVerb::List => Ok(list(&search)?),
        PluginVerb::Inspect { plugin, json } => Ok(inspect::run(&search, plugin, *json)?),
        PluginVerb::Audit { run, json } => Ok(crate::replay::audit(run, *json)?),
        PluginVerb::Share(verb) => Ok(share::run(verb)?),
        PluginVerb::Author(verb) => match author::run(verb)? {
            true => Ok(()),
            false => Err(Stop::failed()),
        },
    }
}

fn list(search: &SearchPath) -> Result<()> {
    let (components, sets) = search.list();
    if components.is_empty() && sets.is_empty() {
        share::list(&cache_dir())?;
        println!(
            "no plugins found\nhint: `plugins/build` builds the standard ones; FTHOST_PLUGIN_PATH names folders"
        );
        return Ok(());
    }
    let width = components.iter().chain(&sets).map(|it| it.0.len()).max().unwrap_or(0);
    println!("plugins");
    for (name, path) in &components {
        // A component that can't be loaded is listed with the reason: it is what somebody looks for.
        match PluginReport::of(name, path) {
            Ok(it) => {
                println!("  {name:<width$}  {:<12}  {:<7}  {}", it.roles_told(), it.version, it.summary)
            }
            Err(error) => println!("  {name:<width$}  can't be loaded: {error}"),
        }
    }
    println!("sets");
    for (name, path) in &sets {
        println!("  {name:<width$}  {}", Sets::summary(path)?);
    }
    Ok(share::list(&cache_dir())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_speaks_for_all_and_another_where_something_is_wrong() {
        let of = |rank, level| told(rank, "judge", level, "no key");
        assert_eq!(of(0, LogLevel::Debug), None);
        assert_eq!(of(0, LogLevel::Info).unwrap(), "plugin `judge` (info): no key");
        assert_eq!(of(3, LogLevel::Info), None);
        assert_eq!(of(3, LogLevel::Warn).unwrap(), "rank 3: plugin `judge` (warn): no key");
        assert_eq!(of(3, LogLevel::Error).unwrap(), "rank 3: plugin `judge` (error): no key");
    }
}
