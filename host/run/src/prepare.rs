//! A run before its first step: everything loaded, and what will be done with it.

use fthost_data::sampler::Windows;
use fthost_data::{MappedRow, Tokenizer};
use fthost_engine::adapters::AdapterConfig;
use fthost_engine::checkpoint::{load_model_as, load_shared};
use fthost_engine::device::{self, DeviceKind};
use fthost_engine::models::{CausalLm, Parameter, Trained};
use fthost_engine::optim::AdamW;
use fthost_engine::shard::Mesh;
use fthost_engine::train::{TrainState, attach_reward_head, attach_value_model};
use fthost_engine::{Device, EngineError};

use crate::adapter_base::load_adapter;
use crate::config::{Adapter, Objective, RunConfig};
use crate::error::{Result, RunError};
use crate::event::{Plan, PlannedPlugin};
use crate::plugins::{Lease, Lent, Plugins};
use crate::rows::Rows;
use crate::settings::Settings;
use crate::{models, reward_model};

/// Skipped rows that a plan shows.
const SKIPPED_SHOWN: usize = 5;

/// Loads everything a run needs and says what it would do; nothing is written.
///
/// # Errors
/// Everything that stops a run before its first step.
pub fn plan(config: &RunConfig, plugins: &mut Plugins, device: DeviceKind) -> Result<Plan> {
    prepare(&models::found(config)?, plugins, device, None).map(|it| it.plan)
}

/// A run before its first step.
pub(crate) struct Prepared {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) rows: Rows,
    pub(crate) state: TrainState,
    /// The model before training: it shares the weights that are not trained.
    pub(crate) reference: CausalLm,
    pub(crate) plan: Plan,
    pub(crate) settings: Settings,
    /// For a person.
    pub(crate) notes: Vec<String>,
}

pub(crate) fn prepare(
    config: &RunConfig,
    plugins: &mut Plugins,
    device: DeviceKind,
    mesh: Option<&Mesh>,
) -> Result<Prepared> {
    // Opened first: a device that is not there is told before anything is read.
    let opened = device::open(device)?;
    reward_model::open(config, plugins, device)?;
    if config.objective.samples() && plugins.rewards.is_empty() {
        return Err(RunError::NoReward { objective: config.objective.name() });
    }
    let tokenizer = Tokenizer::load(config.model.folder())?;
    // A model that is there as a whole for a while is shared behind that.
    let at_once = is_shared_at_once(config, plugins);
    let load = || load(config, &opened, mesh.filter(|_| at_once));
    // Rows come first, because most of what can be wrong is in them; unless plugins ask the model while they make them.
    let mut early = None;
    if plugins.ask_while_data_is_made() {
        early = Some(load()?);
    }
    let lease = early.as_ref().map(|model| lend(config, plugins, model, &tokenizer, device)).transpose()?;
    let (rows, notes) = Rows::load(config, plugins, &tokenizer)?;
    drop(lease);
    let settings = Settings::new(config, &rows.digest, plugins)?;
    let mut model = early.map_or_else(load, Ok)?;
    model.compute_dtype = config.train.compute_dtype;
    let parameters = count_parameters(|visit| model.visit_base(visit));
    let begun = trained_on(config, &mut model, mesh)?;
    // A reference is the model as training finds it: with the adapter that is gone on with, without one that begins. Nobody asks
    // it for a scalar.
    let mut reference = CausalLm { score: None, ..model.clone() };
    let fresh = config.adapter.as_ref().and_then(Adapter::fresh);
    if let Some(adapter) = &fresh {
        adapter.attach(&mut model, config.train.seed, &tokenizer)?;
    }
    let adapter = fresh.or(begun);
    if config.objective.has_margins() && model.virtual_tokens() > 0 {
        let problem = "virtual tokens are not known with a reward model's head: train another adapter";
        return Err(EngineError::Invalid { what: "adapter".into(), problems: vec![problem.into()] }.into());
    }
    let mut state = TrainState::new(model, adapter);
    // Before a value model is made of it, which has the same stretches then.
    mesh.iter().for_each(|it| state.model.share(it));
    attach_heads(config, &mut state);
    if let Some(mesh) = mesh {
        share(mesh, &mut state, (!reference.is_shared()).then_some(&mut reference));
    }
    let trainable_parameters = count_parameters(|visit| state.visit_trained(visit));
    state.optimizer = AdamW::new(config.optimizer.storage(&config.output.dir, config.parallel.offload));
    state.seed = config.train.seed;
    let plan = planned_run(config, plugins, &rows, [parameters, trainable_parameters]);
    Ok(Prepared { tokenizer, rows, state, reference, plan, settings, notes })
}

