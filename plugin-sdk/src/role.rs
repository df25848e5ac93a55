//! The four roles. Each has a call an item, which a plugin writes, and a call a batch, which the host makes: a plugin
//! overrides the latter where it asks a model, so that the model gets the batch at once.

use crate::record::{Augmented, Detail, Example, Group, Metric, Row, Sample, Score};

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

/// Derives further examples from examples, or leaves some out.
pub trait Augmenter {
    /// The variants of one example, and whether the example itself stays: a `Vec<Variant>` turned `into` this keeps it.
    fn augment(&mut self, example: &Example) -> Augmented;

    /// One answer an example, in order.
    ///
    /// # Errors
    /// Why the batch could not be augmented, as where the model that was asked failed.
    fn augment_all(&mut self, examples: &[Example]) -> Result<Vec<Augmented>, String> {
        Ok(examples.iter().map(|it| self.augment(it)).collect())
    }
}

/// Scores completions.
pub trait Reward {
    /// One score a completion of the group, in order.
    fn score(&self, group: &Group) -> Vec<Score>;

    /// The scores of every group, in order.
    fn score_all(&self, groups: &[Group]) -> Vec<Vec<Score>> {
        groups.iter().map(|it| self.score(it)).collect()
    }
}

/// Judges a model's answers.
pub trait Evaluator {
    /// What is said of one sample.
    fn grade(&mut self, sample: &Sample) -> Detail;

    /// One detail a sample, in order.
    ///
    /// # Errors
    /// Why the batch could not be graded, as where the model that was asked failed.
    fn grade_all(&mut self, samples: &[Sample]) -> Result<Vec<Detail>, String> {
        Ok(samples.iter().map(|it| self.grade(it)).collect())
    }

    /// The metrics over everything graded since the last call; starts afresh.
    fn finish(&mut self) -> Vec<Metric>;
}
