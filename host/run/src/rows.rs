//! Examples as tokens, and the micro-batches an optimizer step makes of them.

use fthost_data::{Batch, DataError, Example, Layout, Sequence, Tokenizer, encode};

use crate::config::RunConfig;
use crate::dataset::{Dataset, OnBadRow, Skipped};
use crate::error::Result;

/// The tokens a run learns from and is judged on.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Trained on.
    pub train: Vec<Sequence>,
    /// Held out, each with its example.
    pub held_out: Vec<(Example, Sequence)>,
    /// An example of what is trained on, for a person to look at.
    pub sample: Example,
    /// Rows left out, here or when they were read.
    pub skipped: Vec<Skipped>,
}

impl Rows {
    /// Tokens of every example.
    ///
    /// # Errors
    /// A row that can't be learned from, where that stops the run, and a training part without a usable row.
    pub fn encode(dataset: Dataset, tokenizer: &Tokenizer, config: &RunConfig) -> Result<Self> {
        let data = &config.data;
        let mut skipped = dataset.skipped;
        let mut tokens = |example: &Example| -> Result<Option<Sequence>> {
            match (encode::encode(example, tokenizer, data.max_length), data.on_bad_row) {
                (Ok(sequence), _) => Ok(Some(sequence)),
                (Err(DataError::BadRow { origin, reason }), OnBadRow::Skip) => {
                    skipped.push(Skipped { origin, reason });
                    Ok(None)
                }
                (Err(error), _) => Err(error.into()),
            }
        };
        let (mut train, mut sample) = (Vec::with_capacity(dataset.train.len()), None);
        for example in dataset.train {
            if let Some(sequence) = tokens(&example)? {
                train.push(sequence);
                sample.get_or_insert(example);
            }
        }
        let mut held_out = Vec::with_capacity(dataset.held_out.len());
        for example in dataset.held_out {
            if let Some(sequence) = tokens(&example)? {
                held_out.push((example, sequence));
            }
        }
        skipped.sort_by(|a, b| (&a.origin.source, a.origin.line).cmp(&(&b.origin.source, b.origin.line)));
        let Some(sample) = sample else {
            let path = data.files.first().cloned().unwrap_or_default();
            let reason = match skipped.first() {
                Some(first) => format!("no usable row; the first: {}: {}", first.origin, first.reason),
                None => "no usable row in `data.files`".to_string(),
            };
            return Err(DataError::Damaged { path, reason }.into());
        };
        Ok(Self { train, held_out, sample, skipped })
    }

    /// Micro-batches of the training rows at `indices`.
    pub fn micro_batches(&self, indices: &[usize], layout: Layout) -> Vec<Batch> {
        let rows: Vec<&Sequence> = indices.iter().map(|&row| &self.train[row]).collect();
        layout.micro_batches(&rows)
    }
}

impl RunConfig {
    /// How the rows of an optimizer step are laid into micro-batches.
    pub fn layout(&self) -> Layout {
        match self.data.packing {
            true => Layout::Packed(self.micro_batch_tokens()),
            false => Layout::Rows(self.train.micro_batch_size),
        }
    }
}
