//! One completion as it grows.

use fthost_data::{Finish, Tokenizer};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::config::GenerateConfig;
use super::sample::{Choice, choose};
use super::stop::{StopScan, text};
use super::{Completion, EndToken};
use crate::error::{EngineError, Result};
use crate::models::CausalLm;

/// A prompt with what was sampled for it so far.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Position of the prompt.
    pub prompt: usize,
    /// Position among the prompt's completions.
    pub completion: usize,
    /// Prompt, then completion.
    ids: Vec<u32>,
    prompt_length: usize,
    logps: Vec<f32>,
    rng: ChaCha8Rng,
}

impl Sequence {
    /// Prompt and completion as far as it goes; its last token the model has not seen yet.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }
}

/// What all sequences of a call share.
#[derive(Debug)]
pub(super) struct Sampler<'a> {
    tokenizer: &'a Tokenizer,
    config: &'a GenerateConfig,
    stop: StopScan<'a>,
    context_length: usize,
}

impl<'a> Sampler<'a> {
    pub(super) fn new(model: &CausalLm, tokenizer: &'a Tokenizer, config: &'a GenerateConfig) -> Self {
        let stop = StopScan::new(&config.stop);
        Self { tokenizer, config, stop, context_length: model.context_length() }
    }

    /// A sequence that holds its prompt alone.
    pub(super) fn begin(&self, prompt: usize, completion: usize, ids: &[u32]) -> Sequence {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(((self.config.first_prompt + prompt) as u64) << 32 | completion as u64);
        let (ids, prompt_length) = (ids.to_vec(), ids.len());
        Sequence { prompt, completion, ids, prompt_length, logps: Vec::new(), rng }
    }

    /// Samples the next token from `logits`, `[V]`; the completion where that ends it.
    pub(super) fn advance(&self, sequence: &mut Sequence, logits: &[f32]) -> Result<Option<Completion>> {
        let choice = choose(logits, &sequence.ids, self.config, &mut sequence.rng);
        let Choice { id, logp } = choice.ok_or_else(|| EngineError::Prompt {
            index: self.config.first_prompt + sequence.prompt,
            reason: format!("the model's logits after {} tokens are not finite", sequence.ids.len()),
        })?;
        if self.tokenizer.eos_ids.contains(&id) {
            return self.finish(sequence, Finish::Stop, Some(EndToken { id, logp })).map(Some);
        }
        sequence.ids.push(id);
        sequence.logps.push(logp);
        if self.stop.ends(&sequence.ids[sequence.prompt_length..], self.tokenizer)? {
            return self.finish(sequence, Finish::Stop, None).map(Some);
        }
        // The newest token has no place in the context yet; it needs one only if it is to be followed.
        let full = sequence.ids.len() > self.context_length;
        if full || sequence.logps.len() >= self.config.max_new_tokens {
            return self.finish(sequence, Finish::Length, None).map(Some);
        }
        Ok(None)
    }

    fn finish(&self, sequence: &mut Sequence, finish: Finish, end: Option<EndToken>) -> Result<Completion> {
        let token_ids = sequence.ids.split_off(sequence.prompt_length);
        let mut decoded = text(&token_ids, self.tokenizer)?;
        if let Some(position) = self.stop.position(&decoded) {
            decoded.truncate(position);
        }
        Ok(Completion {
            token_ids,
            token_logps: std::mem::take(&mut sequence.logps),
            end,
            text: decoded,
            finish,
        })
    }
}
