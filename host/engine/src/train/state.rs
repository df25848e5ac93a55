//! What a run carries from one optimizer step to the next.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::adapters::AdapterConfig;
use crate::error::Result;
use crate::models::parameter::FROZEN;
use crate::models::{CausalLm, Parameter, SCORE, SCORE_BIAS};
use crate::optim::{AdamW, AdamWConfig};
use crate::parallel::Ranks;
use crate::shard::Mesh;

/// What the names of a value model's weights begin with.
pub(crate) const VALUE_MODEL: &str = "value_model.";

/// Model, adapter and optimizer of a run.
#[derive(Debug, Clone)]
pub struct TrainState {
    /// Weights, all without autodiff: a step makes its own graph.
    pub model: CausalLm,
    /// A value model with a trunk of its own, where an objective has one.
    pub value_model: Option<CausalLm>,
    /// The learning rate of what values are learned with, over that of everything else; 1 unless set.
    pub value_lr_ratio: f64,
    /// How the adapter was made; `None` is full fine-tuning.
    pub adapter: Option<AdapterConfig>,
    /// Moments and the number of updates.
    pub optimizer: AdamW,
    /// Optimizer steps done.
    pub step: u64,
    /// The newest checkpoint that was saved or resumed from.
    pub last_checkpoint: Option<PathBuf>,
    /// The run's seed: dropout is drawn from it. 0 unless set.
    pub seed: u64,
    /// Who shares the micro-batches of a step; nobody unless set.
    pub ranks: Ranks,
}

impl TrainState {
    /// A run's beginning.
    pub fn new(model: CausalLm, adapter: Option<AdapterConfig>) -> Self {
        Self {
            model,
            value_model: None,
            value_lr_ratio: 1.0,
            adapter,
            optimizer: AdamW::default(),
            step: 0,
            last_checkpoint: None,
            seed: 0,
            ranks: Ranks::default(),
        }
    }

    /// Every weight that is trained: the model's, then those of a value model, whose names begin with `value_model.`.
    pub fn visit_trained(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        self.model.visit_trained(visit);
        if let Some(values) = &mut self.value_model {
            values.visit_trained(&mut named(visit));
        }
    }

    /// As [`TrainState::visit_trained`], what this rank updates: its pieces where the models are shared.
    pub fn visit_own(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        visit_own(&mut self.model, self.value_model.as_mut(), visit);
    }

