//! Figures of a rollout, under TRL's names.

use fthost_data::{Finish, Outcome};

use super::RolledGroup;
use crate::judge::{deviation, mean};
use crate::scores::Scores;

/// Lengths of completions in tokens, their ends counted: all, those that ended by themselves, and how many did not.
pub(crate) fn completion_figures(groups: &[RolledGroup]) -> Vec<(String, f64)> {
    let (mut all, mut ended) = (Vec::new(), Vec::new());
    for completion in groups.iter().flat_map(|it| &it.completions) {
        let length = (completion.token_ids.len() + usize::from(completion.end.is_some())) as f64;
        all.push(length);
        if completion.finish == Finish::Stop {
            ended.push(length);
        }
    }
    let clipped = 1.0 - ended.len() as f64 / all.len().max(1) as f64;
    let mut figures = lengths("", &all);
    figures.push(("completions/clipped_ratio".to_string(), clipped));
    figures.extend(lengths("_terminated", &ended));
    figures
}

fn lengths(which: &str, lengths: &[f64]) -> Vec<(String, f64)> {
    if lengths.is_empty() {
        return Vec::new();
    }
    let least = lengths.iter().copied().fold(f64::INFINITY, f64::min);
    let most = lengths.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let named = [("mean", mean(lengths)), ("min", least), ("max", most)];
    named.map(|(name, value)| (format!("completions/{name}{which}_length"), value)).to_vec()
}

/// Mean and spread of each reward over the completions that it scored, of its components, and how often it had another
/// outcome.
pub(crate) fn reward_figures(scores: &Scores) -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    for reward in &scores.rewards {
        let name = &reward.plugin.name;
        let (mut values, mut parts) = (Vec::new(), Vec::<(&str, Vec<f64>)>::new());
        for outcome in reward.outcomes.iter().flatten() {
            let Outcome::Ok(score) = outcome else { continue };
            values.push(score.value);
            for (part, value) in &score.components {
                match parts.iter_mut().find(|it| it.0 == part) {
                    Some((_, values)) => values.push(*value),
                    None => parts.push((part, vec![*value])),
                }
            }
        }
        if !values.is_empty() {
            figures.push((format!("rewards/{name}/mean"), mean(&values)));
            figures.push((format!("rewards/{name}/std"), deviation(&values)));
        }
        figures.extend(parts.iter().map(|(part, values)| (format!("rewards/{name}/{part}"), mean(values))));
    }
    for (outcome, count) in scores.outcome_counts() {
        let (name, kind) = outcome.rsplit_once(' ').unwrap_or((&outcome, ""));
        if kind != "ok" {
            figures.push((format!("rewards/{name}/outcomes/{kind}"), count as f64));
        }
    }
    figures
}
