//! A list of words, and where they stand in a text.

use aho_corasick::{AhoCorasick, MatchKind};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Of the section it stands in; empty before the first.
    pub language: String,
    /// As it stands in the list.
    pub text: String,
}

/// Reads a list: a word or phrase a line, `[xx]` for the language of what follows, `#` for comments.
pub fn read(list: &str) -> Vec<Word> {
    let mut language = String::new();
    let mut words = Vec::new();
    for line in list.lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#')) {
        match line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            Some(section) => language = section.trim().to_owned(),
            None => words.push(Word { language: language.clone(), text: line.to_owned() }),
        }
    }
    words
}

/// Finds the words of a list.
pub struct Finder {
    automaton: AhoCorasick,
    /// As they stand in the list, in the automaton's order.
    words: Vec<String>,
}

impl Finder {
    /// # Errors
    /// A list that is too long.
    pub fn new(words: Vec<String>) -> Result<Self, String> {
        let patterns: Vec<String> = words.iter().map(|it| folded(it)).collect();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&patterns);
        Ok(Self { automaton: automaton.map_err(|error| error.to_string())?, words })
    }

    /// What is found, from the start on; of what overlaps the first, of those that begin together the longest.
    pub fn find(&self, text: &str) -> Vec<&str> {
        let text = folded(text);
        let mut found: Vec<_> = self
            .automaton
            .find_overlapping_iter(&text)
            .filter(|it| !it.is_empty() && stands_apart(&text, it.start(), it.end()))
            .map(|it| (it.start(), std::cmp::Reverse(it.end()), it.pattern()))
            .collect();
        found.sort_unstable();
        let mut from = 0;
        let mut words = Vec::new();
        for (start, std::cmp::Reverse(end), pattern) in found {
            if start >= from {
                words.push(self.words[pattern.as_usize()].as_str());
                from = end;
            }
        }
        words
    }
}

/// Without case, width and composition.
fn folded(text: &str) -> String {
    text.nfkc().flat_map(char::to_lowercase).nfc().collect()
}

/// Whether a match is a word of its own: its script writes words together, or no letter goes on at either end.
fn stands_apart(text: &str, start: usize, end: usize) -> bool {
    let word = &text[start..end];
    let goes_on = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || is_combining_mark(it));
    let (first, last) = (word.chars().next(), word.chars().next_back());
    let begins = first.is_some_and(is_written_together) || !goes_on(text[..start].chars().next_back());
    let ends = last.is_some_and(is_written_together) || !goes_on(text[end..].chars().next());
    begins && ends
}

/// Chinese, Japanese, Korean (whose particles follow without a space), Thai, Lao, Burmese, Khmer.
fn is_written_together(it: char) -> bool {
    matches!(it,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}' | '\u{1780}'..='\u{17ff}'
        | '\u{2e80}'..='\u{312f}' | '\u{3130}'..='\u{318f}' | '\u{31a0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(finder: &'a Finder, text: &str) -> Vec<&'a str> {
        finder.find(text)
    }

    #[test]
    fn words_with_spaces_are_whole_and_others_are_inside() {
        let finder =
            Finder::new(["ass", "shut up", "混蛋", "混", "바보", "मूर्ख"].map(String::from).into()).unwrap();
        assert!(find(&finder, "a class, assess, ass1").is_empty());
        assert_eq!(find(&finder, "You ASS! Shut up."), ["ass", "shut up"]);
        assert_eq!(find(&finder, "你这个混蛋啊"), ["混蛋"]);
        assert_eq!(find(&finder, "混混"), ["混", "混"]);
        assert_eq!(find(&finder, "너는 바보야"), ["바보"]);
        assert_eq!(find(&finder, "वह मूर्ख है"), ["मूर्ख"]);
        assert!(find(&finder, "मूर्खता").is_empty());
    }

    #[test]
    fn width_case_and_composition_do_not_matter() {
        let finder = Finder::new(["crétin", "バカ"].map(String::from).into()).unwrap();
        assert_eq!(find(&finder, "CRE\u{301}TIN ｂａｋａ ﾊﾞｶ"), ["crétin", "バカ"]);
    }

    #[test]
    fn a_list_has_sections_and_comments() {
        let words = read("# mine\nfirst\n\n[de]\n dumm \n# no\n[zh]\n笨");
        let pairs: Vec<_> = words.iter().map(|it| (it.language.as_str(), it.text.as_str())).collect();
        assert_eq!(pairs, [("", "first"), ("de", "dumm"), ("zh", "笨")]);
    }
}