    /// As [`TrainState::visit_own`], each with the place of its first value among the parameter's.
    pub fn visit_stretches(&mut self, visit: &mut dyn FnMut(&str, usize, Parameter<'_>)) {
        self.model.visit_stretches(visit);
        if let Some(values) = &mut self.value_model {
            values.visit_stretches(&mut |name, begin, parameter| {
                visit(&format!("{VALUE_MODEL}{name}"), begin, parameter);
            });
        }
    }

    /// Shares both models with the ranks of `mesh`, as [`CausalLm::share`] does.
    pub fn share(&mut self, mesh: &Mesh) {
        self.model.share(mesh);
        if let Some(values) = &mut self.value_model {
            values.share(mesh);
        }
    }

    /// Makes the moments before the first step: made in its end, they would lie scattered in what the step had freed,
    /// and the next one would need that much more.
    ///
    /// # Errors
    /// As [`AdamW::reserve`].
    pub(crate) fn reserve_moments(&mut self) -> Result<()> {
        if !self.optimizer.moments.is_empty() {
            return Ok(());
        }
        // What moments are stored in is decided by the whole parameter, not by a rank's piece of it.
        let whole = self.lengths();
        let Self { model, value_model, optimizer, .. } = self;
        let mut outcome = Ok(());
        visit_own(model, value_model.as_mut(), &mut |name, parameter| {
            let reserved = match parameter {
                Parameter::Vector(value) => optimizer.reserve(name, value, whole[name]),
                Parameter::Matrix(value) => optimizer.reserve(name, value, whole[name]),
                Parameter::Packed(_) => unreachable!("{FROZEN}"),
            };
            if outcome.is_ok() {
                outcome = reserved;
            }
        });
        outcome
    }

    /// Values of every weight that is trained, by its name.
    pub(crate) fn lengths(&mut self) -> HashMap<String, usize> {
        let mut lengths = HashMap::new();
        self.visit_trained(&mut |name, it| lengths.extend([(name.to_string(), it.length())]));
        lengths
    }

    /// Has weights that are there on every rank be what their pieces are.
    pub(crate) fn refill(&mut self) {
        self.model.refill();
        self.value_model.iter_mut().for_each(CausalLm::refill);
    }

    /// Learning rates where the schedule is at `learning_rate`.
    pub(crate) fn rates(&self, learning_rate: f64) -> LearningRates {
        let loraplus_lr_ratio = self.adapter.as_ref().map_or(1.0, AdapterConfig::loraplus_lr_ratio);
        LearningRates { learning_rate, loraplus_lr_ratio, value_lr_ratio: self.value_lr_ratio }
    }

    /// One AdamW update. `gradients` stand in the order of [`TrainState::visit_own`], flat; each is
    /// multiplied by `gradient_scale`.
    pub(crate) fn update(
        &mut self,
        config: &AdamWConfig,
        learning_rate: f64,
        gradient_scale: f64,
        gradients: Vec<burn::tensor::Tensor<1>>,
    ) {
        let rates = self.rates(learning_rate);
        let Self { model, value_model, optimizer, .. } = self;
        optimizer.begin();
        let update = Update { config, rates, gradient_scale };
        let mut gradients = gradients.into_iter();
        visit_own(model, value_model.as_mut(), &mut |name, parameter| {
            let gradient = gradients.next().expect("one gradient a trained parameter");
            update.apply(optimizer, name, parameter, gradient);
        });
        self.refill();
        self.step += 1;
    }
}

/// A visitor of a value model's weights.
fn named(visit: &mut dyn FnMut(&str, Parameter<'_>)) -> impl FnMut(&str, Parameter<'_>) {
    |name, parameter| visit(&format!("{VALUE_MODEL}{name}"), parameter)
}

fn visit_own(
    model: &mut CausalLm,
    value_model: Option<&mut CausalLm>,
    visit: &mut dyn FnMut(&str, Parameter<'_>),
) {
    model.visit_own(visit);
    if let Some(values) = value_model {
        values.visit_own(&mut named(visit));
    }
}

/// The learning rate of a step, and what it is multiplied by for some parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LearningRates {
    learning_rate: f64,
    loraplus_lr_ratio: f64,
    value_lr_ratio: f64,
}

impl LearningRates {
    /// Of a parameter, by its name.
    fn of(self, name: &str) -> f64 {
        let is_of_values = name.starts_with(VALUE_MODEL) || [SCORE, SCORE_BIAS].contains(&name);
        let of = |holds: bool, ratio: f64| if holds { ratio } else { 1.0 };
        self.learning_rate
            * of(is_of_values, self.value_lr_ratio)
            * of(name.ends_with("lora_B.weight"), self.loraplus_lr_ratio)
    }
}

/// What all parameters of one update share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Update<'a> {
    pub config: &'a AdamWConfig,
    pub rates: LearningRates,
    pub gradient_scale: f64,
}

impl Update<'_> {
    /// Updates one parameter, in place where nothing else holds it.
    pub(crate) fn apply(
        self,
        optimizer: &mut AdamW,
        name: &str,
        parameter: Parameter<'_>,
        gradient: burn::tensor::Tensor<1>,
    ) {
        let (config, scale, rate) = (self.config, self.gradient_scale, self.rates.of(name));
        match parameter {
            Parameter::Vector(value) => {
                value.inplace(|it| optimizer.update(config, rate, scale, name, it, gradient));
            }
            Parameter::Matrix(value) => {
                let gradient = gradient.reshape(value.dims());
                value.inplace(|it| optimizer.update(config, rate, scale, name, it, gradient));
            }
            Parameter::Packed(_) => unreachable!("{FROZEN}"),
        }
    }
}
