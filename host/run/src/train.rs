//! A run, from files to an adapter or a whole model, whatever it minimises.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fthost_data::{Example, Preview, Tokenizer};
use fthost_engine::EngineError;
use fthost_engine::adapters::merge::save_merged;
use fthost_engine::adapters::peft;
use fthost_engine::checkpoint::training::latest;
use fthost_engine::device::DeviceKind;
use fthost_engine::models::CausalLm;
use fthost_engine::parallel::{Collective, Ranks, Vigil};
use fthost_engine::shard::Mesh;
use fthost_engine::train::memory::peak_rss_bytes;
use fthost_engine::train::{StepConfig, TrainState};

use crate::adapter_base;
use crate::config::RunConfig;
use crate::course::Course;
use crate::digest::ModelDigest;
use crate::error::{Result, RunError};
use crate::evaluate::{Evaluation, HeldOutRows};
use crate::event::{Event, Plan, Stepped};
use crate::interrupt::Interrupt;
use crate::judge::{Judge, JudgeSettings};
use crate::lessons::{Lesson, Lessons};
use crate::method::Method;
use crate::metrics::MetricSink;
use crate::plugins::Plugins;
use crate::prepare::{Prepared, prepare};
use crate::reference::Known;
use crate::rows::Rows;
use crate::settings::Settings;
use crate::summary::{Pace, Summary};
use crate::trouble::Watch;
use crate::{audit, completions, lock, models};

/// The folder of signs of life, in the output folder.
const SIGNS: &str = ".ranks";
/// How long the library may take to end the ranks.
const LAST_RESORT: Duration = Duration::from_secs(5);

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
    /// Who trains with this process: each does the same run, the first alone writes.
    pub ranks: Ranks,
}

impl RunOptions {
    /// The same where ranks share a model on `mesh`.
    fn on(&self, mesh: Option<&Mesh>) -> Self {
        let ranks = mesh.map_or_else(|| self.ranks.clone(), |it| it.ranks(&self.ranks));
        Self { ranks, ..self.clone() }
    }
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
    let mut config = models::found(config)?;
    config.train.data_parallel = options.ranks.size();
    known_on_ranks(&config, options)?;
    options.ranks.agree(&[("`[parallel]`", serde_json::json!(config.parallel).to_string())])?;
    let mesh = config.parallel.mesh(&options.ranks)?;
    let options = &options.on(mesh.as_ref());
    let (config, ranks, folder) = (&config, &options.ranks, &config.output.dir);
    let vigil = watch(config, ranks)?;
    let base_digest = ModelDigest::start(config.model.folder());
    let Prepared { tokenizer, mut rows, mut state, reference, plan, settings, notes } =
        prepare(config, plugins, options.device, mesh.as_ref())?;
    state.ranks = ranks.clone();
    notes.iter().for_each(|it| observe(Event::Noted(it)));
    observe(Event::Planned(&plan));
    preview(config, &rows, &tokenizer, observe)?;
    let base_digest = base_digest.wait()?;
    let mut course = Course::new(config, &settings, plan.rows, base_digest.clone());
    agree(ranks, &plan, &settings, &base_digest)?;
    let mut metrics = begin(&mut course, &mut state, &settings, options, folder, observe)?;
    let known = Known::before_training(config, &rows, &reference, &base_digest, options, observe)?;
    let examples = std::mem::take(&mut rows.examples);
    let held_out = HeldOutRows::new(examples, &rows.held_out, config.laying(), known.held_out.as_ref());
    let asked = plugins.ask_the_reference().then(|| reference.clone());
    let asking = JudgeSettings {
        eval: &config.eval,
        judges: &config.judges,
        device: options.device,
        steps: plan.steps,
    };
    let mut judge = Judge::new(plugins, &tokenizer, asking, &held_out.examples)?;
    let method = Method::of(config, &reference, known.train.is_some());
    let progress = &course.progress;
    let mut lessons =
        Lessons::start(config, &tokenizer, &mut rows, known.train, options.device, &reference, progress);
    drop(reference);
    let mut pace = Pace::start(state.step, plan.steps);
    // Between two steps of one rollout a run can't be left: what is left of the rollout is in no checkpoint.
    let mut whole = true;
    let mut trouble = Watch::new(plugins.reward_terms());
    // What is due in the middle of a rollout waits for its end.
    let mut is_due = false;

