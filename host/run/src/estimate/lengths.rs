//! How many tokens a run's steps and evaluations look at: those of its rows where they can be read, otherwise the most that
//! the run file lets them have.

use std::sync::Arc;

use fthost_data::sampler::Windows;
use fthost_data::{Batch, IGNORED, MappedRow, Origin, Sequence, TokenRow, TokenRows, Tokenizer};
use fthost_engine::estimate::{BatchTokens, Segment};

use crate::config::RunConfig;
use crate::error::Result;
use crate::plugins::Plugins;
use crate::questions::question;
use crate::rows::Rows;
use crate::token_cache::{Found, TokenCache};

/// Bytes of data that builder and augmenters are asked about; what is more may take them long.
const BUILT: u64 = 8 << 20;
/// Optimizer steps that are laid out; the largest micro-batch of a longer run is that of these.
const LAID: usize = 4096;

/// A micro-batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Micro {
    pub(super) batch: BatchTokens,
    pub(super) segments: Vec<Segment>,
}

/// Where lengths are from.
pub(super) enum Lengths {
    /// The rows themselves.
    Rows {
        rows: Box<Rows>,
        /// Tokens of each held-out question.
        questions: Vec<u64>,
    },
    /// `data.max_length`, and why.
    Most(String),
}

impl Lengths {
    /// Reads the rows of `config`, unless that takes plugins long.
    ///
    /// # Errors
    /// As [`Rows::load`].
    pub(super) fn of(config: &RunConfig, plugins: &mut Plugins, tokenizer: &Tokenizer) -> Result<Self> {
        if let Some(reason) = too_long(config, plugins)? {
            return Ok(Self::Most(reason));
        }
        let (mut rows, _) = Rows::load(config, plugins, tokenizer)?;
        let mut questions = Vec::new();
        for example in std::mem::take(&mut rows.examples) {
            questions.extend(question(&example, tokenizer)?.map(|it| it.prompt_ids.len() as u64));
        }
        Ok(Self::Rows { rows: Box::new(rows), questions })
    }

    /// Optimizer steps of the run, where that is known.
    pub(super) fn steps(&self, config: &RunConfig) -> Option<u64> {
        match self {
            Self::Rows { rows, .. } => Some(config.train.total_steps(rows.train.len())),
            Self::Most(_) => config.train.epochs.is_none().then(|| config.train.total_steps(1)),
        }
    }

    /// The micro-batches of each optimizer step, one after the other.
    pub(super) fn training(&self, config: &RunConfig) -> Vec<Vec<Micro>> {
        let Self::Rows { rows, .. } = self else { return vec![most(config)] };
        let steps =
            usize::try_from(config.train.total_steps(rows.train.len())).unwrap_or(LAID).clamp(1, LAID);
        let rollout = config.objective.samples().then(|| config.rollout.prompts(&config.train));
        let window = rollout.unwrap_or(config.train.global_batch_size());
        let windows = Windows::new(rows.train.len(), window, config.train.seed);
        if rollout.is_none() {
            let laying = config.laying();
            return windows
                .take(steps)
                .map(|it| micros(&laying.lay(&rows.train, &it, None).batches))
                .collect();
        }
        let of_window = |it: Vec<usize>| completions(&rows.train, &it, config);
        windows.flat_map(of_window).take(steps).map(|it| laid(&it, config)).collect()
    }

    /// The micro-batches of the held-out rows.
    pub(super) fn held_out(&self, config: &RunConfig) -> Vec<Micro> {
        match self {
            Self::Rows { rows, .. } => {
                let all: Vec<usize> = (0..rows.held_out.len()).collect();
                micros(&config.laying().lay(&rows.held_out, &all, None).batches)
            }
            Self::Most(_) if config.data.held_out.is_some() => most(config),
            Self::Most(_) => Vec::new(),
        }
    }

    /// Tokens of each prompt that is rolled out.
    pub(super) fn prompts(&self, config: &RunConfig) -> Vec<u64> {
        match self {
            Self::Rows { rows, .. } => {
                (0..rows.train.len()).map(|it| rows.train.row_len(it) as u64).collect()
            }
            Self::Most(_) => vec![config.data.max_length as u64],
        }
    }

    /// Tokens of each held-out question.
    pub(super) fn questions(&self, config: &RunConfig) -> Vec<u64> {
        match self {
            Self::Rows { questions, .. } => questions.clone(),
            Self::Most(_) => vec![config.data.max_length as u64; config.eval.batch_size],
        }
    }

