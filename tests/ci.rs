//! What the README promises a newcomer is what continuous integration runs.

use crate::support::read;

/// The command in the README's fenced block under the heading `Tests`.
fn readme_test_command() -> String {
    let readme = read("README.md");
    let section = readme.split("\n## ").find(|it| it.starts_with("Tests")).expect("README.md has `## Tests`");
    let block = section.split("```").nth(1).expect("`## Tests` holds a fenced block");
    block.lines().nth(1).expect("the block holds a command").trim().to_owned()
}

#[test]
fn ci_calls_the_test_command_as_it_stands_in_the_readme() {
    let command = readme_test_command();
    assert!(!command.is_empty());
    let ci = read(".ci/run");
    assert!(ci.lines().any(|it| it.trim() == command), "`.ci/run` has no line `{command}`");
}
