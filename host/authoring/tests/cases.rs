//! What `fthost plugin test` says: of scaffolds, of examples in four languages, and of a plugin that is wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fthost_authoring::{Language, Package, RoleKind, Session, TestReport, Trial, bench, build, test, try_on};

use crate::support::{at_hand, cache_dir, root, scaffolded, workshop};

fn tested(package: &Package) -> TestReport {
    build(package, &workshop()).unwrap_or_else(|error| panic!("{}: {error}", package.folder.display()));
    test(package, &Session::of_package(package, &cache_dir()).unwrap()).unwrap()
}

fn passes(language: Language) {
    if !at_hand(language, &format!("scaffolds in {language} pass their own tests")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let roles: &[RoleKind] = match language {
        Language::C => &[RoleKind::Reward, RoleKind::Evaluator],
        _ => &RoleKind::ALL,
    };
    for role in roles {
        let package = scaffolded(folder.path(), &format!("tested-{language}-{role}"), *role, language);
        let report = tested(&package);
        assert!(report.passed(), "{report}");
        assert!(report.cases().0 >= 4 && report.checks.len() >= 5, "{report}");
    }
}

#[test]
fn scaffolds_in_rust_pass_their_own_tests() {
    passes(Language::Rust);
}

#[test]
fn scaffolds_in_python_pass_their_own_tests() {
    passes(Language::Python);
}

#[test]
fn scaffolds_in_javascript_pass_their_own_tests() {
    passes(Language::Js);
}

#[test]
fn scaffolds_in_c_pass_their_own_tests() {
    passes(Language::C);
}

/// An example of the SDK, copied so that nothing is built in the tree.
fn example(folder: &Path, name: &str) -> Package {
    let (from, to) = (root().join("plugin-sdk/examples").join(name), folder.join(name));
    copy(&from, &to);
    Package::open(&to).unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let name = entry.file_name();
        match entry.path().is_dir() {
            true if name == ".fthost" || name == "target" => {}
            true => copy(&entry.path(), &to.join(name)),
            false => drop(std::fs::copy(entry.path(), to.join(name)).unwrap()),
        }
    }
}

/// Answers that no case has, scored by the example `name`.
fn scores(name: &str, language: Language) -> Option<String> {
    if !at_hand(language, &format!("the example in {language} gives the scores of the others")) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = example(folder.path(), name);
    let report = tested(&package);
    assert!(report.passed(), "{report}");
    let rows: Vec<String> = (0..200)
        .map(|it: u64| {
            let (tag, end) = (
                [" <answer>", "<answer>\n", "", "<b>"][it as usize % 4],
                ["</answer>", ""][it as usize / 4 % 2],
            );
            let completion =
                format!("\u{6570} {it}: {tag}{}{end} {}", it / 3, "</answer>".repeat(it as usize % 2));
            let answer =
                ["3", "7", " 11", "\u{e9}"][it as usize / 8 % 4].to_string() + &"1".repeat(it as usize % 3);
            serde_json::json!({"prompt": "?", "completions": [completion, it.to_string()], "answer": answer})
                .to_string()
        })
        .collect();
    let data = folder.path().join("rows.jsonl");
    std::fs::write(&data, rows.join("\n")).unwrap();
    let session = Session::of_package(&package, &cache_dir()).unwrap();
    let trial = Trial {
        data: &data,
        role: Some(RoleKind::Reward),
        config: serde_json::Map::new(),
        rows: 1000,
        batch: 64,
    };
    let trials = try_on(&session, &trial).unwrap();
    assert_eq!(trials.rows.len(), 200);
    Some(trials.rows.iter().map(|it| it.answer.to_string() + "\n").collect())
}

#[test]
fn one_reward_gives_the_same_scores_in_every_language() {
    let all: Vec<(&str, String)> = [
        ("rust", Language::Rust),
        ("python", Language::Python),
        ("javascript", Language::Js),
        ("c", Language::C),
    ]
    .into_iter()
    .filter_map(|(name, language)| Some((name, scores(name, language)?)))
    .collect();
    for (name, scores) in &all {
        assert_eq!(scores, &all[0].1, "{name} against {}", all[0].0);
    }
}