    loop {
        if let Some(signal) = signalled(options)?.filter(|_| whole) {
            let (checkpoint, step) = (course.save(&mut state, observe)?, state.step);
            vigil.done();
            return Err(RunError::Interrupted { signal, step, checkpoint });
        }
        let mut improved = false;
        if config.eval.is_due(state.step, plan.steps) && course.progress.evaluated != Some(state.step) {
            pace.pause();
            observe(Event::Evaluating { rows: held_out.examples.len() });
            let found = held_out.evaluate(&state, &method);
            if let Some(mut evaluation) = course.settled(found, &mut state, observe)? {
                // Plugins, which may ask others, judge on the first alone.
                let models = (&state, asked.as_ref());
                add_judgement(&mut evaluation, &mut judge, plugins, models, &mut metrics, folder)?;
                improved = course.judge(&evaluation);
                metrics.evaluated(&evaluation, course.epoch())?;
                observe(Event::Evaluated(&evaluation));
            }
        }
        is_due |= course.is_checkpoint_due(state.step, improved);
        if whole && is_due {
            is_due = false;
            pace.pause();
            course.begin_save(&mut state, observe)?;
        }
        if state.step >= plan.steps {
            break;
        }
        if course.stopped_early() {
            observe(Event::StoppedEarly { step: state.step });
            break;
        }
        pace.resume();
        let step_config = step_config(config, state.step, plan.steps);
        let next = lessons.next(&mut state, plugins, &method, &step_config);
        let Some(lesson) = course.settled(next, &mut state, observe)? else { break };
        course.look_after_saving(&mut state, observe)?;
        whole = lesson.whole;
        course.progress.penalty = lessons.penalty();
        course.advance(lesson.position, lesson.metrics.num_tokens);
        let stepped = stepped(&lesson, [state.step, plan.steps], &course, &mut pace);
        metrics.stepped(&stepped)?;
        observe(Event::Stepped(&stepped));
        if config.objective.samples() {
            let found = trouble.look(&stepped, lesson.sampled.as_ref());
            found.iter().for_each(|it| observe(Event::Troubled(it)));
        }
        if let Some(sampled) = lesson.sampled.as_ref().filter(|it| config.rollout.is_table_due(it.step)) {
            if ranks.is_first() {
                completions::write(sampled, config.rollout.log_completions_format, folder)?;
            }
            observe(Event::Sampled(sampled));
        }
    }

    course.settle(&mut state, observe)?;
    let result = save(&mut state, config)?;
    let mut summary = Summary::new(&plan, &course, &state, metrics.evaluations(), &pace, plugins, result);
    summary.precomputed = known.rows;
    if ranks.is_first() {
        lock::write(config, plugins, &plan.data_digest, &base_digest, &summary.result)?;
        audit::write(plugins, folder)?;
        summary.write(folder)?;
    }
    // Who ends sooner finds what the first has written.
    ranks.barrier()?;
    vigil.done();
    Ok(summary)
}

