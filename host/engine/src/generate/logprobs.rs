//! How likely a model finds given continuations.

use fthost_data::TextLogprob;

use super::{check_prompt, forward};
use crate::error::{EngineError, Result};
use crate::models::CausalLm;
use crate::models::causal_lm::ids_tensor;

/// Log-probability of each continuation after its prompt, both as token ids; `max_batch` pairs at one time.
///
/// # Errors
/// A prompt that is empty, holds an unknown id, or is with its continuation longer than the model's context.
pub fn logprobs(
    model: &CausalLm,
    pairs: &[(Vec<u32>, Vec<u32>)],
    max_batch: usize,
) -> Result<Vec<TextLogprob>> {
    for (index, (prompt, continuation)) in pairs.iter().enumerate() {
        check_prompt(model, index, prompt)?;
        check_prompt(model, index, &[&prompt[..], continuation].concat())?;
    }
    let mut found = Vec::with_capacity(pairs.len());
    for pairs in pairs.chunks(max_batch.max(1)) {
        found.extend(one_batch(model, pairs)?);
    }
    Ok(found)
}

fn one_batch(model: &CausalLm, pairs: &[(Vec<u32>, Vec<u32>)]) -> Result<Vec<TextLogprob>> {
    // The last token of a continuation predicts nothing that is asked for.
    let sequences: Vec<Vec<u32>> = pairs
        .iter()
        .map(|(prompt, continuation)| {
            let asked = continuation.len().saturating_sub(1);
            [&prompt[..], &continuation[..asked]].concat()
        })
        .collect();
    let (mut positions, mut end) = (Vec::new(), 0);
    for (sequence, (_, continuation)) in sequences.iter().zip(pairs) {
        end += sequence.len() as u32;
        positions.extend(end - continuation.len() as u32..end);
    }
    if positions.is_empty() {
        return Ok(vec![TextLogprob { sum: 0.0, token_count: 0 }; pairs.len()]);
    }
    let targets: Vec<u32> = pairs.iter().flat_map(|it| it.1.iter().copied()).collect();
    let device = model.device();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let x = forward::whole(model, &sequences).select(0, ids_tensor(&positions, &device));
    let logps = model.token_head().token_logps(model.final_norm(x), &targets, 1.0).logps;
    let mut logps = logps.try_into_vec_as::<f32>().expect("a float tensor is read as f32").into_iter();
    let sums = pairs.iter().enumerate().map(|(index, (_, continuation))| {
        let sum: f64 = logps.by_ref().take(continuation.len()).map(f64::from).sum();
        if sum.is_nan() {
            return Err(EngineError::Prompt { index, reason: "the model's logits are not finite".into() });
        }
        Ok(TextLogprob { sum, token_count: continuation.len() as u32 })
    });
    sums.collect()
}
