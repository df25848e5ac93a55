//! What the model before training says of rows that a policy is held against: asked step by step, or once of all rows before the
//! first step and kept on disk.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use fthost_data::{Batch, Layout, MappedRow, TokenRow, TokenRows};
use fthost_engine::device::DeviceKind;
use fthost_engine::models::CausalLm;
use fthost_engine::objectives::segments::parts;
use fthost_engine::parallel::{Collective, Ranks};
use fthost_engine::train::reference_logps;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::config::{Adapter, RunConfig};
use crate::digest;
use crate::error::Result;
use crate::event::Event;
use crate::reference_cache::{Found, ReferenceCache};
use crate::rows::Rows;
use crate::train::RunOptions;

/// Goes up with every change of what a reference says of a row: kernels, models, how rows are laid out here.
const VERSION: u32 = 1;
/// Rows that are laid into micro-batches together.
const CHUNK: usize = 256;

/// A model that is not trained. Its weights are those that training starts from, shared for as long as both have them.
pub(crate) struct Reference {
    model: CausalLm,
}

impl Reference {
    /// Of `model`, which is kept.
    pub(crate) fn new(model: CausalLm) -> Self {
        Self { model }
    }

    /// Log-probabilities of the supervised tokens of each batch, end to end; each of the ranks computes some.
    ///
    /// # Errors
    /// A rank that can't be reached.
    pub(crate) fn logps(&self, batches: &[Batch], ranks: &Ranks) -> Result<Vec<Vec<f32>>> {
        Ok(ranks.each(batches, |_, it| reference_logps(&self.model, it))?)
    }
}

/// Log-probabilities of the supervised tokens of each row, of both answers of a pair end to end.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceLogps {
    /// Where each row's values begin, and last where all end: `[rows + 1]`.
    bounds: Vec<u64>,
    values: Vec<f32>,
}

impl Default for ReferenceLogps {
    fn default() -> Self {
        Self { bounds: vec![0], values: Vec::new() }
    }
}

impl ReferenceLogps {
    /// Of `bounds`, `[rows + 1]`, and the values between them.
    ///
    /// # Errors
    /// What is wrong with bounds that are not those of the values.
    pub(crate) fn from_parts(bounds: Vec<u64>, values: Vec<f32>) -> std::result::Result<Self, String> {
        let whole = bounds.first() == Some(&0) && bounds.last() == Some(&(values.len() as u64));
        match whole && bounds.is_sorted() {
            true => Ok(Self { bounds, values }),
            false => Err("bounds that are not those of the values".into()),
        }
    }

    /// Adds a row at the end.
    pub(crate) fn push(&mut self, values: &[f32]) {
        self.values.extend_from_slice(values);
        self.bounds.push(self.values.len() as u64);
    }

    /// Of the row at `index`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[self.bounds[index] as usize..self.bounds[index + 1] as usize]
    }

    /// Rows there are.
    pub(crate) fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    pub(crate) fn bounds(&self) -> &[u64] {
        &self.bounds
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Rows whose log-probabilities were there before the first step.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PrecomputedRows {
    /// That the reference was asked for.
    pub computed: usize,
    /// That an earlier run had kept.
    pub cached: usize,
    /// How long it took.
    pub seconds: f64,
    /// Where the answers are kept.
    pub files: Vec<PathBuf>,
}

/// What is known of the reference before the first step; nothing where that was not asked for, or a signal came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Of the rows trained on.
    pub(crate) train: Option<Arc<ReferenceLogps>>,
    /// Of those held out.
    pub(crate) held_out: Option<ReferenceLogps>,
    /// Where it came from.
    pub(crate) rows: Option<PrecomputedRows>,
}

impl Known {
    /// What `config` wants to know of `rows` before the first step, out of the cache or from `model`, of `base_digest`.
    ///
    /// # Errors
    /// An adapter to go on with that can't be read. A cache that can't be used is none.
    pub(crate) fn before_training(
        config: &RunConfig,
        rows: &Rows,
        model: &CausalLm,
        base_digest: &str,
        options: &RunOptions,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
        if !config.objective.precomputes_reference() {
            return Ok(Self::default());
        }
        let (began, mut told) = (Instant::now(), PrecomputedRows::default());
        let asked = Asked { made_of: made_of(config, base_digest, options.device)?, model, config, options };
        let Some(train) = asked.logps(&rows.train, &mut told, observe)? else { return Ok(Self::default()) };
        let Some(held_out) = asked.logps(&rows.held_out, &mut told, observe)? else {
            return Ok(Self::default());
        };
        told.seconds = began.elapsed().as_secs_f64();
        observe(Event::Precomputed(&told));
        Ok(Self { train: Some(Arc::new(train)), held_out: Some(held_out), rows: Some(told) })
    }
}

/// Who is asked, and all that an answer depends on but the rows.
struct Asked<'a> {
    made_of: String,
    model: &'a CausalLm,
    config: &'a RunConfig,
    options: &'a RunOptions,
}

