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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A byte-level tokenizer: most characters below are several tokens, and `</s>` is special.
    fn tokenizer() -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/chat_template");
        Tokenizer::load(&folder).unwrap()
    }

    /// At every length, looking at the end of the text says what looking at all of it says.
    #[test]
    fn the_end_of_the_text_tells_as_much_as_all_of_it() {
        let tokenizer = tokenizer();
        let stop: Vec<String> = ["###", "Ende \u{20ac}!", "\n\n"].map(String::from).into();
        let scan = StopScan::new(&stop);
        let special = "</s>".repeat(60);
        let texts = [
            "It has none of them: # here and # there, nor ## together, again and again and again."
                .to_string(),
            "The first answer.\n###\nThe second".to_string(),
            "caf\u{e9} \u{1f600} \u{20ac} is not Ende \u{20ac}! but that was".to_string(),
            format!("a paragraph that goes on for a while\n{special}\nand the next"),
        ];
        let mut found = 0;
        for all in &texts {
            let ids = tokenizer.encode(all).unwrap().ids;
            let ended = (1..=ids.len()).find(|end| scan.ends(&ids[..*end], &tokenizer).unwrap());
            let contains = |end: &usize| scan.position(&text(&ids[..*end], &tokenizer).unwrap()).is_some();
            assert_eq!(ended, (1..=ids.len()).find(contains), "{all}");
            found += usize::from(ended.is_some());
        }
        assert_eq!(found, 3);
    }

    #[test]
    fn the_first_of_several_is_where_the_text_is_cut() {
        let stop = ["later".to_string(), "soon".to_string()];
        assert_eq!(StopScan::new(&stop).position("as soon as later"), Some(3));
        assert_eq!(StopScan::new(&[]).position("text"), None);
    }
}
