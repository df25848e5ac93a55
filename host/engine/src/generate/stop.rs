//! Stop strings, which may begin in one token and end in another.

use fthost_data::Tokenizer;

use crate::error::{EngineError, Result};

/// Tokens whose text is looked at besides those that the longest stop string can span: a decoder may treat the first
/// of what it is given differently, and a character may be spread over several.
const MARGIN: usize = 8;

/// Finds stop strings in a completion as it grows.
#[derive(Debug, Clone)]
pub(super) struct StopScan<'a> {
    stop: &'a [String],
    longest: usize,
}

impl<'a> StopScan<'a> {
    pub(super) fn new(stop: &'a [String]) -> Self {
        Self { stop, longest: stop.iter().map(String::len).max().unwrap_or(0) }
    }

    /// Whether a stop string ends in the last token of `ids`. Only the end of the text is decoded.
    pub(super) fn ends(&self, ids: &[u32], tokenizer: &Tokenizer) -> Result<bool> {
        if self.stop.is_empty() {
            return Ok(false);
        }
        // A token has one byte of text at least, unless it is special: then there is more to look at.
        let (last, mut window) = (ids.len().saturating_sub(1), self.longest + MARGIN);
        let mut start = last.saturating_sub(window);
        while start > 0 && text(&ids[start..last], tokenizer)?.len() < self.longest + MARGIN {
            window *= 2;
            start = last.saturating_sub(window);
        }
        Ok(self.position(&text(&ids[start..], tokenizer)?).is_some())
    }

    /// Where the first stop string begins in `text`, in bytes.
    pub(super) fn position(&self, text: &str) -> Option<usize> {
        self.stop.iter().filter_map(|it| text.find(it.as_str())).min()
    }
}

/// The text of a completion, special tokens left out.
pub(super) fn text(ids: &[u32], tokenizer: &Tokenizer) -> Result<String> {
    tokenizer.decode(ids, true).map_err(EngineError::Data)
}
