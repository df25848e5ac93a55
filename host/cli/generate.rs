//! `fthost generate`: a model's answers.

use std::io::{BufWriter, Write, stdout};

use fthost_run::generate::{self, Answer, GenerateConfig, GenerateRequest, PromptSource};
use fthost_run::{Result, RunError, models};
use serde_json::json;

use crate::args::GenerateArgs;

/// Answers every prompt and prints the answers.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let prompts = match &args.file {
        Some(file) => PromptSource::File(file.clone()),
        None => PromptSource::Texts { texts: args.prompts.clone(), raw: args.raw },
    };
    let answers = generate::run(&GenerateRequest {
        model: args.model.clone().map_or_else(models::embedded::unpack, Ok)?,
        adapters: args.adapters.clone(),
        prompts,
        system: args.system.clone(),
        config: config(args),
        max_batch: args.batch_size,
        weights: args.weights.into(),
        device: args.device.into(),
    })?;
    let print = if args.json { print_json } else { print_text };
    let mut out = BufWriter::new(stdout().lock());
    let printed = print(&mut out, &answers).and_then(|()| out.flush());
    printed.map_err(|source| RunError::Output { path: "standard output".into(), source })
}

fn config(args: &GenerateArgs) -> GenerateConfig {
    let usual = GenerateConfig::default();
    GenerateConfig {
        max_new_tokens: args.max_new_tokens.unwrap_or(usual.max_new_tokens),
        temperature: args.temperature.unwrap_or(usual.temperature),
        top_k: args.top_k.unwrap_or(usual.top_k),
        top_p: args.top_p.unwrap_or(usual.top_p),
        min_p: args.min_p.unwrap_or(usual.min_p),
        repetition_penalty: args.repetition_penalty.unwrap_or(usual.repetition_penalty),
        stop: args.stop.clone(),
        seed: args.seed.unwrap_or(usual.seed),
        completions_per_prompt: args.n.unwrap_or(usual.completions_per_prompt),
        first_prompt: 0,
    }
}

/// One answer stands alone; several have a heading each.
fn print_text(out: &mut dyn Write, answers: &[Answer]) -> std::io::Result<()> {
    let alone = answers.iter().map(|it| it.completions.len()).sum::<usize>() == 1;
    for (prompt, answer) in answers.iter().enumerate() {
        for (index, completion) in answer.completions.iter().enumerate() {
            if !alone {
                writeln!(out, "--- prompt {}, completion {}", prompt + 1, index + 1)?;
            }
            writeln!(out, "{}", completion.text)?;
        }
    }
    Ok(())
}

fn print_json(out: &mut dyn Write, answers: &[Answer]) -> std::io::Result<()> {
    for answer in answers {
        for completion in &answer.completions {
            let line = json!({
                "prompt": answer.prompt,
                "text": completion.text,
                "tokens": completion.token_ids,
                "finish": completion.finish,
            });
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
