//! What a person, or a program, sees of a run.

use std::time::Duration;

use fthost_data::Preview;
use fthost_run::RunError;
use fthost_run::evaluate::Evaluation;
use fthost_run::event::{Event, Plan, Stepped};
use fthost_run::plugins::PluginUsage;
use fthost_run::reference::PrecomputedRows;
use fthost_run::summary::Summary;
use fthost_run::{metrics, performance};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{comparison, rollouts};

/// Skipped rows that are told one by one.
pub const SKIPPED_SHOWN: usize = 5;

/// Prints what a run tells of itself.
pub enum Renderer {
    /// A progress bar; what stays goes above it.
    Terminal(ProgressBar),
    /// A line a step.
    Plain,
    /// A JSON object a line.
    Json,
    /// Nothing.
    Quiet,
}

impl Renderer {
    /// For a terminal.
    pub fn terminal() -> Self {
        Self::Terminal(ProgressBar::hidden())
    }

    /// For a file or a pipe.
    pub fn plain() -> Self {
        Self::Plain
    }

    /// For a program.
    pub fn json() -> Self {
        Self::Json
    }

    /// For nobody.
    pub fn quiet() -> Self {
        Self::Quiet
    }

    /// Something happened.
    pub fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Noted(text) => self.note(text),
            Event::Planned(plan) => {
                self.planned(plan);
                if let Self::Terminal(bar) = self {
                    *bar = ProgressBar::new(plan.steps).with_style(bar_style());
                }
            }
            Event::Previewed(row) => self.previewed(row),
            Event::Resumed { step, checkpoint } => {
                if let Self::Terminal(bar) = self {
                    bar.set_position(step);
                }
                let told = json!({"event": "resumed", "step": step, "checkpoint": checkpoint});
                self.say(told, || format!("resumed after step {step}, from `{}`", checkpoint.display()));
            }
            Event::Stepped(stepped) => self.stepped(stepped),
            Event::Sampled(sampled) => {
                let told = json!({"event": "rollout", "scores": sampled});
                self.say(told, || rollouts::table(sampled));
            }
            Event::Troubled(it) => {
                let mut told = json!(it);
                told["event"] = json!("trouble");
                self.say(told, || {
                    format!(
                        "warning: step {}: {}: {} {:.4}\nhint: {}",
                        it.step, it.sign, it.metric, it.value, it.hint
                    )
                });
            }
            Event::Precomputing { done, rows } => {
                self.busy(format!("asking the reference: {done} of {rows} rows"));
            }
            Event::Precomputed(rows) => {
                let mut told = json!(rows);
                told["event"] = json!("precomputed");
                self.say(told, || precomputed_line(rows));
            }
            Event::Evaluating { rows } => self.busy(format!("evaluating {rows} held-out rows")),
            Event::Evaluated(evaluation) => {
                self.say(evaluation_json(evaluation), || evaluation_line(evaluation));
            }
            Event::Saved { step, checkpoint } => {
                let told = json!({"event": "checkpoint", "step": step, "checkpoint": checkpoint});
                self.say(told, || format!("saved `{}`", checkpoint.display()));
            }
            Event::StoppedEarly { step } => {
                let told = json!({"event": "stopped_early", "step": step});
                self.say(told, || format!("evaluations no longer improve: stopped after step {step}"));
            }
        }
    }

    /// What goes on now and may take long; nothing that stays.
    fn busy(&self, message: String) {
        if let Self::Terminal(bar) = self {
            bar.set_message(message);
            bar.tick();
        }
    }

    /// What a run will do.
    pub fn planned(&self, plan: &Plan) {
        let mut told = json!(plan);
        told["event"] = json!("plan");
        self.say(told, || plan_text(plan));
    }

    /// Something a person should know.
    pub fn note(&self, text: &str) {
        self.say(json!({"event": "note", "text": text}), || text.to_string());
    }

    /// The end.
    pub fn done(&self, summary: &Summary) {
        if let Self::Terminal(bar) = self {
            bar.finish_and_clear();
        }
        let mut told = json!(summary);
        told["event"] = json!("done");
        self.say(told, || summary_text(summary));
    }

    /// The run ended by `error`, which is told on stderr besides.
    pub fn failed(&self, error: &RunError) {
        match self {
            Self::Terminal(bar) => bar.finish_and_clear(),
            Self::Json => {
                let told = json!({
                    "event": "error", "message": error.to_string(), "exit_code": error.exit_code(),
                });
                println!("{told}");
            }
            Self::Plain | Self::Quiet => {}
        }
    }

    fn say(&self, told: Value, text: impl FnOnce() -> String) {
        match self {
            // Lines on stdout, the bar on stderr: the one is taken away while the other is written.
            Self::Terminal(bar) => bar.suspend(|| println!("{}", text())),
            Self::Plain => println!("{}", text()),
            Self::Json => println!("{told}"),
            Self::Quiet => {}
        }
    }

    fn previewed(&self, row: &Preview) {
        let segments: Vec<Value> = row
            .segments
            .iter()
            .map(|it| json!({"text": it.text, "supervised": it.supervised, "tokens": it.tokens}))
            .collect();
        let told = json!({"event": "preview", "origin": row.origin.to_string(), "segments": segments});
        let styled = is_styled(matches!(self, Self::Terminal(_)));
        self.say(told, || format!("{}\n{}", legend(styled), preview(row, styled)));
    }

    fn stepped(&self, it: &Stepped) {
        match self {
            Self::Terminal(bar) => {
                bar.set_position(it.step);
                bar.set_message(format!(
                    "loss {:.4}  {:.0} tokens/s  {} left",
                    it.metrics.loss,
                    it.tokens_per_second,
                    duration(it.left)
                ));
            }
            Self::Plain => println!(
                "step {}/{} loss {:.4} grad_norm {:.3}{} {:.0} tokens/s {} left",
                it.step,
                it.steps,
                it.metrics.loss,
                it.metrics.grad_norm,
                headline(it),
                it.tokens_per_second,
                duration(it.left)
            ),
            Self::Json => {
                let mut told =
                    json!({"event": "step", "step": it.step, "steps": it.steps, "epoch": it.epoch});
                for (name, value) in metrics::figures(it) {
                    told[name] = value;
                }
                told["seconds_left"] = json!(it.left.as_secs_f64());
                for (name, value) in performance::figures(it) {
                    told[name] = value;
                }
                println!("{told}");
            }
            Self::Quiet => {}
        }
    }
}