impl Asked<'_> {
    /// Of `rows`; `None` where a signal came before the last of them.
    fn logps(
        &self,
        rows: &TokenRows,
        told: &mut PrecomputedRows,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<ReferenceLogps>> {
        if rows.is_empty() {
            return Ok(Some(ReferenceLogps::default()));
        }
        let cache = ReferenceCache::new(key(&self.made_of, rows));
        told.files.push(cache.path().to_path_buf());
        let found = cache.read(rows.len());
        // Ranks may have caches of their own: where one has to ask, all do.
        if !self.options.ranks.any(!matches!(found, Found::Logps(_)))?
            && let Found::Logps(logps) = found
        {
            told.cached += rows.len();
            return Ok(Some(logps));
        }
        if let Found::Damaged(note) = found {
            observe(Event::Noted(&note));
        }
        let Some(logps) = self.computed(rows, observe)? else { return Ok(None) };
        told.computed += rows.len();
        // A machine's ranks have one cache.
        if self.options.ranks.local_rank() == 0
            && let Err(note) = cache.write(&logps)
        {
            observe(Event::Noted(&note));
        }
        Ok(Some(logps))
    }

    /// From the model, in the rows' own order and layout: what it says of a row depends neither on the run's order nor on what
    /// a step takes, nor on who computes it.
    fn computed(
        &self,
        rows: &TokenRows,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<ReferenceLogps>> {
        let (mut logps, ranks) = (ReferenceLogps::default(), &self.options.ranks);
        for start in (0..rows.len()).step_by(CHUNK) {
            if ranks.any(self.options.interrupt.signal().is_some())? {
                return Ok(None);
            }
            observe(Event::Precomputing { done: start, rows: rows.len() });
            let chunk = start..(start + CHUNK).min(rows.len());
            let found = logps_of(self.model, rows, chunk, self.config.layout(), ranks)?;
            found.iter().for_each(|it| logps.push(it));
        }
        Ok(Some(logps))
    }
}

/// What `model` says of each of the rows in `chunk`.
fn logps_of(
    model: &CausalLm,
    rows: &TokenRows,
    chunk: Range<usize>,
    layout: Layout,
    ranks: &Ranks,
) -> Result<Vec<Vec<f32>>> {
    let rows: Vec<MappedRow<'_>> = chunk.map(|it| rows.row(it)).collect();
    let mut all = vec![Vec::new(); rows.len()];
    let groups = layout.groups(&rows);
    let batches = groups.iter().map(|group| Batch::shared(group.iter().map(|&it| &rows[it])));
    let batches: Vec<Batch> = batches.collect();
    let said = ranks.each(&batches, |_, it| reference_logps(model, it))?;
    for ((group, batch), values) in groups.into_iter().zip(&batches).zip(said) {
        let lengths = batch.supervised_tokens();
        let mut sequences = parts(&values, &lengths);
        for index in group {
            let of_row = if rows[index].cut() > 0 { 2 } else { 1 };
            all[index] = sequences.by_ref().take(of_row).flatten().copied().collect();
        }
    }
    Ok(all)
}

/// Everything that decides what a reference says, but the rows: its weights, how they are computed with, and the code.
fn made_of(config: &RunConfig, base_digest: &str, device: DeviceKind) -> Result<String> {
    let adapter = match &config.adapter {
        Some(Adapter::Peft { path }) => Some(digest::of_model(path)?),
        Some(_) | None => None,
    };
    let layout = match config.layout() {
        Layout::Packed(tokens) => json!({"packed": tokens}),
        Layout::Rows(rows) => json!({"rows": rows}),
    };
    let (train, version) = (&config.train, env!("CARGO_PKG_VERSION"));
    let device = format!("{device:?}");
    Ok(json!({
        "version": VERSION, "fthost": version, "model": base_digest, "adapter": adapter, "layout": layout,
        "compute_dtype": train.compute_dtype, "frozen_dtype": train.frozen_dtype, "quant": config.quant, "device": device,
    })
    .to_string())
}

/// Of `rows`, whatever files they came from and however they were judged, and what else decides.
fn key(made_of: &str, rows: &TokenRows) -> [u8; 32] {
    let [bounds, _, spans, input_ids] = rows.bytes();
    let mut hash = Sha256::new().chain_update(made_of.as_bytes());
    for part in [bounds, spans, input_ids] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    (0..rows.len()).for_each(|it| hash.update((rows.row(it).cut() as u64).to_le_bytes()));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use fthost_data::{IGNORED, Origin, Sequence};

    use super::*;

    fn rows(ids: &[u32], first: usize, cut: usize, line: u64) -> TokenRows {
        let label = |(at, id): (usize, &u32)| if at < first { IGNORED } else { i64::from(*id) };
        let origin = Arc::new(Origin { source: "rows.jsonl".into(), line });
        let labels = ids.iter().enumerate().map(label).collect();
        let row = Sequence { input_ids: ids.to_vec(), labels, cut, judgement: line as f32, origin };
        [row].into_iter().collect()
    }

    #[test]
    fn a_key_is_that_of_tokens_and_of_what_is_supervised() {
        let of = |rows: TokenRows| key("model", &rows);
        let same = of(rows(&[1, 2, 3, 4], 1, 2, 1));
        assert_eq!(of(rows(&[1, 2, 3, 4], 1, 2, 7)), same, "line and judgement are not asked about");
        let others = [
            of(rows(&[1, 2, 3, 5], 1, 2, 1)),
            of(rows(&[1, 2, 3, 4], 2, 2, 1)),
            of(rows(&[1, 2, 3, 4], 1, 0, 1)),
            key("other", &rows(&[1, 2, 3, 4], 1, 2, 1)),
        ];
        assert!(others.iter().all(|it| *it != same), "{others:?}");
    }

    #[test]
    fn bounds_are_those_of_the_values() {
        let mut pushed = ReferenceLogps::default();
        pushed.push(&[-1.0, -2.0]);
        pushed.push(&[]);
        assert_eq!((pushed.row(0), pushed.row(1), pushed.len()), (&[-1.0, -2.0][..], &[][..], 2));
        assert_eq!(ReferenceLogps::from_parts(vec![0, 2, 2], vec![-1.0, -2.0]), Ok(pushed));
        for bounds in [vec![], vec![1, 2], vec![0, 1], vec![0, 2, 1, 2]] {
            assert!(ReferenceLogps::from_parts(bounds, vec![-1.0, -2.0]).is_err());
        }
    }
}
