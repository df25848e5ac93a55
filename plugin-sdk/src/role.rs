//! The four roles.

use crate::record::{Detail, Example, Group, Metric, Row, Sample, Score, Variant};

/// Makes examples of rows that no reader knows.
pub trait DataBuilder {
    /// The examples of one row; none when the row is kept back for later.
    ///
    /// # Errors
    /// Why the row can't be used; `on_bad_row` of the run file decides what follows.
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String>;

    /// What was kept back, once the rows have ended.
    fn finish(&mut self) -> Vec<Example> {
        Vec::new()
    }
}

/// Derives further examples from examples.
pub trait Augmenter {
    /// The variants of one example; the original is kept by the host.
    fn augment(&mut self, example: &Example) -> Vec<Variant>;
}

/// Scores completions.
pub trait Reward {
    /// One score a completion of the group, in order.
    fn score(&self, group: &Group) -> Vec<Score>;
}

/// Judges a model's answers.
pub trait Evaluator {
    /// What is said of one sample.
    fn grade(&mut self, sample: &Sample) -> Detail;

    /// The metrics over everything graded since the last call; starts afresh.
    fn finish(&mut self) -> Vec<Metric>;
}