/// Shows the example as training sees it.
fn preview(
    config: &RunConfig,
    rows: &Rows,
    tokenizer: &Tokenizer,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<()> {
    for content in config.objective.shown(&rows.sample) {
        let shown = Example { content, ..rows.sample.clone() };
        observe(Event::Previewed(&Preview::new(&shown, tokenizer, config.data.max_length)?));
    }
    Ok(())
}

/// Has ranks see to it that all of them are there: one that is not ends them all, and is named.
fn watch(config: &RunConfig, ranks: &Ranks) -> Result<Vigil> {
    let (folder, all) = (config.output.dir.clone(), ranks.clone());
    let signs = folder.join(SIGNS);
    let end = move |error: EngineError| {
        let told =
            RunError::LostRank { source: Box::new(error), last_checkpoint: latest(&folder).ok().flatten() };
        eprintln!("error: {told}");
        // Ending ranks asks the library, which may hang as well.
        std::thread::spawn(|| {
            std::thread::sleep(LAST_RESORT);
            std::process::abort();
        });
        all.abort(i32::from(told.exit_code()))
    };
    Ok(Vigil::start(ranks, &signs, config.parallel.patience(), end)?)
}

/// What `lesson`, the step that was just done of so many, did and took.
fn stepped(lesson: &Lesson, [step, steps]: [u64; 2], course: &Course, pace: &mut Pace) -> Stepped {
    let (tokens_per_second, left) = pace.step(lesson.metrics.num_tokens, lesson.waited);
    Stepped {
        step,
        steps,
        epoch: course.epoch(),
        num_tokens: course.progress.num_tokens,
        metrics: lesson.metrics.clone(),
        tokens_per_second,
        left,
        elapsed: pace.last_step(),
        data_loading: lesson.waited,
        rollout: lesson.rollout,
        peak_rss_bytes: peak_rss_bytes(),
    }
}

/// Ranks do the same run, or none.
fn agree(ranks: &Ranks, plan: &Plan, settings: &Settings, base_digest: &str) -> Result<()> {
    Ok(ranks.agree(&[
        ("version of fthost", env!("CARGO_PKG_VERSION").to_string()),
        ("base model", base_digest.to_string()),
        ("data", plan.data_digest.clone()),
        ("configuration", settings.digest()),
        ("number of steps", plan.steps.to_string()),
    ])?)
}

/// Adds what plugins, which the first rank asks, say of the model's answers, where there are any; all ranks give what they have of
/// the models for it, of which `reference` is the one before training where a plugin may ask it.
fn add_judgement(
    evaluation: &mut Evaluation,
    judge: &mut Judge<'_>,
    plugins: &mut Plugins,
    (state, reference): (&TrainState, Option<&CausalLm>),
    metrics: &mut MetricSink,
    folder: &Path,
) -> Result<()> {
    if !judge.asks() {
        return Ok(());
    }
    let reference = reference.map(CausalLm::whole_on_first);
    let Some(model) = state.model.whole_on_first().filter(|_| state.ranks.is_first()) else { return Ok(()) };
    if let Some(judgement) = judge.judge(plugins, &model, reference.flatten(), state.step)? {
        judgement.write(folder)?;
        metrics.judged(state.step, &judgement.usage)?;
        evaluation.add(&judgement);
    }
    Ok(())
}

/// What several ranks can't do yet, told before anything is read.
fn known_on_ranks(config: &RunConfig, options: &RunOptions) -> Result<()> {
    let unknown = unknown_on_ranks(config).filter(|_| options.ranks.are_many());
    unknown.map_or(Ok(()), |it| Err(EngineError::Invalid { what: "run".into(), problems: vec![it] }.into()))
}

/// What a run asks for that several ranks can't do yet.
pub(crate) fn unknown_on_ranks(config: &RunConfig) -> Option<String> {
    let releases = config.train.gradient_release;
    releases
        .then(|| "not known on several ranks: `train.gradient_release`: gradients are summed first".into())
}

/// A signal that came to any rank: all stop after the same step.
fn signalled(options: &RunOptions) -> Result<Option<i32>> {
    let own = options.interrupt.signal();
    if !options.ranks.any(own.is_some())? {
        return Ok(None);
    }
    Ok(Some(own.unwrap_or(signal_hook::consts::SIGTERM)))
}

/// Goes on from the newest checkpoint, or makes the output `folder` of a run that begins; gives where metrics go.
fn begin(
    course: &mut Course,
    state: &mut TrainState,
    settings: &Settings,
    options: &RunOptions,
    folder: &Path,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<MetricSink> {
    let ranks = &options.ranks;
    if options.resume {
        let checkpoint = course.resume(state, settings)?;
        observe(Event::Resumed { step: state.step, checkpoint: &checkpoint });
        // The first may write once all have read.
        ranks.barrier()?;
    }
    let sink = match (ranks.is_first(), options.resume) {
        (false, _) => MetricSink::nowhere(),
        (true, true) => MetricSink::resume(folder, state.step, course.progress.evaluated)?,
        (true, false) => {
            course.clear(options.overwrite)?;
            settings.write(folder)?;
            MetricSink::create(folder)?
        }
    };
    // The others may write once the folder is there.
    ranks.barrier()?;
    Ok(sink)
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
    let (base, is_first) = (config.model.folder(), state.ranks.is_first());
    if let Some(lora) = state.adapter.clone() {
        let folder = config.output.dir.join("adapter");
        let reference = config.model.reference();
        let mut model = state.model.with_trained();
        if is_first {
            peft::save_adapter(&mut model, &lora, &reference, &folder)?;
            adapter_base::write(&folder, base, reference)?;
        }
        return Ok(folder);
    }
    let folder = config.output.dir.join("model");
    // Of a model that ranks share all take part.
    if is_first || state.model.is_hollow() {
        save_merged(&mut state.model, base, &folder)?;
    }
    Ok(folder)
}
