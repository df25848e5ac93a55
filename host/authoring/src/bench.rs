//! `fthost plugin bench`: what a plugin costs, from loading to the largest batch.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use fthost_data::{Candidate, Columns, Content, EvalSample, Example, Finish, Group, Origin, Prompt, Record};
use fthost_sandbox::RoleKind;
use serde::Serialize;
use serde_json::json;

use crate::error::Result;
use crate::play::{Items, Player};
use crate::session::Session;
use crate::trial::role;

/// Items a call.
const BATCHES: [usize; 4] = [1, 16, 64, 256];

/// Bytes of an item's text.
const BYTES: usize = 1024;

/// Items that share a prompt, for rewards.
const GROUP: usize = 8;

/// What one batch size costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BatchCost {
    /// Items a call.
    pub batch: usize,
    /// Calls that were timed.
    pub calls: u32,
    /// Median over the calls, in microseconds.
    pub call_us: f64,
    /// Median over the calls, divided by the items, in microseconds.
    pub item_us: f64,
    /// Calls a second, at the median.
    pub calls_per_s: f64,
}

/// What a plugin costs on this machine, at this time.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// The role that was timed.
    pub role: RoleKind,
    /// Loading with compilation, in milliseconds.
    pub load_cold_ms: f64,
    /// Loading what the cache holds, in milliseconds: the best of five.
    pub load_cached_ms: f64,
    /// A fresh instance and its first call of one item, in milliseconds: the best of five.
    pub first_call_ms: f64,
    /// By batch size.
    pub batches: Vec<BatchCost>,
}

/// Times the component; `budget` is spent on each batch size.
///
/// # Errors
/// A component or configuration that is refused, and a call that fails.
pub fn bench(
    session: &Session,
    asked: Option<RoleKind>,
    config: &Columns,
    budget: Duration,
) -> Result<BenchReport> {
    let role = role(&session.inspection.roles, asked)?;
    let scratch = tempfile::tempdir().map_err(crate::error::io("write", Path::new("a temporary folder")))?;
    let load = || -> Result<f64> {
        let began = Instant::now();
        let fresh = Session::of_component(&session.component, scratch.path())?;
        fresh.load(config)?;
        Ok(ms(began.elapsed()))
    };
    let load_cold_ms = load()?;
    let load_cached_ms = best((0..5).map(|_| load()))?;
    let plugin = session.load(config)?;
    let one = items(role, 1);
    let first_call_ms = best((0..5).map(|_| {
        let began = Instant::now();
        Player::of(&plugin, role)?.play(&one)?;
        Ok(ms(began.elapsed()))
    }))?;
    let mut batches = Vec::new();
    for batch in BATCHES {
        let (items, mut player) = (items(role, batch), Player::of(&plugin, role)?);
        player.play(&items)?;
        let (mut times, began) = (Vec::new(), Instant::now());
        while times.len() < 5 || began.elapsed() < budget {
            let began = Instant::now();
            player.play(&items)?;
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let call_us = times[times.len() / 2];
        let (item_us, calls_per_s) = (call_us / batch as f64, 1e6 / call_us);
        batches.push(BatchCost { batch, calls: times.len() as u32, call_us, item_us, calls_per_s });
    }
    Ok(BenchReport { role, load_cold_ms, load_cached_ms, first_call_ms, batches })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn best(times: impl Iterator<Item = Result<f64>>) -> Result<f64> {
    let times: Vec<f64> = times.collect::<Result<_>>()?;
    Ok(times.into_iter().fold(f64::INFINITY, f64::min))
}

fn items(role: RoleKind, count: usize) -> Items {
    let text = |index: usize| {
        let words = format!("Answer {index}: the sum of {index} and 1 is {}. ", index + 1);
        words.chars().cycle().take(BYTES).collect::<String>()
    };
    let candidate = |index| Candidate { text: text(index), token_count: 256, finish: Finish::Stop };
    let columns = || match json!({"answer": "42", "question": "What is 41 + 1?", "text": "41 + 1 is 42."}) {
        serde_json::Value::Object(columns) => columns,
        _ => Columns::new(),
    };
    let prompt = || Prompt::Text("What is 41 + 1?".into());
    let origin = || Origin { source: "bench".into(), line: 1 };
    let mut items = match role {
        RoleKind::Reward => {
            let group = |(id, completions): (u64, &[usize])| Group {
                id,
                step: 0,
                occasion: Default::default(),
                prompt: prompt(),
                completions: completions.iter().map(|it| candidate(*it)).collect(),
                columns: columns(),
            };
            let all: Vec<usize> = (0..count).collect();
            Items::Groups((0..).zip(all.chunks(GROUP)).map(group).collect())
        }
        RoleKind::Evaluator => {
            let sample = |index| EvalSample {
                id: 0,
                step: 0,
                steps: 0,
                prompt: prompt(),
                completion: candidate(index),
                reference: Some(text(index / 2)),
                columns: columns(),
            };
            Items::Samples((0..count).map(sample).collect())
        }
        RoleKind::DataBuilder => {
            let row = |index| {
                let mut columns = columns();
                columns.insert("text".into(), json!(text(index)));
                Record { columns, origin: origin() }
            };
            Items::Rows((0..count).map(row).collect())
        }
        RoleKind::Augmenter => {
            let example = |index| {
                let completion = fthost_data::Completion::Text(text(index));
                let content = Content::PromptCompletion { prompt: prompt(), completion };
                Example { content, columns: columns(), origin: origin(), provenance: Vec::new() }
            };
            Items::Examples((0..count).map(example).collect())
        }
    };
    items.number();
    items
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "load, compiling       {:>10.2} ms", self.load_cold_ms)?;
        writeln!(f, "load, from the cache  {:>10.2} ms", self.load_cached_ms)?;
        writeln!(f, "instance, first call  {:>10.2} ms", self.first_call_ms)?;
        let unit = match self.role {
            RoleKind::Reward => "completion",
            RoleKind::Evaluator => "sample",
            RoleKind::DataBuilder => "row",
            RoleKind::Augmenter => "example",
        };
        write!(
            f,
            "{:>8}  {:>12}  {:>16}  {:>10}",
            "batch",
            "\u{b5}s a call",
            format!("\u{b5}s a {unit}"),
            "calls/s"
        )?;
        for it in &self.batches {
            write!(
                f,
                "\n{:>8}  {:>12.1}  {:>16.2}  {:>10.0}",
                it.batch, it.call_us, it.item_us, it.calls_per_s
            )?;
        }
        Ok(())
    }
}
