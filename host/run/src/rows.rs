//! Examples as tokens, and the micro-batches an optimizer step makes of them.

use std::sync::Arc;

use fthost_data::{
    Batch, DataError, Example, IGNORED, Layout, MappedRow, Sequence, TokenRows, Tokenizer, encode, mismatched,
};
use rayon::prelude::*;

use crate::config::{Objective, RunConfig};
use crate::dataset::{self, Dataset, OnBadRow, Skipped};
use crate::error::Result;
use crate::plugins::Plugins;
use crate::questions::{Question, question};
use crate::reference::ReferenceLogps;
use crate::token_cache::{Found, TokenCache};

/// The tokens a run learns from and is judged on.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Trained on.
    pub train: Arc<TokenRows>,
    /// Held out.
    pub held_out: TokenRows,
    /// What is held out as the model is asked it, in the files' order.
    pub examples: Vec<Example>,
    /// An example of what is trained on, for a person to look at.
    pub sample: Example,
    /// Rows left out, here or when they were read.
    pub skipped: Vec<Skipped>,
    /// [`Dataset::digest`].
    pub digest: String,
    /// What is asked, by row, where the objective learns from completions that it samples.
    pub(crate) questions: Vec<Question>,
}

impl Rows {
    /// The rows of a run: from the cache where they were made before of the same files by the same plugins, and into it
    /// where not. Gives besides what a person should know of the cache.
    ///
    /// # Errors
    /// As [`dataset::load`] and [`Rows::encode`]. A cache that can't be used is no error.
    pub fn load(
        config: &RunConfig,
        plugins: &mut Plugins,
        tokenizer: &Tokenizer,
    ) -> Result<(Self, Vec<String>)> {
        let mut notes = Vec::new();
        // Prompts are few and quickly read; their columns would have to be kept too.
        let cache = if config.data.cache && !config.objective.samples() {
            TokenCache::of(config, plugins)?
        } else {
            None
        };
        match cache.as_ref().map(TokenCache::read) {
            Some(Found::Rows(rows)) => return Ok((*rows, notes)),
            Some(Found::Damaged(note)) => notes.push(note),
            Some(Found::Nothing) | None => {}
        }
        let rows = Self::encode(dataset::load(&config.data, plugins)?, tokenizer, config)?;
        if let Some(Err(note)) = cache.map(|it| it.write(&rows)) {
            notes.push(note);
        }
        Ok((rows, notes))
    }

    /// Tokens of every example.
    ///
    /// # Errors
    /// A row that can't be learned from, where that stops the run, and a training part without a usable row.
    pub fn encode(dataset: Dataset, tokenizer: &Tokenizer, config: &RunConfig) -> Result<Self> {
        let data = &config.data;
        let mut skipped = dataset.skipped;
        let mut tokens = |examples: &[Example]| -> Result<Vec<Option<Vec<Sequence>>>> {
            let one = |it: &Example| encoded(&config.objective, it, tokenizer, data.max_length);
            // Rows in parallel; what comes of them is looked at in their order.
            let encoded: Vec<_> = examples.par_iter().map(one).collect();
            let judged = encoded.into_iter().map(|it| match (it, data.on_bad_row) {
                (Ok(sequences), _) => Ok(Some(sequences)),
                (Err(DataError::BadRow { origin, reason }), OnBadRow::Skip) => {
                    skipped.push(Skipped { origin, reason });
                    Ok(None)
                }
                (Err(error), _) => Err(error.into()),
            });
            judged.collect()
        };
        let train = tokens(&dataset.train)?;
        let held_out = tokens(&dataset.held_out)?;
        let first = train.iter().position(Option::is_some);
        let mut questions = Vec::new();
        if config.objective.samples() {
            for (example, _) in dataset.train.iter().zip(&train).filter(|it| it.1.is_some()) {
                questions.extend(question(example, tokenizer)?);
            }
        }
        let sample = first.and_then(|it| dataset.train.into_iter().nth(it));
        let kept = dataset.held_out.into_iter().zip(&held_out).filter(|it| it.1.is_some());
        let examples = kept.map(|it| config.objective.asked(it.0)).collect();
        skipped.sort_by(|a, b| (&a.origin.source, a.origin.line).cmp(&(&b.origin.source, b.origin.line)));
        let Some(sample) = sample else {
            let path = data.files.first().cloned().unwrap_or_default();
            let reason = match skipped.first() {
                Some(first) => format!("no usable row; the first: {}: {}", first.origin, first.reason),
                None => "no usable row in `data.files`".to_string(),
            };
            return Err(DataError::Damaged { path, reason }.into());
        };
        let [train, held_out] = [train, held_out].map(|it| it.into_iter().flatten().flatten().collect());
        let digest = dataset.digest;
        Ok(Self { train: Arc::new(train), held_out, examples, sample, skipped, digest, questions })
    }
}

