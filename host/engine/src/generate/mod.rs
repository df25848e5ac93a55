//! Sampling completions and asking for the likelihood of given ones, without a graph.
//!
//! Prompts lie end to end while they are read, some tokens at a time; then each sequence takes one token a step. A
//! sequence that is done leaves its row of the cache, and its pages, to one that waits. A completion's draws come from ChaCha8, seeded by the
//! configuration with the positions of prompt and completion as its stream: which sequences share a batch decides
//! nothing but the order of additions.

mod cache;
mod config;
mod embed;
mod forward;
mod logprobs;
pub mod sample;
mod sequence;
mod stop;

use std::collections::VecDeque;

use burn::tensor::Tensor;
use fthost_data::{Finish, Tokenizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub(crate) use self::cache::PAGE;
use self::cache::{KvCache, Row};
pub use self::config::GenerateConfig;
pub use self::embed::embed;
pub use self::logprobs::logprobs;
use self::sequence::{Sampler, Sequence};
use crate::error::{EngineError, Result};
use crate::models::CausalLm;
use crate::models::causal_lm::ids_tensor;

/// Prompt tokens that are read at one time: they bound the memory that reading takes.
pub(crate) const PREFILL_TOKENS: usize = 1024;

/// What was sampled for one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The tokens, without the end token; where a stop string ended it, with the tokens that hold it.
    pub token_ids: Vec<u32>,
    /// Log-probability in nats of each token under the model's logits over the temperature (as they are at
    /// temperature 0): penalty and filters aside. As long as `token_ids`.
    pub token_logps: Vec<f32>,
    /// The token that ended it, where one did.
    pub end: Option<EndToken>,
    /// The decoded text: special tokens are left out, and so is a stop string with what follows it.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// The token that ended a completion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EndToken {
    /// One of the tokenizer's `eos_ids`.
    pub id: u32,
    /// As [`Completion::token_logps`].
    pub logp: f32,
}

/// Samples `completions_per_prompt` completions of each prompt, in order; at most `max_batch` grow at one time.
///
/// # Errors
/// Impossible values of `config`; a prompt that is empty, holds an unknown id or is longer than the model's context;
/// logits that are not finite.
pub fn generate(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: &[Vec<u32>],
    config: &GenerateConfig,
    max_batch: usize,
) -> Result<Vec<Vec<Completion>>> {
    let mut groups = vec![Vec::new(); prompts.len()];
    generate_groups(model, tokenizer, prompts, config, max_batch, &mut |prompt, group| {
        groups[prompt] = group
    })?;
    Ok(groups)
}

/// As [`generate`], handing over the completions of a prompt, by its position, as soon as the last of them is done:
/// others still grow while somebody looks at them.
///
/// # Errors
/// As there.
pub fn generate_groups(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: &[Vec<u32>],
    config: &GenerateConfig,
    max_batch: usize,
    done: &mut (dyn FnMut(usize, Vec<Completion>) + Send),
) -> Result<()> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(EngineError::Invalid { what: "generate".into(), problems });
    }
    for (index, prompt) in prompts.iter().enumerate() {
        check_prompt(model, config.first_prompt + index, prompt)?;
    }
    let mut batch = LiveBatch::new(model, tokenizer, prompts, config, max_batch.max(1));
    // On a worker, where a parallel loop begins at once: from outside each of them, thousands a second, would wake one.
    rayon::scope(|_| {
        while batch.is_busy() {
            batch.admit()?;
            batch.step()?;
            batch.hand_over(done);
        }
        Ok(())
    })
}

fn check_prompt(model: &CausalLm, index: usize, prompt: &[u32]) -> Result<()> {
    let (context, vocab) = (model.context_length(), model.config.vocab_size);
    let reason = if prompt.is_empty() {
        "it is empty: there is no token to go on from".to_string()
    } else if prompt.len() > context {
        format!(
            "{} tokens do not fit the model's context of {context} (`max_position_embeddings`)",
            prompt.len()
        )
    } else if let Some(id) = prompt.iter().find(|id| **id as usize >= vocab) {
        format!("token id {id} is outside the model's vocabulary of {vocab}")
    } else {
        return Ok(());
    };
    Err(EngineError::Prompt { index, reason })
}

