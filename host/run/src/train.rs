//! Supervised fine-tuning, from files to an adapter or a whole model.

use std::path::PathBuf;
use std::sync::Arc;

use fthost_data::sampler::Windows;
use fthost_data::{Preview, Tokenizer};
use fthost_engine::adapters::merge::save_merged;
use fthost_engine::adapters::{attach_lora, peft};
use fthost_engine::checkpoint::training::DataPosition;
use fthost_engine::checkpoint::{load_model, load_model_to_train};
use fthost_engine::device::{self, DeviceKind};
use fthost_engine::models::{CausalLm, Parameter};
use fthost_engine::optim::AdamW;
use fthost_engine::train::memory::peak_rss_bytes;
use fthost_engine::train::{StepConfig, TrainState, step};

use crate::config::{Adapter, RunConfig};
use crate::course::Course;
use crate::digest::ModelDigest;
use crate::error::{Result, RunError};
use crate::evaluate::HeldOutRows;
use crate::event::{Event, Plan, PlannedPlugin, Stepped};
use crate::interrupt::Interrupt;
use crate::judge::{Judge, JudgeSettings};
use crate::metrics::MetricSink;
use crate::plugins::{Lease, Lent, Plugins};
use crate::prefetch::Prefetch;
use crate::rows::Rows;
use crate::settings::Settings;
use crate::summary::{Pace, Summary};
use crate::{audit, lock, models};

/// Skipped rows that a plan shows.
const SKIPPED_SHOWN: usize = 5;

/// How a run is run: what does not change its result.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Where to compute.
    pub device: DeviceKind,
    /// Go on from the newest checkpoint in the output folder.
    pub resume: bool,
    /// Remove an earlier run's checkpoints from the output folder.
    pub overwrite: bool,
    /// Ends the run after the step in work.
    pub interrupt: Interrupt,
}