/// The figure of the objective that a person looks at first.
fn headline(it: &Stepped) -> String {
    let told = ["mean_token_accuracy", "rewards/accuracies", "reward"];
    let told = told.into_iter().find_map(|name| Some(format!(" {name} {:.3}", it.metrics.figure(name)?)));
    told.unwrap_or_default()
}

fn bar_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}");
    style.expect("a constant template").progress_chars("█▉▊▋▌▍▎▏ ")
}

/// Whether colours may be used: not where `NO_COLOR` asks for none (<https://no-color.org>).
pub fn is_styled(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
}

/// How [`preview`] tells supervised text from masked.
pub fn legend(styled: bool) -> &'static str {
    match styled {
        true => "\u{1b}[1;32msupervised\u{1b}[0m, \u{1b}[2mmasked\u{1b}[0m",
        false => "⟦supervised⟧, the rest is masked",
    }
}

/// A row: where it is from and how long, then its text.
pub fn preview(row: &Preview, styled: bool) -> String {
    let cut = if row.kept < row.tokens { format!(", cut from {}", row.tokens) } else { String::new() };
    let mut text = format!("{}: {} tokens{cut}, {} supervised\n", row.origin, row.kept, row.supervised);
    for segment in &row.segments {
        let (open, close) = match (styled, segment.supervised) {
            (true, true) => ("\u{1b}[1;32m", "\u{1b}[0m"),
            (true, false) => ("\u{1b}[2m", "\u{1b}[0m"),
            (false, true) => ("⟦", "⟧"),
            (false, false) => ("", ""),
        };
        text.push_str(open);
        text.push_str(&segment.text);
        text.push_str(close);
    }
    if !row.segments.last().is_some_and(|it| it.text.ends_with('\n')) {
        text.push('\n');
    }
    text
}

