//! `fthost plugin new`, `build`, `test`, `run`, `bench` and `watch`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fthost_authoring::{
    AuthorError, Built, Package, Result, Scaffold, Session, Trial, Watch, Workshop, bench, build, test,
    try_on,
};
use fthost_run::place::cache_dir;
use serde_json::{Map, Value, json};

use crate::args::{AuthorVerb, BenchArgs, BuildArgs, NewArgs, PackageArgs, TestArgs, TryArgs};
use crate::render::grouped;

/// Characters of a line, where the terminal does not say.
const WIDTH: usize = 100;

/// What an author asked for was done, and whether all was well with it.
pub fn run(verb: &AuthorVerb) -> Result<bool> {
    match verb {
        AuthorVerb::New(args) => new(args).map(|()| true),
        AuthorVerb::Build(args) => build_one(args).map(|()| true),
        AuthorVerb::Test(args) => test_one(args),
        AuthorVerb::Run(args) => try_one(args).map(|()| true),
        AuthorVerb::Bench(args) => bench_one(args).map(|()| true),
        AuthorVerb::Watch(args) => watch(args).map(|()| true),
    }
}

fn workshop(say: &dyn Fn(&str)) -> Workshop<'_> {
    // Where the program was compiled; on another machine there is nothing, and the embedded copy serves.
    let tree =
        std::env::var_os("FTHOST_TREE").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    Workshop { tree: Some(tree), cache_dir: cache_dir(), say }
}

fn aloud(text: &str) {
    eprintln!("{text}");
}

fn new(args: &NewArgs) -> Result<()> {
    let scaffold = Scaffold {
        name: &args.name,
        role: args.role.into(),
        language: args.lang.into(),
        parent: &args.parent,
    };
    let made = scaffold.write(&workshop(&aloud))?;
    println!("made `{}`", made.folder.display());
    for file in &made.files {
        println!("  {}", file.display());
    }
    let kind = if made.sdk.embedded { "the copy in this program, written to" } else { "the source tree" };
    println!("SDK and contract: {kind} `{}`, linked as `.fthost/sdk`", made.sdk.root.display());
    println!("next: cd {} && fthost plugin build && fthost plugin test", made.folder.display());
    Ok(())
}

fn build_one(args: &BuildArgs) -> Result<()> {
    let package = Package::open(&args.package.dir)?;
    let built = build(&package, &workshop(&aloud))?;
    if args.json {
        println!("{}", json!(built));
    } else {
        println!("{}", built_text(&built));
    }
    Ok(())
}

fn built_text(built: &Built) -> String {
    let unchanged = if built.unchanged { " (unchanged)" } else { "" };
    format!(
        "{}{unchanged}\n  size    {} bytes ({} stripped)\n  digest  {}",
        built.component.display(),
        grouped(built.size),
        grouped(built.stripped),
        built.digest
    )
}

fn test_one(args: &TestArgs) -> Result<bool> {
    let package = Package::open(&args.package.dir)?;
    let report = test(&package, &Session::of_package(&package, &cache_dir())?)?;
    if args.json {
        println!("{}", json!(report));
    } else {
        println!("{report}");
    }
    Ok(report.passed())
}

/// A package's folder, or a component.
fn session(plugin: &Path) -> Result<Session> {
    match plugin.is_file() {
        true => Session::of_component(plugin, &cache_dir()),
        false => Session::of_package(&Package::open(plugin)?, &cache_dir()),
    }
}

fn config(text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|error| AuthorError::Usage {
        problem: format!("`--config` must be one JSON object: {error}"),
        hint: "as in --config '{\"column\": \"answer\"}'".into(),
    })
}

fn try_one(args: &TryArgs) -> Result<()> {
    let session = session(&args.plugin)?;
    let trial = Trial {
        data: &args.data,
        role: args.played.role.map(Into::into),
        config: config(&args.played.config)?,
        rows: args.rows,
        batch: args.batch,
    };
    let trials = try_on(&session, &trial)?;
    match args.json {
        true => println!("{}", trials.json_lines()),
        false => println!("{}", trials.table(WIDTH)),
    }
    for line in session.logged() {
        eprintln!("{line}");
    }
    Ok(())
}

fn bench_one(args: &BenchArgs) -> Result<()> {
    let session = session(&args.plugin)?;
    let budget = Duration::from_millis(args.budget_ms);
    let report = bench(&session, args.played.role.map(Into::into), &config(&args.played.config)?, budget)?;
    if args.json {
        println!("{}", json!(report));
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Until the terminal says stop. What fails is told, and the next change is waited for.
fn watch(args: &PackageArgs) -> Result<()> {
    let watch = Watch::new(&Package::open(&args.dir)?.folder)?;
    loop {
        let tested = Package::open(&args.dir).and_then(|package| {
            let built = build(&package, &workshop(&aloud))?;
            println!("{}", built_text(&built));
            test(&package, &Session::of_package(&package, &cache_dir())?)
        });
        match tested {
            Ok(report) => println!("{report}"),
            Err(error) => eprintln!("error: {error}"),
        }
        eprintln!("waiting for a change in `{}` (Ctrl-C ends)", args.dir.display());
        let Some(changed) = watch.wait(None) else { return Ok(()) };
        let names: Vec<String> = changed.iter().map(|it| it.display().to_string()).collect();
        eprintln!("changed: {}", names.join(", "));
    }
}
