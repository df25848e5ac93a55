//! What a model makes of the held-out rows.

use fthost_data::{Batch, Example, Layout, MappedRow, TokenRows};
use fthost_engine::EngineError;
use fthost_engine::train::TrainState;
use serde::Serialize;

use crate::error::{Result, RunError};
use crate::judge::Judgement;
use crate::method::Method;

/// Held-out rows, laid into batches once for every evaluation of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOutRows {
    /// In the files' order.
    pub examples: Vec<Example>,
    /// Their tokens.
    pub batches: Vec<Batch>,
}

/// Figures of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Optimizer steps done.
    pub step: u64,
    /// Name and value, in a fixed order; names begin with `eval_`.
    pub metrics: Vec<(String, f64)>,
}

/// The metric that decides which evaluation is the best; it should fall.
pub const BEST_METRIC: &str = "eval_loss";

impl HeldOutRows {
    /// `rows`, one an example, in micro-batches of `layout`.
    pub fn new(examples: Vec<Example>, rows: &TokenRows, layout: Layout) -> Self {
        let rows: Vec<MappedRow<'_>> = (0..rows.len()).map(|it| rows.row(it)).collect();
        Self { examples, batches: layout.micro_batches(&rows) }
    }

    /// What `method` says of them; `None` where nothing is held out.
    ///
    /// # Errors
    /// A loss that is not finite, with its rows and the last good checkpoint.
    pub(crate) fn evaluate(&self, state: &TrainState, method: &Method) -> Result<Option<Evaluation>> {
        let figures = method.evaluate(state, &self.batches).map_err(|error| match error {
            RunError::Engine(EngineError::NotFiniteStep { what, value, step, rows, last_checkpoint: _ }) => {
                let last_checkpoint = state.last_checkpoint.clone();
                EngineError::NotFiniteStep { what, value, step, rows, last_checkpoint }.into()
            }
            other => other,
        })?;
        Ok(figures.map(|metrics| Evaluation { step: state.step, metrics }))
    }
}

impl Evaluation {
    /// Adds what plugins say of the model's answers.
    pub fn add(&mut self, judgement: &Judgement) {
        self.metrics.extend(judgement.metrics.iter().map(|it| (it.name.clone(), it.value)));
    }

    /// The value of a metric, where it was measured.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|it| it.0 == name).map(|it| it.1)
    }
}