fn plan_text(plan: &Plan) -> String {
    let mut lines = vec![format!(
        "model      {} ({} weights, {} trained)",
        plan.model.display(),
        grouped(plan.parameters as u64),
        grouped(plan.trainable_parameters as u64)
    )];
    lines.push(format!(
        "data       {} rows, {} held out, {} skipped; {} tokens, {} supervised",
        grouped(plan.rows as u64),
        grouped(plan.held_out_rows as u64),
        grouped(plan.skipped_rows as u64),
        grouped(plan.tokens as u64),
        grouped(plan.supervised_tokens as u64)
    ));
    for skipped in &plan.skipped {
        lines.push(format!("  skipped  {}: {}", skipped.origin, skipped.reason));
    }
    lines.push(format!("training   {} steps of {}", grouped(plan.steps), work_text(plan)));
    for plugin in &plan.plugins {
        let digest = if plugin.digest.is_empty() { "in process" } else { &plugin.digest };
        lines.push(format!("{:<10} {} {} ({digest})", plugin.role, plugin.name, plugin.version));
    }
    lines.push(format!("output     {}", plan.output.display()));
    lines.join("\n")
}

/// What an optimizer step learns from.
fn work_text(plan: &Plan) -> String {
    match plan.rollout {
        Some((completions, prompts)) => format!(
            "{} completions by {}; {completions} of each of {prompts} prompts a rollout",
            plan.global_batch_size, plan.objective
        ),
        None => format!(
            "{} rows{}; {} {} micro-batches an epoch",
            plan.global_batch_size,
            if plan.objective == "sft" { String::new() } else { format!(" by {}", plan.objective) },
            grouped(plan.micro_batches_per_epoch as u64),
            if plan.packing { "packed" } else { "unpacked" }
        ),
    }
}

fn evaluation_json(evaluation: &Evaluation) -> Value {
    let mut told = json!({"event": "evaluation", "step": evaluation.step});
    for (name, value) in &evaluation.metrics {
        told[name] = json!(value);
    }
    told
}

fn precomputed_line(rows: &PrecomputedRows) -> String {
    let PrecomputedRows { computed, cached, seconds, .. } = rows;
    format!("reference: {computed} rows computed, {cached} read from the cache, in {seconds:.1} s")
}

fn evaluation_line(evaluation: &Evaluation) -> String {
    let figures: Vec<String> =
        evaluation.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
    format!("evaluation after step {}: {}", evaluation.step, figures.join(" "))
}

fn summary_text(summary: &Summary) -> String {
    let mut lines = vec![format!(
        "{} rows, {} held out, {} skipped; {} steps",
        summary.rows, summary.held_out_rows, summary.skipped_rows, summary.steps
    )];
    if let Some(comparison) = &summary.comparison {
        lines.extend([String::new(), comparison::text(comparison), String::new()]);
    }
    if let Some(best) = &summary.best {
        let kept = best.checkpoint.as_ref().map(|it| format!(", kept as `{}`", it.display()));
        lines.push(format!(
            "best {} {:.4} after step {}{}",
            best.metric,
            best.value,
            best.step,
            kept.unwrap_or_default()
        ));
    }
    let memory = summary.peak_rss_bytes.map_or(String::new(), |it| format!(", {} MiB at most", it >> 20));
    lines.push(format!(
        "{} in {}, {:.0} tokens/s{memory}",
        format_args!("{} tokens", grouped(summary.num_tokens)),
        duration(Duration::from_secs_f64(summary.seconds)),
        summary.tokens_per_second
    ));
    lines.extend(summary.plugins.iter().map(plugin_text));
    lines.push(format!("result: {}", summary.result.display()));
    lines.join("\n")
}

/// What a plugin did and what it took.
fn plugin_text(it: &PluginUsage) -> String {
    let usage = &it.usage;
    let mut text = format!(
        "plugin {}: {} items in {} calls, {:.3} s",
        it.plugin.name, usage.items, usage.calls, usage.guest_s
    );
    if usage.host_s > 0.0 {
        text += &format!(" and {:.1} s of models", usage.host_s);
    }
    if usage.fuel > 0 {
        text += &format!(", {} fuel", grouped(usage.fuel));
    }
    let outcomes: Vec<String> =
        usage.outcomes.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if !outcomes.is_empty() {
        text += &format!("; {}", outcomes.join(", "));
    }
    text
}

/// `1h02m`, `3m05s` or `7s`.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Thousands apart: `134,515,008`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_short() {
        let seconds = |it| duration(Duration::from_secs(it));
        assert_eq!([seconds(7), seconds(185), seconds(3725)], ["7s", "3m05s", "1h02m"]);
        assert_eq!([grouped(999), grouped(1_000), grouped(134_515_008)], ["999", "1,000", "134,515,008"]);
    }
}
