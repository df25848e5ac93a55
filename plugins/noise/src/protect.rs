//! What carries meaning by itself and is left alone.

/// For each byte whether it is left alone: code in backticks, addresses, placeholders in braces or angle brackets, words
/// that hold a digit.
pub fn mask(text: &str) -> Vec<bool> {
    let mut mask = vec![false; text.len()];
    let mut cover = |from: usize, to: usize| mask[from..to].fill(true);
    for (open, close) in [("```", "```"), ("`", "`"), ("{", "}"), ("<", ">")] {
        let mut from = 0;
        while let Some(begin) = text[from..].find(open).map(|it| it + from) {
            let inside = begin + open.len();
            let Some(end) = text[inside..].find(close).map(|it| inside + it + close.len()) else { break };
            // What goes on over a line's end is no placeholder.
            if open == "```" || !text[begin..end].contains('\n') {
                cover(begin, end);
            }
            from = end;
        }
    }
    for word in text.split_whitespace() {
        let begin = word.as_ptr() as usize - text.as_ptr() as usize;
        let address =
            word.contains("://") || word.starts_with("www.") || word.contains('@') || word.contains('\\');
        if address || word.chars().any(|it| it.is_ascii_digit()) {
            // Among Han characters only the digits and letters beside them are left alone.
            for (at, character) in word.char_indices() {
                if address || character.is_ascii() {
                    cover(begin + at, begin + at + character.len_utf8());
                }
            }
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text with what is left alone as `_`.
    fn shown(text: &str) -> String {
        let mask = mask(text);
        text.char_indices().map(|(at, it)| if mask[at] { '_' } else { it }).collect()
    }

    #[test]
    fn numbers_addresses_code_and_placeholders_are_left_alone() {
        assert_eq!(shown("pay 3.50 to a@b.c by http://x.y now"), "pay ____ to _____ by __________ now");
        assert_eq!(shown("run `ls -l` in {dir} or <name>"), "run _______ in _____ or ______");
        assert_eq!(shown("a < b"), "a < b");
        assert_eq!(shown("共有12人"), "共有__人");
    }
}