#[test]
fn every_kind_of_difference_is_told() {
    if !at_hand(Language::Rust, "every_kind_of_difference_is_told") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = scaffolded(folder.path(), "tested-wrong", RoleKind::Reward, Language::Rust);
    let source = package.folder.join("src/lib.rs");
    let text = std::fs::read_to_string(&source).unwrap();
    // The score depends on the place in the batch, and an empty answer is a panic.
    let wrong = text.replace(
        "group.completions.iter().map(|it| compare(&it.text, expected.trim())).collect()",
        "assert!(group.completions.iter().all(|it| !it.text.is_empty()), \"an empty answer\");\n        \
         group.completions.iter().map(|it| Score::new(it.text.len() as f64 + SEEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as f64)).collect()",
    ) + "\nstatic SEEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);\n";
    assert_ne!(wrong, text);
    std::fs::write(&source, wrong).unwrap();
    let report = tested(&package);
    assert!(!report.passed());
    insta::assert_snapshot!(report.to_string(), @r#"
    tested-wrong 0.1.0 (reward)
    cases/reward.jsonl
      FAILED  the expected answer
                completion 1
                  expected {"value":1,"components":{"exact":1,"contains":1}}
                  found    {"value":1.0}
                completion 2
                  expected 1
                  found    4.0
      FAILED  an answer that holds it, and one that does not
                completion 1
                  expected 0.5
                  found    8.0
                completion 2
                  expected 0
                  found    2.0
      FAILED  another column
                completion 1
                  expected 1
                  found    3.0
      ok      a row without an expected answer
      ok      a key that is not known
    checks
      ok      the same input gives the same output twice
      ok      a batch of 3 gives what 3 batches of 1 give
      FAILED  the order of a batch changes no answer
                group 1
                  expected [{"value":1.0},{"value":4.0}]
                  found    [{"value":3.0},{"value":6.0}]
                group 2
                  expected [{"value":10.0},{"value":4.0}]
                  found    [{"value":8.0},{"value":2.0}]
      ok      odd input ends no instance
      ok      an unknown key is refused by name
      ok      every reason can be read
    5 cases, 3 failed; 6 checks, 1 failed
    "#);
}

#[test]
fn a_case_that_cant_be_understood_is_named_by_file_and_line() {
    if !at_hand(Language::Rust, "a_case_that_cant_be_understood_is_named_by_file_and_line") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = scaffolded(folder.path(), "tested-cases", RoleKind::Reward, Language::Rust);
    build(&package, &workshop()).unwrap();
    let session = Session::of_package(&package, &cache_dir()).unwrap();
    let file = package.folder.join("cases/reward.jsonl");
    let told: Vec<String> = [
        r#"{"name": "a"}"#,
        r#"{"name": "a", "completions": ["x"], "expected": []}"#,
        r#"{"name": "a", "samples": [], "expected_metrics": {}}"#,
        r#"{"name": "a", "completion": "x"}"#,
        r#"{"name": "#,
    ]
    .into_iter()
    .map(|line| {
        std::fs::write(&file, format!("\n{line}\n")).unwrap();
        let error = test(&package, &session).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string().replace(&format!("{}/", package.folder.display()), "")
    })
    .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    cases/reward.jsonl:2: a case has one of `rows` (data-builder), `examples` (augmenter), `completions` (reward), `samples` (evaluator), or `expected_problem`
    cases/reward.jsonl:2: `expected` has 0 entries for 1 completions
    cases/reward.jsonl:2: a case for evaluator, but the plugin plays reward
    cases/reward.jsonl:2: unknown field `completion`, expected one of `name`, `config`, `role`, `tolerance`, `host`, `random`, `expected_problem`, `prompt`, `completions`, `columns`, `step`, `steps`, `purpose`, `max_tokens`, `expected`, `samples`, `expected_metrics`, `expected_details`, `rows`, `expected_finish`, `examples` at line 1 column 26
    cases/reward.jsonl:2: EOF while parsing a value at line 1 column 9
    ");
}

#[test]
fn a_bench_counts_every_batch() {
    if !at_hand(Language::Rust, "a_bench_counts_every_batch") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = scaffolded(folder.path(), "tested-bench", RoleKind::Reward, Language::Rust);
    build(&package, &workshop()).unwrap();
    let session = Session::of_package(&package, &cache_dir()).unwrap();
    let report = bench(&session, None, &serde_json::Map::new(), Duration::from_millis(20)).unwrap();
    let batches: Vec<usize> = report.batches.iter().map(|it| it.batch).collect();
    assert_eq!(batches, [1, 16, 64, 256]);
    assert!(report.batches.iter().all(|it| it.calls >= 5 && it.call_us > 0.0));
    assert!(report.load_cached_ms < report.load_cold_ms, "{report}");
    eprintln!("{report}");
}

/// The standard plugins' own cases, of those that have some and are built.
#[test]
fn the_standard_plugins_pass_their_cases() {
    let folders = std::fs::read_dir(root().join("plugins")).unwrap().flatten().map(|it| it.path());
    let mut folders: Vec<PathBuf> =
        folders.filter(|it| it.join("plugin.toml").is_file() && it.join("cases").is_dir()).collect();
    folders.sort();
    let mut failed = Vec::new();
    for folder in folders {
        let package = Package::open(&folder).unwrap_or_else(|error| panic!("{error}"));
        if package.built().is_err() {
            eprintln!("SKIPPED: `{}` is not built (plugins/build builds it)", folder.display());
            continue;
        }
        let report = Session::of_package(&package, &cache_dir()).and_then(|it| test(&package, &it));
        match report {
            Ok(report) if report.passed() => {}
            Ok(report) => failed.push(report.to_string()),
            Err(error) => failed.push(format!("{}: {error}", folder.display())),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
