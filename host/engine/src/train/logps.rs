//! One optimizer step of an objective that is a function of log-probabilities: preferences, policies.
//!
//! What is minimised is told by a closure that is given the log-probabilities of one micro-batch: no objective sees a model.

use burn::tensor::Tensor;
use fthost_data::{Batch, Targets};
use fthost_kernels::TokenLogps;
use serde::{Deserialize, Serialize};

use super::gradients::{accompany, accumulate};
use super::state::TrainState;
use super::step::{StepConfig, StepMetrics, dropped, finish, supervised_tokens, turns};
use super::sums::{Sums, summed};
use crate::error::{EngineError, Result};
use crate::models::causal_lm::ids_tensor;
use crate::models::{CausalLm, Heads, TokenHead};
use crate::parallel::{Merge, Turn};

/// A figure over a step: a sum over something that is counted, so that micro-batches of several sizes have one mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// TRL's name.
    pub name: String,
    /// Over what was counted.
    pub sum: f64,
    /// How much there was; a figure of which nothing was counted is left out.
    pub count: f64,
}

impl Figure {
    /// The mean of `values`.
    pub fn mean(name: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        let (sum, count) = values.into_iter().fold((0.0, 0.0), |(sum, count), it| (sum + it, count + 1.0));
        Self { name: name.into(), sum, count }
    }
}

/// Adds figures by name; a new name goes to the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures(Vec<Figure>);

impl Merge for Figures {
    fn merge(&mut self, other: Self) {
        self.add(other.0);
    }
}

impl Figures {
    /// Adds those of a further micro-batch.
    pub fn add(&mut self, figures: impl IntoIterator<Item = Figure>) {
        for figure in figures {
            match self.0.iter_mut().find(|it| it.name == figure.name) {
                Some(known) => {
                    (known.sum, known.count) = (known.sum + figure.sum, known.count + figure.count)
                }
                None => self.0.push(figure),
            }
        }
    }

    /// Name and mean of each, in the order in which they came.
    pub fn means(self) -> Vec<(String, f64)> {
        let counted = self.0.into_iter().filter(|it| it.count > 0.0);
        counted.map(|it| (it.name, it.sum / it.count)).collect()
    }
}

/// The log-probabilities of the supervised tokens of `batch`, in the order of its [`Targets`], without a graph, under
/// logits divided by `temperature`.
pub fn batch_logps(model: &CausalLm, batch: &Batch, temperature: f64) -> TokenLogps {
    // As a training step: on a worker of the pool.
    rayon::scope(|_| {
        let targets = batch.targets();
        let (hidden, heads) = model.forward(batch);
        logps_of(hidden, heads.tokens, &targets, temperature)
    })
}

fn logps_of(hidden: Tensor<2>, head: TokenHead, targets: &Targets, temperature: f64) -> TokenLogps {
    head.token_logps(states(hidden, targets), &targets.token_ids, temperature)
}

/// The hidden states that predict `targets`, `[S, D]`.
pub(super) fn states(hidden: Tensor<2>, targets: &Targets) -> Tensor<2> {
    let device = hidden.device().inner();
    hidden.select(0, ids_tensor(&targets.positions, &device))
}

/// One optimizer step over `micro_batches`.
///
/// `objective` is given the position of a micro-batch and the log-probabilities of its supervised tokens, in the order of
/// its [`Targets`] and under logits divided by `temperature`; it returns its share of the step's loss, `[1]`, and figures.
/// The shares add up: dividing by what the whole step counts is the objective's part. Of several ranks each asks about its own
/// micro-batches; what `objective` keeps for itself is of those alone.
///
/// # Errors
/// A loss or gradient that is not finite, the state being as before; `gradient_release`, which takes one loss.
pub fn step_of_logps(
    state: &mut TrainState,
    micro_batches: &[Batch],
    config: &StepConfig,
    temperature: f64,
    objective: &mut (dyn FnMut(usize, TokenLogps) -> (Tensor<1>, Vec<Figure>) + Send),
) -> Result<StepMetrics> {
    step_of_states(state, micro_batches, config, &mut |asked, hidden, heads| {
        objective(asked.micro_batch, logps_of(hidden, heads.tokens, asked.targets, temperature))
    })
}

/// Whose hidden states a loss is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Position among the step's.
    pub micro_batch: usize,
    /// Its supervised tokens.
    pub targets: &'a Targets,
    /// Whether they are those of [`TrainState::value_model`] and not the model's.
    pub of_value_model: bool,
}

/// A loss's share and figures, from hidden states after the final norm, `[T, D]`, and what stands on them.
pub(super) type LossOfStates<'a> =
    dyn FnMut(Asked<'_>, Tensor<2>, Heads) -> (Tensor<1>, Vec<Figure>) + Send + 'a;

/// As [`step_of_logps`], of hidden states. A state with a value model is asked for two losses a micro-batch, the model's
/// first; they add up.
pub(super) fn step_of_states(
    state: &mut TrainState,
    micro_batches: &[Batch],
    config: &StepConfig,
    objective: &mut LossOfStates<'_>,
) -> Result<StepMetrics> {
    if config.gradient_release {
        let problem = "`gradient_release` is for `[objective.sft]`".to_string();
        return Err(EngineError::Invalid { what: "train".into(), problems: vec![problem] });
    }
    rayon::scope(|_| {
        state.reserve_moments()?;
        let (mut sums, mut of_values, mut loss) = (Sums::default(), Sums::default(), 0.0);
        let mut figures = Figures::default();
        for Turn { index: micro_batch, counts } in turns(state, micro_batches) {
            let batch = &micro_batches[micro_batch];
            let targets = &batch.targets();
            let dropped = dropped(state, micro_batch);
            let model = dropped.as_ref().unwrap_or(&state.model);
            let trunks = [
                Some((model, &mut sums, false)),
                state.value_model.as_ref().map(|it| (it, &mut of_values, true)),
            ];
            for (model, sums, of_value_model) in trunks.into_iter().flatten() {
                if !counts {
                    accompany(sums, model, batch, config.activation_checkpointing);
                    continue;
                }
                let asked = Asked { micro_batch, targets, of_value_model };
                let (share, of_batch) =
                    accumulate(sums, model, batch, config.activation_checkpointing, |hidden, heads| {
                        let (share, figures) = objective(asked, hidden, heads);
                        (share.clone(), (share.inner().into_scalar::<f64>(), figures))
                    });
                loss += share;
                figures.add(of_batch);
            }
        }
        let sums = summed(state, [sums, of_values])?;
        let [loss] = state.ranks.sum([loss])?;
        let figures = state.ranks.merged(figures)?;
        let grad_norm = finish(state, micro_batches, config, loss, sums, 1.0)?;
        Ok(StepMetrics {
            loss,
            grad_norm,
            learning_rate: config.learning_rate,
            figures: figures.means(),
            num_tokens: micro_batches.iter().map(Batch::sequence_tokens).sum(),
            supervised_tokens: supervised_tokens(micro_batches),
        })
    })
}
