//! `fthost`: parse, dispatch, exit code.

mod args;
mod check;
mod comparison;
mod data;
mod doctor;
mod eval;
mod generate;
mod model;
mod plugin;
mod render;
mod replay;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, DataVerb, Verb};

#[global_allocator]
static ALLOCATOR: fthost_run::KeepPages = fthost_run::KeepPages;

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Generate(args) => generate::run(&args),
        Verb::Data(DataVerb::Preview(args)) => data::preview(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Plugin(verb) => plugin::run(&verb),
        Verb::Replay(args) => replay::replay(&args),
        Verb::Rescore(args) => replay::rescore(&args),
        Verb::Model(verb) => model::run(&verb),
        Verb::Doctor => doctor::run(),
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
