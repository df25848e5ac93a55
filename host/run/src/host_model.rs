//! The run's model as plugins may ask it.

use fthost_data::{Candidate, HostModel, Prompt, Sampling, TextLogprob, Tokenizer, encode};
use fthost_engine::generate::{Completion, GenerateConfig, embed, generate, logprobs};
use fthost_engine::models::CausalLm;

/// A model with its tokenizer. Weights are shared with the model it was made of, and between clones.
#[derive(Clone)]
pub struct EngineModel {
    model: CausalLm,
    tokenizer: Tokenizer,
    batch_size: usize,
}

impl EngineModel {
    /// `batch_size` sequences grow at one time.
    pub fn new(model: CausalLm, tokenizer: Tokenizer, batch_size: usize) -> Self {
        Self { model, tokenizer, batch_size }
    }

    /// A completion as plugins see it; the token that ended it counts.
    pub fn candidate(completion: Completion) -> Candidate {
        let tokens = completion.token_ids.len() + usize::from(completion.end.is_some());
        Candidate { text: completion.text, token_count: tokens as u32, finish: completion.finish }
    }

    fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, String> {
        encode::encode_prompt(prompt, &self.tokenizer).map_err(|error| error.to_string())
    }
}

impl HostModel for EngineModel {
    fn generate(&mut self, prompts: &[Prompt], sampling: &Sampling) -> Result<Vec<Vec<Candidate>>, String> {
        let prompts: Vec<Vec<u32>> = prompts.iter().map(|it| self.encode(it)).collect::<Result<_, _>>()?;
        let config = GenerateConfig {
            max_new_tokens: sampling.max_new_tokens as usize,
            temperature: f64::from(sampling.temperature),
            top_p: f64::from(sampling.top_p),
            completions_per_prompt: sampling.completions_per_prompt as usize,
            stop: sampling.stop.clone(),
            seed: sampling.seed,
            ..GenerateConfig::default()
        };
        let completions = generate(&self.model, &self.tokenizer, &prompts, &config, self.batch_size)
            .map_err(|error| error.to_string())?;
        Ok(completions.into_iter().map(|all| all.into_iter().map(Self::candidate).collect()).collect())
    }

    fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String> {
        let tokens = |(prompt, continuation): &(Prompt, String)| {
            let mut continuation =
                self.tokenizer.encode(continuation).map_err(|error| error.to_string())?.ids;
            match prompt {
                // The text alone: its first token is given, the others are asked for.
                Prompt::Text(text) if text.is_empty() && !continuation.is_empty() => {
                    let rest = continuation.split_off(1);
                    Ok((continuation, rest))
                }
                prompt => Ok((self.encode(prompt)?, continuation)),
            }
        };
        let pairs: Vec<(Vec<u32>, Vec<u32>)> = pairs.iter().map(tokens).collect::<Result<_, String>>()?;
        logprobs(&self.model, &pairs, self.batch_size).map_err(|error| error.to_string())
    }

    fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        let ids = |it: &String| Ok(self.tokenizer.encode(it).map_err(|error| error.to_string())?.ids);
        let texts: Vec<Vec<u32>> = texts.iter().map(ids).collect::<Result<_, String>>()?;
        embed(&self.model, &texts, self.batch_size).map_err(|error| error.to_string())
    }
}
