//! `fthost replay`, `fthost rescore` and `fthost plugin audit`: what a run's plugins did, looked at afterwards.

use std::path::Path;

use fthost_data::Outcome;
use fthost_run::audit::{self, AuditedPlugin};
use fthost_run::packages::Packages;
use fthost_run::replay::{self, Difference, Rescored};
use fthost_run::standard::search_path;
use fthost_run::{Result, RunError};
use serde_json::json;

use crate::args::{ReplayArgs, RescoreArgs};
use crate::plugin::log;

/// Scores again and fails where a score is another.
pub fn replay(args: &ReplayArgs) -> Result<()> {
    let found = replay::replay(&args.run, &search_path(&args.run)?, args.device.into(), log())?;
    print(&found, args.json);
    let (changed, scored) = found.iter().fold((0, 0), |sum, it| (sum.0 + it.changed, sum.1 + it.scored));
    if changed > 0 {
        return Err(RunError::ScoresDiffer { changed, scored });
    }
    Ok(())
}

/// Scores by other rewards and tells the differences.
pub fn rescore(args: &RescoreArgs) -> Result<()> {
    let packages = Packages::around(Path::new(""))?;
    let others = replay::others(&args.plugins, &packages, &search_path(&args.run)?)?;
    print(&replay::rescore(&args.run, &others, args.device.into(), log())?, args.json);
    Ok(())
}

fn print(found: &[Rescored], as_json: bool) {
    if as_json {
        println!("{:#}", json!(found));
        return;
    }
    found.iter().for_each(|it| println!("{}", text(it)));
}

fn text(it: &Rescored) -> String {
    let short = |digest: &str| digest.chars().take("sha256:".len() + 12).collect::<String>();
    let mut lines = vec![match it.before == it.after {
        true => format!("{} {} ({})", it.before.name, it.before.version, short(&it.before.digest)),
        false => format!(
            "{} {} ({}) -> {} {} ({})",
            it.before.name,
            it.before.version,
            short(&it.before.digest),
            it.after.name,
            it.after.version,
            short(&it.after.digest)
        ),
    }];
    lines.push(format!("  {} of {} completions have another outcome", it.changed, it.scored));
    let mean = |mean: Option<f64>| mean.map_or("none".to_string(), |it| format!("{it:.4}"));
    lines.push(format!("  mean          {} -> {}", mean(it.mean_before), mean(it.mean_after)));
    if it.before != it.after || it.changed > 0 {
        lines.push(format!("  correlation   {}", mean(it.correlation)));
        lines.push(format!("  pairs turned  {} of {}", it.turned_pairs, it.ordered_pairs));
    }
    lines.extend(it.differences.iter().map(difference));
    if it.changed > it.differences.len() {
        lines.push(format!("  ... {} more", it.changed - it.differences.len()));
    }
    lines.join("\n")
}

fn difference(it: &Difference) -> String {
    let outcome = |it: &Outcome| match it {
        Outcome::Ok(score) => score.value.to_string(),
        Outcome::Abstain { reason } => format!("abstained ({reason})"),
        Outcome::Failed(failure) => format!("failed ({failure})"),
    };
    format!(
        "  step {}, group {}, completion {}: {} -> {}",
        it.step,
        it.group,
        it.completion,
        outcome(&it.before),
        outcome(&it.after)
    )
}

/// Every plugin of a run: who, what it was granted and used, which limits it hit, its scores.
pub fn audit(folder: &Path, as_json: bool) -> Result<()> {
    let audited = audit::read(folder)?;
    if as_json {
        println!("{:#}", json!(audited));
        return Ok(());
    }
    if audited.is_empty() {
        println!("the run used no plugins");
    }
    audited.iter().for_each(|it| println!("{}", audited_text(it)));
    Ok(())
}

fn audited_text(it: &AuditedPlugin) -> String {
    let (plugin, usage) = (&it.usage.plugin, &it.usage.usage);
    let list = |all: Vec<String>| if all.is_empty() { "none".to_string() } else { all.join(", ") };
    let granted =
        [("generate", &it.grants.generate), ("logprobs", &it.grants.logprobs), ("embed", &it.grants.embed)];
    let granted =
        granted.iter().flat_map(|(import, models)| models.0.iter().map(move |it| format!("{import}({it})")));
    let used = usage.asked.iter().map(|(import, count)| format!("{import} {count}x")).collect();
    let limits = usage.limits_hit().map(|(kind, count)| format!("{kind} {count}x")).collect();
    let outcomes = usage.outcomes.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let files = it.resources.iter().map(|(name, digest)| format!("{name} ({digest})")).collect();
    let mut lines = vec![
        format!("{} {} ({}, contract {})", plugin.name, plugin.version, it.roles.join(", "), it.contract),
        format!("  digest    {}", plugin.digest),
        format!("  signer    {}", it.signer.as_deref().unwrap_or("none: not signed")),
        format!("  granted   {}", list(granted.collect())),
        format!("  used      {}", list(used)),
        format!("  files     {}", list(files)),
        format!("  limits    {}", list(limits)),
        format!("  outcomes  {}", list(outcomes)),
    ];
    if let Some(scores) = it.scores {
        let (mean, min, max) = (scores.mean, scores.min, scores.max);
        lines.push(format!("  scores    {} of mean {mean:.4} (from {min:.4} to {max:.4})", scores.count));
    }
    lines.join("\n")
}