/// The run's model, every rank of `mesh` having a share of it.
fn load(config: &RunConfig, device: &Device, mesh: Option<&Mesh>) -> Result<CausalLm> {
    let (folder, load) = (config.model.folder(), config.load_config());
    Ok(match mesh {
        Some(mesh) => load_shared(folder, device, &load, mesh)?,
        None => load_model_as(folder, device, &load)?,
    })
}

/// Puts the adapter that is trained on on `model`, where one is, and takes off what is not gone on with.
fn trained_on(
    config: &RunConfig,
    model: &mut CausalLm,
    mesh: Option<&Mesh>,
) -> Result<Option<AdapterConfig>> {
    let begun = match &config.adapter {
        Some(Adapter::Peft { path }) => Some(load_adapter(model, path, config.model.folder())?),
        Some(_) | None => None,
    };
    if !config.objective.has_margins() {
        // Of a reward model whatever predicts tokens is gone on with.
        model.score = None;
    }
    if begun.is_some() {
        // What is trained and its reference have the same stretches then.
        mesh.iter().for_each(|it| model.share(it));
    }
    Ok(begun)
}

/// Whether nobody asks for all of the model's weights before the first step.
fn is_shared_at_once(config: &RunConfig, plugins: &Plugins) -> bool {
    let plain = |adapter: &Adapter| adapter.fresh().is_some_and(|it| !it.begins_from_weights());
    config.adapter.as_ref().is_none_or(plain) && !plugins.ask_while_data_is_made()
}

/// Shares the models of `state` as they are to be trained, and a `reference` that is still there as a whole.
fn share(mesh: &Mesh, state: &mut TrainState, reference: Option<&mut CausalLm>) {
    if let Some(reference) = reference {
        reference.trained = Trained::Adapter([].into());
        reference.share(mesh);
    }
    state.share(mesh);
}

/// The scalar heads that the objective trains besides.
fn attach_heads(config: &RunConfig, state: &mut TrainState) {
    match &config.objective {
        Objective::Ppo(objective) => {
            attach_value_model(state, objective.value_model);
            let rate = config.optimizer.adamw().learning_rate;
            state.value_lr_ratio = objective.value_learning_rate.map_or(1.0, |it| it / rate);
        }
        Objective::Reward(_) => attach_reward_head(&mut state.model),
        _ => {}
    }
}

/// What will be done with `rows`; `counts` are all weights, and those that are trained.
fn planned_run(config: &RunConfig, plugins: &Plugins, rows: &Rows, counts: [usize; 2]) -> Plan {
    let [parameters, trainable_parameters] = counts;
    Plan {
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
        micro_batches_per_epoch: micro_batches_per_epoch(config, rows),
        packing: config.data.packing,
        objective: config.objective.name(),
        rollout: config
            .objective
            .samples()
            .then(|| (config.rollout.num_generations, config.rollout.prompts(&config.train))),
        plugins: planned(plugins),
        data_digest: rows.digest.clone(),
        output: config.output.dir.clone(),
    }
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
        let of_window: Vec<MappedRow<'_>> = window.iter().map(|&row| rows.train.row(row)).collect();
        count += config.layout().count(&of_window);
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
