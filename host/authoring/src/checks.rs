//! What holds for every plugin: the same again gives the same, batches and order change nothing, odd input ends no
//! instance, and what it says can be read.

use fthost_data::{Candidate, Columns, Content, EvalSample, Example, Finish, Group, Origin, Prompt, Record};
use fthost_sandbox::RoleKind;
use serde_json::{Value, json};

use crate::canned::Answers;
use crate::cases::{Case, Kind};
use crate::compare::Difference;
use crate::play::{Items, Player};
use crate::session::Session;
use crate::test::{Outcome, item, play, refused};

/// Longest reason that a person still reads.
const LONGEST_REASON: usize = 2000;

/// Cases of one role and configuration, as one batch.
struct Pile {
    role: RoleKind,
    case: Case,
    items: Items,
}

/// Every check, over the cases that answer for themselves; those with a host's answers are only run twice.
pub(crate) fn all(session: &Session, cases: &[Case]) -> Vec<Outcome> {
    let piles = piles(cases);
    let mut checks =
        vec![checked(session, "the same input gives the same output twice", || same_again(session, cases))];
    let most = piles.iter().map(|it| it.items.len()).max().unwrap_or(0);
    if most > 1 {
        let name = format!("a batch of {most} gives what {most} batches of 1 give");
        checks.push(checked(session, &name, || {
            piles.iter().flat_map(|it| in_batches_of_one(session, it)).collect()
        }));
    }
    let ordered =
        |it: &&Pile| matches!(it.role, RoleKind::Reward | RoleKind::Evaluator) && it.items.len() > 1;
    if piles.iter().any(|it| ordered(&it)) {
        checks.push(checked(session, "the order of a batch changes no answer", || {
            piles.iter().filter(ordered).flat_map(|it| in_another_order(session, it)).collect()
        }));
    }
    checks.push(checked(session, "odd input ends no instance", || odd_input(session, cases)));
    checks.push(checked(session, "an unknown key is refused by name", || {
        refused(session, &columns(json!({"no-such-key": 1})), "no-such-key")
    }));
    checks.push(checked(session, "every reason can be read", || readable(session, cases)));
    checks
}

fn checked(session: &Session, name: &str, check: impl FnOnce() -> Vec<Difference>) -> Outcome {
    session.logged();
    let differences = check();
    Outcome { name: name.to_string(), differences, log: session.logged() }
}

fn piles(cases: &[Case]) -> Vec<Pile> {
    let mut piles: Vec<Pile> = Vec::new();
    for case in cases.iter().filter(|it| it.answers.is_empty() && !it.random) {
        let Kind::Played { role, items, .. } = &case.kind else { continue };
        match piles.iter_mut().find(|it| it.role == *role && it.case.config == case.config) {
            Some(pile) => pile.items.extend(items.clone()),
            None => piles.push(Pile { role: *role, case: case.clone(), items: items.clone() }),
        }
    }
    piles.iter_mut().for_each(|it| it.items.number());
    piles
}

fn same_again(session: &Session, cases: &[Case]) -> Vec<Difference> {
    let mut all = Vec::new();
    for case in cases {
        let Kind::Played { role, items, .. } = &case.kind else { continue };
        let (first, second) = (play(session, case, *role, items), play(session, case, *role, items));
        if let (Ok(first), Ok(second)) = (&first, &second)
            && first != second
        {
            all.push(Difference::new(&case.name, json!(first), json!(second)));
        }
    }
    all
}

/// Differences between two runs over the same items.
fn between(role: RoleKind, one: &[Value], other: &[Value]) -> Vec<Difference> {
    let pairs = one.iter().zip(other).enumerate().filter(|it| it.1.0 != it.1.1);
    pairs
        .map(|(index, (one, other))| Difference::new(format!("{} {}", item(role), index + 1), one, other))
        .collect()
}

fn in_batches_of_one(session: &Session, pile: &Pile) -> Vec<Difference> {
    let Ok((together, end)) = play(session, &pile.case, pile.role, &pile.items) else { return Vec::new() };
    let alone = (|| {
        let plugin = session.load(&pile.case.config).map_err(|error| error.to_string())?;
        let mut player = Player::of(&plugin, pile.role).map_err(|error| error.to_string())?;
        let mut answers = Vec::new();
        for place in 0..pile.items.len() {
            answers.extend(player.play(&pile.items.at(&[place])).map_err(|error| error.to_string())?);
        }
        Ok::<_, String>((answers, player.finish().map_err(|error| error.to_string())?))
    })();
    match alone {
        Err(problem) => vec![Difference::new("batches of 1", "the answers of one batch", problem)],
        Ok((answers, alone_end)) => {
            let mut all = between(pile.role, &together, &answers);
            if end != alone_end {
                all.push(Difference::new("the end", json!(end), json!(alone_end)));
            }
            all
        }
    }
}

fn in_another_order(session: &Session, pile: &Pile) -> Vec<Difference> {
    let backwards: Vec<usize> = (0..pile.items.len()).rev().collect();
    let forwards = play(session, &pile.case, pile.role, &pile.items);
    let reversed = play(session, &pile.case, pile.role, &pile.items.at(&backwards));
    let (Ok((forwards, _)), Ok((mut reversed, _))) = (forwards, reversed) else { return Vec::new() };
    reversed.reverse();
    between(pile.role, &forwards, &reversed)
}

