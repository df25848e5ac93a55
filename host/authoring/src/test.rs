//! `fthost plugin test`: the cases of a package, and what holds for every plugin.

use std::fmt::{self, Write as _};

use fthost_data::Columns;
use fthost_sandbox::{RoleKind, SandboxError};
use serde::Serialize;
use serde_json::Value;

use crate::cases::{self, Case, Kind};
use crate::checks;
use crate::compare::{self, Difference};
use crate::error::{AuthorError, Result};
use crate::package::Package;
use crate::play::{Items, Player};
use crate::session::Session;

/// What came of testing a package.
#[derive(Debug, Clone, Serialize)]
pub struct TestReport {
    /// The plugin's own name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// The roles it plays.
    pub roles: Vec<RoleKind>,
    /// `sha256:<hex>` of the component.
    pub digest: String,
    /// Each file with its cases, in order.
    pub files: Vec<(String, Vec<Outcome>)>,
    /// What holds for every plugin.
    pub checks: Vec<Outcome>,
}

/// What came of a case or a check.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The case's name, or what the check holds.
    pub name: String,
    /// Nothing where it passed.
    pub differences: Vec<Difference>,
    /// What the plugin logged meanwhile.
    pub log: Vec<String>,
}

impl Outcome {
    /// Whether everything was as expected.
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

impl TestReport {
    /// Cases, and how many of them failed.
    pub fn cases(&self) -> (usize, usize) {
        let all = self.files.iter().flat_map(|it| &it.1);
        (all.clone().count(), all.filter(|it| !it.passed()).count())
    }

    /// Whether every case and every check passed.
    pub fn passed(&self) -> bool {
        self.cases().1 == 0 && self.checks.iter().all(Outcome::passed)
    }
}

impl fmt::Display for TestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<&str> = self.roles.iter().map(|it| it.as_str()).collect();
        writeln!(f, "{} {} ({})", self.name, self.version, roles.join(", "))?;
        for (file, outcomes) in &self.files {
            writeln!(f, "{file}\n{}", listed(outcomes))?;
        }
        if !self.checks.is_empty() {
            writeln!(f, "checks\n{}", listed(&self.checks))?;
        }
        let (cases, failed) = self.cases();
        let checks = self.checks.iter().filter(|it| !it.passed()).count();
        write!(f, "{cases} cases, {failed} failed; {} checks, {checks} failed", self.checks.len())
    }
}

fn listed(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        let word = if outcome.passed() { "ok    " } else { "FAILED" };
        writeln!(text, "  {word}  {}", outcome.name).expect("a string grows");
        for it in &outcome.differences {
            let lines = format!("{}\n  expected {}\n  found    {}", it.place, it.expected, it.found);
            let indented = lines.lines().map(|it| format!("            {it}\n"));
            text.extend(indented);
        }
        if !outcome.passed() {
            text.extend(outcome.log.iter().map(|it| format!("            log {it}\n")));
        }
    }
    text.trim_end().to_string()
}

/// Runs every case of the package, and the checks.
///
/// # Errors
/// A package that can't be loaded, a case that can't be understood, and a package without cases.
pub fn test(package: &Package, session: &Session) -> Result<TestReport> {
    let files = package.case_files()?;
    if files.is_empty() {
        return Err(AuthorError::Usage {
            problem: format!("`{}` has no cases", package.folder.display()),
            hint: "write `cases/<any name>.jsonl`: one object a line, with `name`, what is given and what is expected".into(),
        });
    }
    let (mut told, mut all) = (Vec::new(), Vec::new());
    for path in files {
        let cases = cases::read(&path, &session.inspection.roles)?;
        let outcomes = cases.iter().map(|it| run(session, it)).collect();
        let name = path.strip_prefix(&package.folder).unwrap_or(&path).display().to_string();
        told.push((name, outcomes));
        all.extend(cases);
    }
    let description = &session.inspection.description;
    Ok(TestReport {
        name: description.name.clone(),
        version: description.version.clone(),
        roles: session.inspection.roles.clone(),
        digest: session.inspection.digest.clone(),
        files: told,
        checks: checks::all(session, &all),
    })
}

fn run(session: &Session, case: &Case) -> Outcome {
    session.logged();
    let differences = match &case.kind {
        Kind::Refused(key) => refused(session, &case.config, key),
        Kind::Played { role, items, expected, end } => match play(session, case, *role, items) {
            Err(problem) => vec![Difference::new("the plugin", "an answer", problem)],
            Ok((answers, last)) => {
                let found =
                    expected.as_ref().map(|it| compare::answers(item(*role), it, &answers, case.tolerance));
                let mut all = found.unwrap_or_default();
                match (role, end) {
                    (RoleKind::Evaluator, Some(end)) => {
                        all.extend(compare::metrics(end, &last, case.tolerance))
                    }
                    (_, Some(end)) => {
                        all.extend(compare::answers(
                            "finish",
                            std::slice::from_ref(end),
                            &[Value::Array(last)],
                            case.tolerance,
                        ));
                    }
                    (_, None) => {}
                }
                all
            }
        },
    };
    Outcome { name: case.name.clone(), differences, log: session.logged() }
}

/// Answers, and what comes at the end; in words what went wrong.
pub(crate) type Played = std::result::Result<(Vec<Value>, Vec<Value>), String>;

/// One instance of its own plays the items in one batch.
pub(crate) fn play(session: &Session, case: &Case, role: RoleKind, items: &Items) -> Played {
    let plugin = session.load_with(&case.config, &case.answers).map_err(|error| error.to_string())?;
    let mut player = Player::of(&plugin, role).map_err(|error| error.to_string())?;
    let answers = player.play(items).map_err(|error| error.to_string())?;
    let last = player.finish().map_err(|error| error.to_string())?;
    Ok((answers, last))
}

pub(crate) fn item(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Reward => "group",
        RoleKind::Evaluator => "sample",
        RoleKind::DataBuilder => "row",
        RoleKind::Augmenter => "example",
    }
}

/// The configuration is to be refused, and the refusal to name `key`.
pub(crate) fn refused(session: &Session, config: &Columns, key: &str) -> Vec<Difference> {
    let wanted = format!("a problem of the key `{key}`");
    match session.load(config) {
        Ok(_) => vec![Difference::new("the configuration", wanted, "it was accepted")],
        Err(SandboxError::Config { problems, .. }) => {
            let dot = if key.is_empty() { "" } else { "." };
            let named = format!("`plugins.{}.config{dot}{key}`", session.name);
            match problems.iter().any(|it| it.contains(&named)) {
                true => Vec::new(),
                false => vec![Difference::new("the configuration", wanted, problems.join("; "))],
            }
        }
        Err(other) => vec![Difference::new("the configuration", wanted, other)],
    }
}
