//! A reward and a builder that misbehave as the text of the first completion, or the column `do`, tells them.

use std::hint::black_box;

use fthost_plugin_sdk::{
    Answer, ConfigProblem, Content, DataBuilder, Example, Group, Prompt, Purpose, Reward, Row, Score, export,
    log, model, random, resources,
};

#[derive(Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Refused where negative.
    level: i64,
    /// Whether `configure` traps.
    trap_in_configure: bool,
    /// What to do at every score, whatever the completions say.
    always: Option<String>,
}

struct Hostile {
    always: Option<String>,
}

impl TryFrom<Config> for Hostile {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.trap_in_configure {
            panic!("no configuration pleases this plugin");
        }
        if config.level < 0 {
            return Err(ConfigProblem::new("level", format!("must be >= 0, got `{}`", config.level)));
        }
        Ok(Self { always: config.always })
    }
}

/// Keeps nothing in linear memory: it is the guest's call stack that runs out, not its shadow stack.
#[inline(never)]
fn deep(depth: u64) -> u64 {
    if depth == u64::MAX { 0 } else { deep(depth + 1).wrapping_mul(3) ^ depth }
}

fn whom(how: &str) -> model::Model {
    match how.split_once(' ') {
        Some((_, "reference")) => model::Model::Reference,
        Some((_, "judge")) => model::Model::Judge("big".into()),
        _ => model::Model::Run,
    }
}

fn misbehave(how: &str, group: &Group) -> Vec<Score> {
    let ones = || vec![Score::from(1.0); group.completions.len()];
    match how {
        "loop" => loop {
            black_box(0);
        },
        "memory" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                kept.push(black_box(vec![7; 1 << 20]));
            }
        }
        "panic" => panic!("a plugin author's message"),
        "recurse" => vec![Score::from(deep(black_box(0)) as f64)],
        "output" => vec![Score::error("x".repeat(40 << 20)); group.completions.len()],
        "long" => vec![Score::error("x".repeat(300 << 10)); group.completions.len()],
        "log" => {
            for _ in 0..1000 {
                log::info(&"x".repeat(64 << 10));
            }
            ones()
        }
        "escape" => {
            log::warn("red \u{1b}[31m alert\r\nsecond line");
            ones()
        }
        "nan" => vec![Score::from(f64::NAN); group.completions.len()],
        "count" => Vec::new(),
        "error" => vec![Score::error("this one can't be scored"); group.completions.len()],
        "abstain" => vec![Score::abstain("not my kind of row"); group.completions.len()],
        "random" => {
            group.completions.iter().map(|_| Score::from((random::next_u64() >> 12) as f64)).collect()
        }
        "generate" | "generate reference" | "generate judge" => {
            let sampling = model::Sampling {
                max_new_tokens: 4,
                temperature: 0.0,
                top_p: 1.0,
                completions_per_prompt: 1,
                stop: Vec::new(),
                seed: 1,
            };
            match model::generate(&whom(how), vec![Prompt::Text("judge me".into())], &sampling) {
                Ok(answers) => vec![Score::from(answers[0][0].text.len() as f64); group.completions.len()],
                Err(reason) => vec![Score::error(reason); group.completions.len()],
            }
        }
        "logprobs" => match model::logprobs(&whom(how), vec![(Prompt::Text("a".into()), "b".into())]) {
            Ok(all) => vec![Score::from(all[0].sum); group.completions.len()],
            Err(reason) => vec![Score::error(reason); group.completions.len()],
        },
        "embed" => match model::embed(&whom(how), &["a".into(), "b".into()]) {
            Ok(all) => vec![Score::from(f64::from(all[1][0])); group.completions.len()],
            Err(reason) => vec![Score::error(reason); group.completions.len()],
        },
        "occasion" => {
            let training = f64::from(u8::from(group.purpose == Purpose::Training));
            let score = Score::from(training)
                .with("step", group.step as f64)
                .with("steps", group.steps as f64)
                .with("max_tokens", f64::from(group.max_tokens));
            vec![score; group.completions.len()]
        }
        "calls" => loop {
            random::next_u64();
        },
        "resources" => {
            let sizes: Vec<u64> = resources::available().iter().map(|it| it.size).collect();
            match resources::read_text("words.txt") {
                Ok(text) => vec![
                    Score::from(text.len() as f64).with("files", sizes.len() as f64);
                    group.completions.len()
                ],
                Err(reason) => vec![Score::error(reason); group.completions.len()],
            }
        }
        // Fails until the host has answered often enough.
        "flaky" => match model::embed(&whom(how), &["flaky".into()]) {
            Ok(all) => vec![Score::from(f64::from(all[0][0])); group.completions.len()],
            Err(reason) => vec![Score::error(reason); group.completions.len()],
        },
        "id" => vec![Score::from(group.id as f64); group.completions.len()],
        "work" => {
            let sum = (0..100_000u64).fold(0u64, |sum, it| black_box(sum.wrapping_add(it)));
            vec![Score::from(sum as f64); group.completions.len()]
        }
        _ => ones(),
    }
}

impl Reward for Hostile {
    fn score(&self, group: &Group) -> Vec<Score> {
        let first = group.completions.first().map_or("", |it| it.text.as_str());
        misbehave(self.always.as_deref().unwrap_or(first), group)
    }
}

impl DataBuilder for Hostile {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let how = row.columns.get("do").and_then(|it| it.as_str()).unwrap_or_default();
        let content = Content::PromptCompletion {
            prompt: Prompt::Text("p".into()),
            completion: Answer::Text("c".into()),
        };
        match how {
            "refuse" => Err("this row says no".into()),
            "forge" => Ok(vec![Example { row: row.id + 1_000, content, columns: row.columns.clone() }]),
            "panic" => panic!("a builder's panic"),
            _ => Ok(vec![Example { row: row.id, content, columns: row.columns.clone() }]),
        }
    }
}

export!(data_builder: Hostile from Config, reward: Hostile from Config);
