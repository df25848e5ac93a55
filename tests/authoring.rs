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
    insta::assert_snapshot!(told(&["plugin", "--help"]), @"");
    insta::assert_snapshot!(told(&["plugin", "new", "--help"]), @"");
    insta::assert_snapshot!(told(&["plugin", "test", "--help"]), @"");
}

#[test]
fn what_an_author_did_wrong_is_told_with_one_hint() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    let here = |args: &[&str]| told(args).replace(at, "DIR");
    insta::assert_snapshot!(here(&["plugin", "new", "Short_Answer", "--role", "reward", "--in", at]), @"");
    assert!(fthost(&["plugin", "new", "short", "--role", "reward", "--in", at]).status.success());
    insta::assert_snapshot!(here(&["plugin", "new", "short", "--role", "reward", "--in", at]), @"");
    insta::assert_snapshot!(here(&["plugin", "new", "other", "--role", "augmenter", "--lang", "c", "--in", at]), @"");
    insta::assert_snapshot!(here(&["plugin", "build", at]), @"");
    let package = format!("{at}/short");
    insta::assert_snapshot!(here(&["plugin", "test", &package]), @"");
}
