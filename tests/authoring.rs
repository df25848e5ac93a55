//! The author's verbs of the program, and the commands of the guide.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{fthost, read};

/// Runs `script` in `folder` with the built program on `PATH`.
fn sh(folder: &Path, script: &str) -> Output {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_fthost"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = [program.parent().unwrap().to_path_buf()].into_iter().chain(std::env::split_paths(&path));
    let mut command = Command::new("sh");
    command.args(["-euxc", script]).current_dir(folder).env("PATH", std::env::join_paths(paths).unwrap());
    command.output().unwrap()
}

/// The fenced `sh` blocks of a page, each with what it needs.
fn blocks(page: &str) -> Vec<(Option<String>, String)> {
    let mut blocks = Vec::new();
    // Between fences of any kind; the text is kept where they are `sh`.
    let mut open: Option<(bool, Option<String>, String)> = None;
    for line in page.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (open.take(), fence) {
            (None, Some(info)) => {
                let needs = info.split("needs=").nth(1).map(str::to_string);
                open = Some((info.split(' ').next() == Some("sh"), needs, String::new()));
            }
            (Some((true, needs, text)), Some(_)) => blocks.push((needs, text)),
            (Some((shell, needs, text)), None) => open = Some((shell, needs, text + line + "\n")),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
    blocks
}

fn toolchain(name: &str) -> bool {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|it| it.join(".cache"))).unwrap_or_default();
    let toolchains = cache.join("fthost/toolchains");
    let entries = std::fs::read_dir(toolchains).into_iter().flatten().flatten();
    let marks = entries.map(|it| it.file_name().to_string_lossy().into_owned());
    marks.into_iter().any(|it| it.starts_with(name) && it.ends_with(".whole"))
}

#[test]
fn every_command_of_the_guide_works() {
    let page = read("host/docs/guide/write-a-plugin.md");
    let blocks = blocks(&page);
    assert!(blocks.len() >= 6, "the guide lost its commands");
    let folder = tempfile::tempdir().unwrap();
    let mut script = String::new();
    for (needs, text) in &blocks {
        match needs.as_deref() {
            Some("python") if !toolchain("componentize-py") => {
                eprintln!(
                    "SKIPPED: the guide's commands for Python: componentize-py is not in the cache folder"
                );
            }
            _ => script.push_str(text),
        }
    }
    let output = sh(folder.path(), &script);
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    assert!(told.contains("6 cases, 0 failed; 6 checks, 0 failed"), "{told}");
    // `expected` of the rows that were tried.
    assert!(told.contains(r#""answer":[{"value":0.0,"components":{"exact":0.0,"contains":0.0}}]"#), "{told}");
}

fn told(args: &[&str]) -> String {
    let output = fthost(args);
    let bytes = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    format!("{}\nexit code {}", String::from_utf8_lossy(bytes).trim_end(), output.status.code().unwrap())
}

#[test]
fn help_of_the_authors_verbs() {
    insta::assert_snapshot!(told(&["plugin", "--help"]), @r"
    Look at plugins, write, test and share them

    Usage: fthost plugin <COMMAND>

    Commands:
      list     List the plugins and sets that are found by name, and the pulled packages
      inspect  Show a plugin's roles, digest, imports and configuration
      audit    List every plugin of a run: digest, signer, grants used, limits hit, scores
      push     Publish a plugin's folder or a set's file
      pull     Fetch a package, check it, and keep it for runs
      search   List the packages of a place, each at its highest version
      remove   Remove pulled packages
      update   Resolve a run file's plugins anew and write `plugins.lock` beside it
      sign     Sign a plugin's folder, or a set's file, as it is now
      verify   Say who signed a package, and fail if it is nobody or somebody who may not
      key      Make keys to sign with
      new      Make a package that builds and passes its own tests at once
      build    Build a package's component, and say its size and digest
      test     Run a package's cases, and check what holds for every plugin
      run      Try a plugin on a file of rows
      bench    Time a plugin: loading, and calls by batch size
      watch    Build and test a package whenever a file of it is saved
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help
    exit code 0
    ");
    insta::assert_snapshot!(told(&["plugin", "new", "--help"]), @r"
    Make a package that builds and passes its own tests at once

    Usage: fthost plugin new [OPTIONS] --role <ROLE> <NAME>

    Arguments:
      <NAME>
              The plugin's name, and its folder's: lower-case letters, digits and `-`

    Options:
          --role <ROLE>
              What it plays

              Possible values:
              - data-builder: Makes examples of rows
              - augmenter:    Derives examples from examples
              - reward:       Scores completions
              - evaluator:    Judges a model's answers

          --lang <LANG>
              What it is written in

              Possible values:
              - rust:   With the SDK; small and fast
              - python: Through componentize-py
              - js:     Through componentize-js
              - c:      Through wit-bindgen and zig; rewards and evaluators
              
              [default: rust]

          --in <DIR>
              Where its folder is made
              
              [default: .]

      -h, --help
              Print help (see a summary with '-h')
    exit code 0
    ");
    insta::assert_snapshot!(told(&["plugin", "test", "--help"]), @r"
    Run a package's cases, and check what holds for every plugin

    Usage: fthost plugin test [OPTIONS] [DIR]

    Arguments:
      [DIR]  The package's folder [default: .]

    Options:
          --json  Print one JSON object
      -h, --help  Print help
    exit code 0
    ");
}

#[test]
fn what_an_author_did_wrong_is_told_with_one_hint() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    let here = |args: &[&str]| told(args).replace(at, "DIR");
    insta::assert_snapshot!(here(&["plugin", "new", "Short_Answer", "--role", "reward", "--in", at]), @r"
    error: `Short_Answer` can't be a plugin's name: it begins with `S`
    hint: lower-case letters, digits and `-`, a letter first, as in `short-answer`
    exit code 2
    ");
    assert!(fthost(&["plugin", "new", "short", "--role", "reward", "--in", at]).status.success());
    insta::assert_snapshot!(here(&["plugin", "new", "short", "--role", "reward", "--in", at]), @r"
    error: `DIR/short` is already there
    hint: give another name, or another place with `--in DIR`
    exit code 2
    ");
    insta::assert_snapshot!(here(&["plugin", "new", "other", "--role", "augmenter", "--lang", "c", "--in", at]), @r"
    error: there is no scaffold for `augmenter` in C
    hint: the languages that have one are rust, python, js
    exit code 2
    ");
    insta::assert_snapshot!(here(&["plugin", "build", at]), @r"
    error: `DIR` is no plugin package: it has no `plugin.toml`
    hint: `fthost plugin new NAME` makes one
    exit code 2
    ");
    let package = format!("{at}/short");
    insta::assert_snapshot!(here(&["plugin", "test", &package]), @r"
    error: `DIR/short` is not built: there is no `DIR/short/short.wasm`
    hint: `fthost plugin build` makes it
    exit code 1
    ");
}