/// A prompt that was read, and that some of its completions still have to begin from.
struct Parked {
    prompt: usize,
    row: Row,
    /// After its last token, `[1, V]`.
    logits: Tensor<2>,
}

/// The sequences in work, by row of the cache, and those that wait.
struct LiveBatch<'a> {
    model: &'a CausalLm,
    prompts: &'a [Vec<u32>],
    sampler: Sampler<'a>,
    rows: usize,
    cache: KvCache,
    live: Vec<Sequence>,
    /// Prompt and completion.
    waiting: VecDeque<(usize, usize)>,
    done: Vec<Vec<Option<Completion>>>,
    parked: Option<Parked>,
    /// Prompts whose last completion is done and that were not handed over.
    whole: Vec<usize>,
}

impl<'a> LiveBatch<'a> {
    fn new(
        model: &'a CausalLm,
        tokenizer: &'a Tokenizer,
        prompts: &'a [Vec<u32>],
        config: &'a GenerateConfig,
        max_batch: usize,
    ) -> Self {
        let waiting: VecDeque<_> = (0..prompts.len())
            .flat_map(|prompt| (0..config.completions_per_prompt).map(move |completion| (prompt, completion)))
            .collect();
        let rows = max_batch.min(waiting.len());
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let tokens = (longest + config.max_new_tokens).min(model.context_length()) + model.virtual_tokens();
        let mut cache = KvCache::new(model, rows * tokens);
        forward::begin(model, &mut cache);
        Self {
            model,
            prompts,
            sampler: Sampler::new(model, tokenizer, config),
            rows,
            cache,
            live: Vec::with_capacity(rows),
            waiting,
            done: vec![vec![None; config.completions_per_prompt]; prompts.len()],
            parked: None,
            whole: Vec::new(),
        }
    }

    fn is_busy(&self) -> bool {
        !(self.live.is_empty() && self.waiting.is_empty())
    }

    /// Reads waiting prompts into free rows and samples their first tokens. Reading one prompt costs as much as a
    /// step of all rows, so some rows are to be free first.
    fn admit(&mut self) -> Result<()> {
        while !self.waiting.is_empty() && self.rows - self.live.len() >= self.rows.div_ceil(4) {
            let begin = self.live.len();
            let next: Vec<_> = self.waiting.drain(..self.waiting.len().min(self.rows - begin)).collect();
            // Completions of one prompt wait one after the other: the first of them reads it for all, of which some may
            // have to wait longer.
            let parked = self.parked.take();
            let is_parked = |prompt: usize| parked.as_ref().is_some_and(|it| it.prompt == prompt);
            let (mut read, mut others, mut later) = (Vec::<(usize, usize)>::new(), Vec::new(), Vec::new());
            for (prompt, completion) in next {
                match read.last() {
                    _ if is_parked(prompt) => later.push((prompt, completion)),
                    Some(first) if first.0 == prompt => others.push((read.len() - 1, completion)),
                    _ => read.push((prompt, completion)),
                }
            }
            let mut logits = self.read(&read);
            let mut of_row: Vec<usize> = (0..read.len()).collect();
            let mut begun = read.clone();
            for (first, completion) in others {
                self.cache.fork(begin + first);
                of_row.push(first);
                begun.push((read[first].0, completion));
            }
            if let Some(parked) = parked {
                for it in later {
                    self.cache.open_as(&parked.row);
                    of_row.push(read.len());
                    begun.push(it);
                }
                logits.push(parked.logits.clone());
                self.park(&read, begin, &logits, Some(parked));
            } else {
                self.park(&read, begin, &logits, None);
            }
            let begin_one = |&(prompt, completion): &(usize, usize)| {
                self.sampler.begin(prompt, completion, &self.prompts[prompt])
            };
            self.live.extend(begun.iter().map(begin_one));
            self.sample(begin, Tensor::cat(logits, 0), &of_row)?;
        }
        Ok(())
    }

