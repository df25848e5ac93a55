//! `fthost rollouts`, and the table of completions that a run shows: what was sampled, and what rewards said of it.

use fthost_data::{Candidate, Finish, Outcome, Prompt};
use fthost_run::Result;
use fthost_run::scores::Scores;
use serde_json::{Value, json};

use crate::args::RolloutsArgs;

/// Completions of a table that a run shows.
const SHOWN: usize = 8;
/// Characters of a prompt or completion in a table.
const WIDTH: usize = 60;

/// A completion of a rollout.
struct Row<'a> {
    step: u64,
    group: u64,
    prompt: &'a Prompt,
    completion: &'a Candidate,
    sum: Option<f64>,
    /// By reward.
    outcomes: Vec<(&'a str, &'a Outcome)>,
}

impl Row<'_> {
    fn fits(&self, args: &RolloutsArgs) -> bool {
        let of_plugin = |name: &str| args.plugin.as_ref().is_none_or(|it| it == name);
        let mut asked = self.outcomes.iter().filter(|it| of_plugin(it.0));
        let value = match &args.plugin {
            None => self.sum,
            Some(_) => asked.clone().find_map(|it| it.1.value()),
        };
        let in_range = args.min_reward.is_none_or(|least| value.is_some_and(|it| it >= least))
            && args.max_reward.is_none_or(|most| value.is_some_and(|it| it <= most));
        let outcome = args.outcome.as_ref().is_none_or(|kind| asked.any(|it| it.1.kind() == kind));
        args.step.is_none_or(|it| it == self.step) && in_range && outcome
    }

    fn json(&self) -> Value {
        let outcomes: serde_json::Map<String, Value> =
            self.outcomes.iter().map(|(name, outcome)| ((*name).to_string(), json!(outcome))).collect();
        json!({
            "step": self.step, "group": self.group, "prompt": self.prompt, "completion": self.completion,
            "reward": self.sum, "outcomes": outcomes,
        })
    }

    fn line(&self) -> String {
        let sum = self.sum.map_or("none".to_string(), |it| format!("{it:.3}"));
        let end = match self.completion.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        };
        let mut line = format!(
            "{:>5} {:>6} {:>8} {:>6} {:<6}  {} -> {}",
            self.step,
            self.group,
            sum,
            self.completion.token_count,
            end,
            short(self.prompt.last_turn()),
            short(&self.completion.text)
        );
        for (name, outcome) in &self.outcomes {
            match outcome {
                Outcome::Ok(_) => {}
                Outcome::Abstain { reason } => line += &format!("  [{name} abstained: {reason}]"),
                Outcome::Failed(failure) => line += &format!("  [{name} {failure}]"),
            }
        }
        line
    }
}

/// In one line, its end left out where it is long.
fn short(text: &str) -> String {
    let line = text.trim().replace('\n', "⏎");
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn rows(scores: &Scores) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for (index, group) in scores.groups.iter().enumerate() {
        for (position, completion) in group.group.completions.iter().enumerate() {
            rows.push(Row {
                step: scores.step,
                group: group.group.id,
                prompt: &group.group.prompt,
                completion,
                sum: scores.sums.get(index).and_then(|it| *it.get(position)?),
                outcomes: scores
                    .rewards
                    .iter()
                    .map(|it| (it.plugin.name.as_str(), &it.outcomes[index][position]))
                    .collect(),
            });
        }
    }
    rows
}

const HEAD: &str = " step    row   reward tokens end     prompt -> completion";

/// The completions of a rollout, the first few.
pub fn table(scores: &Scores) -> String {
    let rows = rows(scores);
    let lines = rows.iter().take(SHOWN).map(Row::line);
    std::iter::once(HEAD.to_string()).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Prints the completions of a run that fit what is asked for.
pub fn run(args: &RolloutsArgs) -> Result<()> {
    let all = Scores::rollouts(&args.run)?;
    let mut rows: Vec<Row<'_>> = all.iter().flat_map(rows).filter(|it| it.fits(args)).collect();
    let found = rows.len();
    rows.truncate(args.limit);
    if args.json {
        rows.iter().for_each(|it| println!("{}", it.json()));
        return Ok(());
    }
    println!("{HEAD}");
    rows.iter().for_each(|it| println!("{}", it.line()));
    if found > rows.len() {
        println!("... {} more: `--limit` shows them", found - rows.len());
    }
    Ok(())
}
