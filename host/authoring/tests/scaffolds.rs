//! What `fthost plugin new` writes, and what becomes of it.

use fthost_authoring::{Language, RoleKind, Scaffold};

use crate::support::workshop;

#[test]
fn a_scaffold_is_written_whole_and_over_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let scaffold =
        |name| Scaffold { name, role: RoleKind::Reward, language: Language::Rust, parent: folder.path() };
    let made = scaffold("short-answer").write(&workshop()).unwrap();
    let files: Vec<String> = made.files.iter().map(|it| it.display().to_string()).collect();
    let expected = [
        "plugin.toml",
        "README.md",
        ".gitignore",
        "Cargo.toml",
        "Cargo.lock",
        "src/lib.rs",
        "cases/reward.jsonl",
    ];
    assert_eq!(files, expected);
    let again = scaffold("short-answer").write(&workshop()).unwrap_err().to_string();
    assert!(again.contains("is already there\nhint: "), "{again}");
    for (name, problem) in [
        ("Short", "it begins with `S`"),
        ("a_b", "`_` is not allowed"),
        ("", "it is empty"),
        ("test", "a word"),
    ] {
        let error = scaffold(name).write(&workshop()).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn c_has_scaffolds_of_the_roles_that_need_no_json_of_any_shape() {
    let folder = tempfile::tempdir().unwrap();
    let (role, language) = (RoleKind::Augmenter, Language::C);
    let error = Scaffold { name: "a", role, language, parent: folder.path() }.write(&workshop()).unwrap_err();
    insta::assert_snapshot!(error, @r"
    there is no scaffold for `augmenter` in C
    hint: the languages that have one are rust, python, js
    ");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