    /// The logits after each prompt of `read`, which takes a new row of the cache; nothing where none is read.
    fn read(&mut self, read: &[(usize, usize)]) -> Vec<Tensor<2>> {
        if read.is_empty() {
            return Vec::new();
        }
        let rows: Vec<(usize, &[u32])> =
            read.iter().map(|it| (self.cache.open(), self.prompts[it.0].as_slice())).collect();
        vec![forward::prefill(self.model, &mut self.cache, &rows, PREFILL_TOKENS)]
    }

    /// Keeps the prompt whose other completions still wait; it was read last, or is `parked` already.
    fn park(&mut self, read: &[(usize, usize)], begin: usize, logits: &[Tensor<2>], parked: Option<Parked>) {
        let waiting = self.waiting.front().map(|it| it.0);
        let last = read.last().filter(|it| Some(it.0) == waiting);
        match (last, parked) {
            (Some(&(prompt, _)), parked) => {
                parked.into_iter().for_each(|it| self.cache.release(it.row));
                let row = self.cache.keep(begin + read.len() - 1);
                // A copy: a view would keep the logits of all.
                let of_last = ids_tensor(&[read.len() as u32 - 1], &self.model.device());
                self.parked = Some(Parked { prompt, row, logits: logits[0].clone().select(0, of_last) });
            }
            (None, Some(parked)) if waiting == Some(parked.prompt) => self.parked = Some(parked),
            (None, parked) => parked.into_iter().for_each(|it| self.cache.release(it.row)),
        }
    }

    /// One token for every sequence in work.
    fn step(&mut self) -> Result<()> {
        if self.live.is_empty() {
            return Ok(());
        }
        if let Some(length) = self.model.config.rope_changes_after() {
            // With the next token all before it would be rotated otherwise: they are read again.
            for row in 0..self.live.len() {
                if self.cache.before() + self.cache.length(row) == length {
                    self.cache.clear(row);
                }
            }
        }
        let sequences: Vec<&[u32]> = self.live.iter().map(Sequence::ids).collect();
        let logits = forward::step(self.model, &mut self.cache, &sequences);
        self.sample(0, logits, &(0..sequences.len()).collect::<Vec<_>>())
    }

    /// Samples for the sequences from row `begin` on; `of_row` says which of the logits, `[_, V]`, is whose.
    fn sample(&mut self, begin: usize, logits: Tensor<2>, of_row: &[usize]) -> Result<()> {
        let vocab = logits.dims()[1];
        let logits = logits.try_into_vec_as::<f32>().expect("a float tensor is read as f32");
        // The rows from `begin` on are `of_row`'s.
        let advanced: Vec<Result<Option<Completion>>> = self.live[begin..]
            .par_iter_mut()
            .zip(of_row)
            .map(|(sequence, index)| {
                self.sampler.advance(sequence, &logits[index * vocab..(index + 1) * vocab])
            })
            .collect();
        // From the last row on: a row that is freed takes the last one, which has been looked at by then.
        for (row, completion) in advanced.into_iter().enumerate().rev() {
            if let Some(completion) = completion? {
                let sequence = self.live.swap_remove(begin + row);
                self.cache.close(begin + row);
                let group = &mut self.done[sequence.prompt];
                group[sequence.completion] = Some(completion);
                if group.iter().all(Option::is_some) {
                    self.whole.push(sequence.prompt);
                }
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, done: &mut (dyn FnMut(usize, Vec<Completion>) + Send)) {
        for prompt in self.whole.drain(..) {
            let group = std::mem::take(&mut self.done[prompt]);
            done(prompt, group.into_iter().map(|it| it.expect("all are there")).collect());
        }
    }
}
