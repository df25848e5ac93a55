//! `fthost`: parse, dispatch, exit code.

mod args;
mod check;
mod comparison;
mod data;
mod doctor;
mod estimate;
mod eval;
mod generate;
mod launch;
mod model;
mod plugin;
mod render;
mod replay;
mod rollouts;
mod run;
mod stop;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, DataVerb, Verb};
use stop::Stop;

#[global_allocator]
static ALLOCATOR: fthost_run::KeepPages = fthost_run::KeepPages;

fn main() -> ExitCode {
    let done: Result<(), Stop> = match Cli::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Check(args) => check::run(&args).map_err(Stop::from),
        Verb::Estimate(args) => estimate::run(&args).map_err(Stop::from),
        Verb::Launch(args) => launch::run(&args).map_err(Stop::from),
        Verb::Generate(args) => generate::run(&args).map_err(Stop::from),
        Verb::Data(DataVerb::Preview(args)) => data::preview(&args).map_err(Stop::from),
        Verb::Eval(args) => eval::run(&args).map_err(Stop::from),
        Verb::Plugin(verb) => plugin::run(&verb),
        Verb::Replay(args) => replay::replay(&args).map_err(Stop::from),
        Verb::Rescore(args) => replay::rescore(&args).map_err(Stop::from),
        Verb::Rollouts(args) => rollouts::run(&args).map_err(Stop::from),
        Verb::Model(verb) => model::run(&verb).map_err(Stop::from),
        Verb::Doctor => doctor::run().map_err(Stop::from),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "fthost", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            if let Some(message) = &stop.message {
                eprintln!("error: {message}");
            }
            ExitCode::from(stop.code)
        }
    }
}
