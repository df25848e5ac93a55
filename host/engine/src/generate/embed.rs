//! Texts as vectors.

use super::{check_prompt, forward};
use crate::error::{EngineError, Result};
use crate::models::CausalLm;

/// For each text, as token ids, the mean of the model's last hidden states (after the final norm, as transformers'
/// `hidden_states[-1]`) over its tokens, scaled to length 1: `[texts][D]`. `max_batch` texts are read at one time.
///
/// # Errors
/// A text that is empty, holds an unknown id, or is longer than the model's context; states that are not finite.
pub fn embed(model: &CausalLm, texts: &[Vec<u32>], max_batch: usize) -> Result<Vec<Vec<f32>>> {
    for (index, text) in texts.iter().enumerate() {
        check_prompt(model, index, text)?;
    }
    let mut found: Vec<Vec<f32>> = Vec::with_capacity(texts.len());
    for batch in texts.chunks(max_batch.max(1)) {
        let sequences: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
        let states = model.final_norm(forward::whole(model, &sequences));
        let width = states.dims()[1];
        let states = states.try_into_vec_as::<f32>().expect("a float tensor is read as f32");
        let mut rows = states.chunks_exact(width);
        for text in batch {
            let mut sum = vec![0.0f64; width];
            for row in rows.by_ref().take(text.len()) {
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let length = sum.iter().map(|it| it * it).sum::<f64>().sqrt();
            if !length.is_finite() {
                let reason = "the model's hidden states are not finite".into();
                return Err(EngineError::Prompt { index: found.len(), reason });
            }
            found.push(sum.iter().map(|it| (it / length.max(f64::MIN_POSITIVE)) as f32).collect());
        }
    }
    Ok(found)
}
