//! A row as a person should see it before it is trained on: what is supervised apart from what is masked.

use crate::encode::render;
use crate::error::{DataError, Result};
use crate::record::{Example, Origin};
use crate::tokenizer::Tokenizer;

/// An example as text, cut where supervision begins or ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The row it was made from.
    pub origin: Origin,
    /// End to end they are the text of the tokens that are kept.
    pub segments: Vec<Segment>,
    /// Tokens of the whole row.
    pub tokens: usize,
    /// Tokens kept: `max_length` at most.
    pub kept: usize,
    /// Tokens that carry loss.
    pub supervised: usize,
}

/// Tokens in a row that are all supervised, or all masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Their text.
    pub text: String,
    /// Whether the model learns to say it.
    pub supervised: bool,
    /// How many.
    pub tokens: usize,
}

impl Preview {
    /// Tokens and labels of `example` as [`crate::encode::encode`] makes them, turned back into text.
    ///
    /// # Errors
    /// As [`crate::encode::encode`], a row without a supervised token apart: that can be looked at.
    pub fn new(example: &Example, tokenizer: &Tokenizer, max_length: usize) -> Result<Self> {
        let bad = |error: DataError| DataError::BadRow {
            origin: example.origin.clone(),
            reason: error.to_string(),
        };
        let rendered = render(&example.content, tokenizer).map_err(bad)?;
        let offsets = tokenizer.encode(&rendered.text)?.offsets;
        let kept = &offsets[..offsets.len().min(max_length)];
        let supervised = |&(start, end): &(usize, usize)| {
            start < end && rendered.supervised.iter().any(|span| span.start <= start && end <= span.end)
        };
        let mut segments: Vec<Segment> = Vec::new();
        // Text that no token stands for belongs to the token before it.
        let ends = kept.iter().skip(1).map(|it| it.0).chain([match offsets.get(kept.len()) {
            Some(cut) => cut.0,
            None => rendered.text.len(),
        }]);
        let mut start = 0;
        for (offset, end) in kept.iter().zip(ends) {
            // Tokens that share a character overlap; a cut inside one moves to its end.
            let end = rendered.text.ceil_char_boundary(end).max(start);
            let text = &rendered.text[start..end];
            start = end;
            match segments.last_mut() {
                Some(last) if last.supervised == supervised(offset) => {
                    last.text.push_str(text);
                    last.tokens += 1;
                }
                _ => segments.push(Segment { text: text.into(), supervised: supervised(offset), tokens: 1 }),
            }
        }
        let learned = kept.iter().skip(1).filter(|it| supervised(it)).count();
        Ok(Self {
            origin: example.origin.clone(),
            segments,
            tokens: offsets.len(),
            kept: kept.len(),
            supervised: learned,
        })
    }
}