/// An example as what `objective` learns from: a sequence, a pair, a prompt, or judged completions, two of a pair.
pub(crate) fn encoded(
    objective: &Objective,
    example: &Example,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> fthost_data::Result<Vec<Sequence>> {
    if objective.has_labels() {
        return encode::encode_judged(example, tokenizer, max_length);
    }
    if objective.has_pairs() {
        let mut pair = encode::encode_pair(example, tokenizer, max_length)?;
        if objective.has_margins() {
            pair.judgement = margin(example)?;
        }
        return Ok(vec![pair]);
    }
    if !objective.samples() {
        return Ok(vec![encode::encode(example, tokenizer, max_length)?]);
    }
    let bad = |reason: String| DataError::BadRow { origin: example.origin.clone(), reason };
    let question = question(example, tokenizer).map_err(|error| bad(error.to_string()))?;
    let input_ids = question.ok_or_else(|| bad("it asks nothing: there is no prompt".into()))?.prompt_ids;
    if input_ids.is_empty() || input_ids.len() > max_length {
        let length = input_ids.len();
        return Err(bad(format!(
            "a prompt of {length} tokens; at most {max_length} fit `data.max_length` and the model's context"
        )));
    }
    let labels = vec![IGNORED; input_ids.len()];
    let origin = Arc::new(example.origin.clone());
    Ok(vec![Sequence { input_ids, labels, cut: 0, judgement: 0.0, origin }])
}

/// The column `margin`; 0 where there is none.
fn margin(example: &Example) -> fthost_data::Result<f32> {
    let Some(value) = example.columns.get("margin").filter(|it| !it.is_null()) else { return Ok(0.0) };
    let number = value.as_f64().map(|it| it as f32).filter(|it| it.is_finite());
    number.ok_or_else(|| DataError::BadRow {
        origin: example.origin.clone(),
        reason: format!("`margin` must be a number, got `{value}`"),
    })
}

/// How the rows of an optimizer step, or of an evaluation, become batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Laying {
    /// Which rows share a micro-batch.
    pub layout: Layout,
    /// Tokens of a prompt with another row's completion at most, where an objective needs such: [`fthost_data::mismatched()`].
    pub mismatched: Option<usize>,
}

/// Rows as batches.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Laid {
    /// Micro-batches.
    pub batches: Vec<Batch>,
    /// What the reference says of each one's supervised tokens, end to end, where that is known.
    pub references: Option<Vec<Vec<f32>>>,
    /// Each prompt with the completion of another row, in micro-batches of their own; empty where nothing needs them.
    pub mismatched: Vec<Batch>,
}

impl Laying {
    /// The rows at `indices`, with what the reference says of them where that is `known` of all rows. Which completion a prompt is given besides its own is decided by their order alone, not by the
    /// layout.
    pub fn lay(&self, rows: &TokenRows, indices: &[usize], known: Option<&ReferenceLogps>) -> Laid {
        let rows: Vec<MappedRow<'_>> = indices.iter().map(|&row| rows.row(row)).collect();
        let others = self.mismatched.map(|max_length| mismatched(&rows, max_length)).unwrap_or_default();
        let groups = self.layout.groups(&rows);
        let of_group = |known: &ReferenceLogps, group: &[usize]| {
            group.iter().flat_map(|&it| known.row(indices[it])).copied().collect()
        };
        let references = known.map(|known| groups.iter().map(|it| of_group(known, it)).collect());
        let batches = groups.iter().map(|group| Batch::shared(group.iter().map(|&it| &rows[it])));
        Laid { batches: batches.collect(), references, mismatched: self.layout.micro_batches(&others) }
    }
}

impl RunConfig {
    /// How rows become batches.
    pub fn laying(&self) -> Laying {
        let mismatched = self.objective.has_mismatched().then_some(self.data.max_length);
        Laying { layout: self.layout(), mismatched }
    }

    /// How the rows of an optimizer step are laid into micro-batches.
    pub fn layout(&self) -> Layout {
        match self.data.packing {
            true => Layout::Packed(self.micro_batch_tokens()),
            false => Layout::Rows(self.train.micro_batch_size),
        }
    }
}
