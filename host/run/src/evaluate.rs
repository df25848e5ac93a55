//! What a model makes of the held-out rows.

use fthost_data::{Example, TokenRows};
use fthost_engine::train::TrainState;
use serde::Serialize;

use crate::error::Result;
use crate::judge::Judgement;
use crate::method::Method;
use crate::reference::ReferenceLogps;
use crate::rows::{Laid, Laying};

/// Held-out rows, laid into batches once for every evaluation of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOutRows {
    /// As the model is asked them, in the files' order.
    pub examples: Vec<Example>,
    /// Their tokens.
    pub laid: Laid,
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
    /// `rows`, which were made of the `examples`, in micro-batches, with what is `known` of the reference.
    pub fn new(
        examples: Vec<Example>,
        rows: &TokenRows,
        laying: Laying,
        known: Option<&ReferenceLogps>,
    ) -> Self {
        let all: Vec<usize> = (0..rows.len()).collect();
        Self { examples, laid: laying.lay(rows, &all, known) }
    }

    /// What `method` says of them; `None` where nothing is held out.
    ///
    /// # Errors
    /// A loss that is not finite, with its rows.
    pub(crate) fn evaluate(&self, state: &TrainState, method: &Method) -> Result<Option<Evaluation>> {
        let figures = method.evaluate(state, &self.laid)?;
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