    /// Bytes of the rows as they lie in memory.
    pub(super) fn bytes(&self) -> u64 {
        let of = |it: &TokenRows| it.bytes().iter().map(|it| it.len() as u64).sum::<u64>();
        match self {
            Self::Rows { rows, .. } => of(&rows.train) + of(&rows.held_out),
            Self::Most(_) => 0,
        }
    }
}

/// Why rows are not read.
fn too_long(config: &RunConfig, plugins: &Plugins) -> Result<Option<String>> {
    if plugins.builder.is_none() && plugins.augmenters.is_empty() {
        return Ok(None);
    }
    if config.data.cache && !config.objective.samples() {
        let cache = TokenCache::of(config, plugins)?;
        if cache.is_some_and(|it| matches!(it.read(), Found::Rows(_))) {
            return Ok(None);
        }
    }
    if plugins.ask_while_data_is_made() {
        return Ok(Some("plugins ask the model while they make the rows".to_string()));
    }
    let size = |it: &std::path::PathBuf| std::fs::metadata(it).map_or(0, |it| it.len());
    let bytes: u64 = config.data.files.iter().map(size).sum();
    let told = || format!("plugins make the rows, of {} MiB of files", bytes >> 20);
    Ok((bytes > BUILT).then(told))
}

/// One micro-batch of rows as long as the run file lets them be, each token supervised.
fn most(config: &RunConfig) -> Vec<Micro> {
    let longest = config.data.max_length as u64;
    let of_row = match &config.objective {
        it if it.has_pairs() => 2 * longest,
        it if it.samples() => longest + config.rollout.max_completion_length as u64,
        _ => longest,
    };
    let rows = config.train.micro_batch_size as u64 * of_row;
    let tokens =
        if config.data.packing { rows.min(config.micro_batch_tokens() as u64).max(of_row) } else { rows };
    let sequences = (tokens / longest).max(1);
    let segments = vec![Segment { before: 0, tokens: tokens / sequences }; sequences as usize];
    let batch = BatchTokens { tokens, supervised: tokens, sequences };
    let rows_of_step = config.train.global_batch_size() as u64 * of_row;
    vec![Micro { batch, segments }; rows_of_step.div_ceil(tokens.max(1)) as usize]
}

fn micros(batches: &[Batch]) -> Vec<Micro> {
    batches.iter().map(micro).collect()
}

fn micro(batch: &Batch) -> Micro {
    let length = |it: usize| (batch.cu_seqlens[it + 1] - batch.cu_seqlens[it]) as u64;
    let segment = |(index, parent): (usize, &Option<usize>)| Segment {
        before: parent.map_or(0, length),
        tokens: length(index),
    };
    Micro {
        batch: BatchTokens {
            tokens: batch.len() as u64,
            supervised: batch.targets().positions.len() as u64,
            sequences: batch.parents.len() as u64,
        },
        segments: batch.parents.iter().enumerate().map(segment).collect(),
    }
}

/// The completions of each optimizer step that a rollout of the prompts at `window` makes, as long as they may become.
fn completions(rows: &TokenRows, window: &[usize], config: &RunConfig) -> Vec<Vec<Sequence>> {
    let (rollout, length) = (&config.rollout, config.rollout.max_completion_length);
    let origin = Arc::new(Origin { source: "rollout".into(), line: 0 });
    let completion = |prompt: MappedRow<'_>| {
        let mut input_ids = prompt.input_ids().to_vec();
        let mut labels = vec![IGNORED; input_ids.len()];
        input_ids.extend(std::iter::repeat_n(0, length));
        labels.extend(std::iter::repeat_n(0, length));
        Sequence { input_ids, labels, cut: 0, judgement: 0.0, origin: Arc::clone(&origin) }
    };
    let all: Vec<Sequence> = window
        .iter()
        .flat_map(|it| (0..rollout.num_generations).map(|_| completion(rows.row(*it))))
        .collect();
    let steps: Vec<Vec<Sequence>> =
        all.chunks(config.train.global_batch_size().max(1)).map(<[Sequence]>::to_vec).collect();
    std::iter::repeat_n(steps, rollout.num_iterations).flatten().collect()
}

fn laid(step: &[Sequence], config: &RunConfig) -> Vec<Micro> {
    micros(&config.layout().micro_batches(step))
}
