//! `fthost eval`: the held-out rows of a run file, without training.

use fthost_run::{Result, eval};
use serde_json::json;

use crate::args::EvalArgs;
use crate::plugin;

/// Evaluates and prints the figures, and answers where asked.
pub fn run(args: &EvalArgs) -> Result<()> {
    let config = plugin::config(&args.file)?;
    let mut plugins = plugin::load(&config, &args.file.file, args.locked)?;
    let (evaluation, judgement) = eval::run(&config, &mut plugins, &args.adapters, args.device.into())?;
    let answers = judgement.map(|it| it.answers).unwrap_or_default();
    let shown = answers.len().min(args.answers);
    if args.json {
        println!("{}", json!({"metrics": evaluation.metrics, "answers": answers[..shown]}));
        return Ok(());
    }
    let width = evaluation.metrics.iter().map(|it| it.0.len()).max().unwrap_or(0);
    for (name, value) in &evaluation.metrics {
        println!("{name:width$}  {value:>10.4}");
    }
    for answer in &answers[..shown] {
        println!("\nasked     {}", answer.prompt.trim().replace('\n', "\n          "));
        if let Some(reference) = &answer.reference {
            println!("expected  {reference}");
        }
        println!("answer    {}", answer.answer.text.trim().replace('\n', "\n          "));
        let said =
            answer.scores.iter().chain(&answer.values).map(|(name, value)| format!("{name} {value:.3}"));
        let said: Vec<String> = said.chain(answer.notes.iter().cloned()).collect();
        println!("          {}", said.join(", "));
    }
    Ok(())
}