fn columns(value: Value) -> Columns {
    match value {
        Value::Object(columns) => columns,
        _ => Columns::new(),
    }
}

/// Texts that plugins tend to forget.
const ODD: [&str; 7] = [
    "",
    " \n\t",
    "\0\u{7}",
    "\u{1f469}\u{200d}\u{1f680} \u{5d0}\u{5d1} \u{65e5}\u{672c}",
    "{\"a\": [1,",
    "\u{fffd}\u{feff}",
    "\\\"'`$(x)",
];

fn odd_items(role: RoleKind) -> Items {
    let prompt = |it: &str| Prompt::Text(it.into());
    let candidate = |text: String| Candidate { token_count: text.len() as u32, text, finish: Finish::Length };
    let texts = || ODD.iter().map(|it| it.to_string()).chain(["x ".repeat(20_000)]);
    let origin = || Origin { source: "odd".into(), line: 1 };
    let odd = || columns(json!({"answer": null, "text": ["", {}], "\u{e9}": 1e300, "": false}));
    let mut items = match role {
        RoleKind::Reward => {
            let group = |it: String, columns: Columns, completions: Vec<Candidate>| Group {
                id: 0,
                step: 0,
                occasion: Default::default(),
                prompt: prompt(&it),
                completions,
                columns,
            };
            let mut groups: Vec<Group> =
                texts().map(|it| group(it, odd(), texts().map(candidate).collect())).collect();
            groups.push(group("no completions".into(), Columns::new(), Vec::new()));
            Items::Groups(groups)
        }
        RoleKind::Evaluator => {
            let sample = |(index, it): (usize, String)| EvalSample {
                id: 0,
                step: 0,
                steps: 0,
                prompt: prompt(&it),
                reference: (index % 2 == 0).then(|| it.clone()),
                completion: candidate(it),
                columns: odd(),
            };
            Items::Samples(texts().enumerate().map(sample).collect())
        }
        RoleKind::DataBuilder => {
            let row = |it: String| Record {
                columns: columns(json!({"text": it, "question": it, "answer": it})),
                origin: origin(),
            };
            let none = Record { columns: odd(), origin: origin() };
            Items::Rows(texts().map(row).chain([none]).collect())
        }
        RoleKind::Augmenter => {
            let example =
                |content| Example { content, columns: odd(), origin: origin(), provenance: Vec::new() };
            let texts_alone = texts().map(|it| example(Content::Text(it)));
            let pairs = texts().map(|it| {
                let completion = fthost_data::Completion::Text(it.clone());
                example(Content::PromptCompletion { prompt: prompt(&it), completion })
            });
            Items::Examples(texts_alone.chain(pairs).chain([example(Content::Prompt(prompt("")))]).collect())
        }
    };
    items.number();
    items
}

/// The first configuration of each role that a case has, with input that no case thought of. An error in words is an answer.
fn odd_input(session: &Session, cases: &[Case]) -> Vec<Difference> {
    let mut all = Vec::new();
    for role in &session.inspection.roles {
        let of_role = |it: &&Case| matches!(&it.kind, Kind::Played { role: it, .. } if it == role);
        let Some(case) = cases.iter().find(of_role) else { continue };
        // Whoever asks a model is told that there is none.
        let case = Case { answers: Answers::default(), ..case.clone() };
        let ended = match play(session, &case, *role, &odd_items(*role)) {
            Ok((answers, _)) => {
                let failures = answers.iter().flat_map(|it| it.as_array().into_iter().flatten());
                failures
                    .filter_map(|it| it.get("failure").and(it["message"].as_str()))
                    .next()
                    .map(str::to_string)
            }
            Err(problem) if problem.contains(" returned an error: ") => None,
            Err(problem) => Some(problem),
        };
        let ended = ended.filter(|it| !it.contains("which it was not granted"));
        all.extend(
            ended.map(|problem| Difference::new(role.as_str(), "answers, or an error in words", problem)),
        );
    }
    all
}

fn readable(session: &Session, cases: &[Case]) -> Vec<Difference> {
    let mut all = Vec::new();
    for case in cases {
        let Kind::Played { role, items, .. } = &case.kind else { continue };
        let Ok((answers, _)) = play(session, case, *role, items) else { continue };
        let flat = answers.iter().flat_map(|it| it.as_array().map_or(vec![it], |it| it.iter().collect()));
        for answer in flat {
            for key in ["abstain", "error", "bad_row", "drop", "note"] {
                let Some(reason) = answer.get(key).and_then(Value::as_str) else { continue };
                let odd = reason.trim().is_empty()
                    || reason.chars().count() > LONGEST_REASON
                    || reason.chars().any(|it| it.is_control() && it != '\n');
                if odd {
                    all.push(Difference::new(
                        format!("{}, {key}", case.name),
                        "words for a person",
                        json!(reason),
                    ));
                }
            }
        }
    }
    all
}