/// Runs the whole recipe; `observe` is told of everything as it happens.
///
/// # Errors
/// Everything [`RunError`] knows.
pub fn run(
    config: &RunConfig,
    plugins: &mut Plugins,
    options: &RunOptions,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Summary> {
    let config = &models::found(config)?;
    let base_digest = ModelDigest::start(config.model.folder());
    let Prepared { tokenizer, mut rows, mut state, plan, settings, notes } =
        prepare(config, plugins, options.device)?;
    notes.iter().for_each(|it| observe(Event::Noted(it)));
    observe(Event::Planned(&plan));
    observe(Event::Previewed(&Preview::new(&rows.sample, &tokenizer, config.data.max_length)?));

    let folder = &config.output.dir;
    let base_digest = base_digest.wait()?;
    let mut course = Course::new(config, &settings, plan.rows, base_digest.clone());
    let mut metrics = if options.resume {
        let checkpoint = course.resume(&mut state, &settings)?;
        observe(Event::Resumed { step: state.step, checkpoint: &checkpoint });
        MetricSink::resume(folder, state.step, course.progress.evaluated)?
    } else {
        course.clear(options.overwrite)?;
        settings.write(folder)?;
        MetricSink::create(folder)?
    };
    let held_out = HeldOutRows::new(std::mem::take(&mut rows.examples), &rows.held_out, config.layout());
    let asking = JudgeSettings { eval: &config.eval, judges: &config.judges, device: options.device };
    let mut judge = Judge::new(plugins, &tokenizer, asking, &held_out.examples)?;
    let DataPosition { epoch, rows: seen } = course.progress.data;
    let windows = Windows::resume(plan.rows, plan.global_batch_size, config.train.seed, epoch, seen as usize);
    let mut windows = Prefetch::start(Arc::clone(&rows.train), config.layout(), windows);
    let mut pace = Pace::start(state.step, plan.steps);

    loop {
        if let Some(signal) = options.interrupt.signal() {
            let checkpoint = course.save(&mut state)?;
            return Err(RunError::Interrupted { signal, step: state.step, checkpoint });
        }
        let mut improved = false;
        if config.eval.is_due(state.step, plan.steps) && course.progress.evaluated != Some(state.step) {
            pace.pause();
            observe(Event::Evaluating { rows: held_out.examples.len() });
            if let Some(mut evaluation) = held_out.evaluate(&state)? {
                if let Some(judgement) = judge.judge(&state.model, state.step)? {
                    judgement.write(folder)?;
                    metrics.judged(state.step, &judgement.usage)?;
                    evaluation.add(&judgement);
                }
                improved = course.judge(&evaluation);
                metrics.evaluated(&evaluation, course.epoch())?;
                observe(Event::Evaluated(&evaluation));
            }
        }
        if course.is_checkpoint_due(state.step, improved) {
            pace.pause();
            let checkpoint = course.save(&mut state)?;
            observe(Event::Saved { step: state.step, checkpoint: &checkpoint });
        }
        if state.step >= plan.steps {
            break;
        }
        if course.stopped_early() {
            observe(Event::StoppedEarly { step: state.step });
            break;
        }
        pace.resume();
        let Some(window) = windows.next_window() else { break };
        let step_config = step_config(config, state.step, plan.steps);
        let done = step(&mut state, &window.batches, &step_config)?;
        course.advance(window.position, done.num_tokens);
        let (tokens_per_second, left) = pace.step(done.num_tokens, window.waited);
        let stepped = Stepped {
            step: state.step,
            steps: plan.steps,
            epoch: course.epoch(),
            num_tokens: course.progress.num_tokens,
            metrics: done,
            tokens_per_second,
            left,
            elapsed: pace.last_step(),
            data_loading: window.waited,
            peak_rss_bytes: peak_rss_bytes(),
        };
        metrics.stepped(&stepped)?;
        observe(Event::Stepped(&stepped));
    }

    let result = save(&mut state, config)?;
    lock::write(config, plugins, &plan.data_digest, &base_digest, &result)?;
    audit::write(plugins, folder)?;
    let summary = Summary::new(&plan, &course, &state, metrics.evaluations(), &pace, plugins, result);
    summary.write(folder)?;
    Ok(summary)
}

/// Loads everything a run needs and says what it would do; nothing is written.
///
/// # Errors
/// Everything that stops a run before its first step.
pub fn plan(config: &RunConfig, plugins: &mut Plugins, device: DeviceKind) -> Result<Plan> {
    prepare(&models::found(config)?, plugins, device).map(|it| it.plan)
}

/// A run before its first step.
struct Prepared {
    tokenizer: Tokenizer,
    rows: Rows,
    state: TrainState,
    plan: Plan,
    settings: Settings,
    /// For a person.
    notes: Vec<String>,
}

fn prepare(config: &RunConfig, plugins: &mut Plugins, device: DeviceKind) -> Result<Prepared> {
    // Opened first: a device that is not there is told before anything is read.
    let opened = device::open(device)?;
    let tokenizer = Tokenizer::load(config.model.folder())?;
    let load = if config.adapter.is_some() { load_model } else { load_model_to_train };
    // Rows come first, because most of what can be wrong is in them; unless plugins ask the model while they make them.
    let mut early = None;
    if plugins.ask_while_data_is_made() {
        early = Some(load(config.model.folder(), &opened)?);
    }
    let lease = early.as_ref().map(|model| lend(config, plugins, model, &tokenizer, device)).transpose()?;
    let (rows, notes) = Rows::load(config, plugins, &tokenizer)?;
    drop(lease);
    let settings = Settings::new(config, &rows.digest, plugins);
    let mut model = match early {
        Some(model) => model,
        None => load(config.model.folder(), &opened)?,
    };
    model.compute_dtype = config.train.compute_dtype;
    model.store_linears(config.train.frozen_dtype);
    let parameters = count_parameters(|visit| model.visit_base(visit));
    let adapter = match &config.adapter {
        Some(Adapter::Lora(lora)) => {
            attach_lora(&mut model, lora, config.train.seed)?;
            Some(lora.clone())
        }
        None => None,
    };
    let trainable_parameters = count_parameters(|visit| model.visit_trained(visit));
    let mut state = TrainState::new(model, adapter);
    state.optimizer = AdamW::new(config.optimizer.storage());
    state.seed = config.train.seed;
    let plan = Plan {
        model: config.model.folder().to_path_buf(),
        parameters,
        trainable_parameters,
        rows: rows.train.len(),
        held_out_rows: rows.held_out.len(),
        skipped_rows: rows.skipped.len(),
        skipped: rows.skipped.iter().take(SKIPPED_SHOWN).cloned().collect(),
        tokens: rows.train.tokens(),
        supervised_tokens: rows.train.supervised_tokens(),
        steps: config.train.total_steps(rows.train.len()),
        global_batch_size: config.train.global_batch_size(),
        micro_batches_per_epoch: micro_batches_per_epoch(config, &rows),
        packing: config.data.packing,
        plugins: planned(plugins),
        data_digest: rows.digest.clone(),
        output: config.output.dir.clone(),
    };
    Ok(Prepared { tokenizer, rows, state, plan, settings, notes })
}

/// The model before training, to plugins that ask it while they build and augment.
fn lend(
    config: &RunConfig,
    plugins: &Plugins,
    model: &CausalLm,
    tokenizer: &Tokenizer,
    device: DeviceKind,
) -> Result<Lease> {
    let (batch_size, judges) = (config.eval.batch_size, &config.judges);
    plugins.lend(&Lent { run: model, reference: Some(model.clone()), tokenizer, batch_size, judges, device })
}

fn count_parameters(visit_all: impl FnOnce(&mut dyn FnMut(&str, Parameter<'_>))) -> usize {
    let mut count = 0;
    visit_all(&mut |_, parameter| count += parameter.dims().iter().product::<usize>());
    count
}

fn micro_batches_per_epoch(config: &RunConfig, rows: &Rows) -> usize {
    let mut windows = Windows::new(rows.train.len(), config.train.global_batch_size(), config.train.seed);
    let mut count = 0;
    while let Some(window) = windows.next().filter(|_| windows.epoch() == 0) {
        let lengths: Vec<usize> = window.iter().map(|&row| rows.train.row_len(row)).collect();
        count += config.layout().count(&lengths);
    }
    count
}

fn planned(plugins: &Plugins) -> Vec<PlannedPlugin> {
    let planned = |(role, it): (&'static str, &fthost_data::PluginIdentity)| PlannedPlugin {
        role,
        name: it.name.clone(),
        version: it.version.clone(),
        digest: it.digest.clone(),
    };
    plugins.identities().into_iter().map(planned).collect()
}

fn step_config(config: &RunConfig, step: u64, steps: u64) -> StepConfig {
    let adamw = config.optimizer.adamw();
    let train = &config.train;
    StepConfig {
        adamw: adamw.clone(),
        learning_rate: adamw.learning_rate * config.schedule.factor(step, steps),
        max_grad_norm: (train.max_grad_norm > 0.0).then_some(train.max_grad_norm),
        activation_checkpointing: train.activation_checkpointing,
        gradient_release: train.gradient_release,
    }
}

fn save(state: &mut TrainState, config: &RunConfig) -> Result<PathBuf> {
    let base = config.model.folder();
    if let Some(lora) = state.adapter.clone() {
        let folder = config.output.dir.join("adapter");
        peft::save_adapter(&mut state.model, &lora, &config.model.reference(), &folder)?;
        return Ok(folder);
    }
    let folder = config.output.dir.join("model");
    save_merged(&mut state.model, base, &folder)?;
    Ok(folder)
}
