//! sacrebleu's tokenisers: <https://github.com/mjpost/sacrebleu>, `sacrebleu/tokenizers`.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2_iter};
use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// How a line becomes words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
pub enum Tokenizer {
    /// WMT's `mteval-v13a`: ASCII punctuation apart. sacrebleu's default; for languages with spaces.
    #[default]
    #[serde(rename = "13a")]
    V13a,
    /// `mteval-v14` with its international option: Unicode punctuation and symbols apart.
    #[serde(rename = "intl")]
    Intl,
    /// Every character a word, white space left out. For Japanese, Thai and other scripts without spaces.
    #[serde(rename = "char")]
    Char,
    /// Chinese characters each a word, the rest as `13a`.
    #[serde(rename = "zh")]
    Zh,
    /// Words are what white space separates.
    #[serde(rename = "none")]
    None,
}

impl Tokenizer {
    /// The words of `line`. As in sacrebleu, white space at its end is dropped first.
    pub fn words(self, line: &str) -> Vec<String> {
        let line = line.trim_end_matches(is_space);
        let text = match self {
            Self::V13a => v13a(line),
            Self::Intl => intl(line),
            Self::Char => return line.chars().filter(|it| !is_space(*it)).map(String::from).collect(),
            Self::Zh => zh(line),
            Self::None => line.to_owned(),
        };
        words(&text).map(str::to_owned).collect()
    }
}

/// White space as Python's `str.split` sees it: Unicode's, and the four ASCII separators.
pub fn is_space(it: char) -> bool {
    it.is_whitespace() || matches!(it, '\u{1c}'..='\u{1f}')
}

/// What white space separates.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|it| !it.is_empty())
}

/// Puts spaces before, between and after each two characters that `pair` accepts, as `re.sub` does with a pattern of
/// two characters: from the left, without overlap.
fn space_pairs(text: &str, [before, between, after]: [&str; 3], pair: impl Fn(char, char) -> bool) -> String {
    let mut spaced = String::with_capacity(text.len() + text.len() / 4);
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.next() {
        if let Some(second) = rest.next_if(|second| pair(first, *second)) {
            spaced.push_str(before);
            spaced.push(first);
            spaced.push_str(between);
            spaced.push(second);
            spaced.push_str(after);
        } else {
            spaced.push(first);
        }
    }
    spaced
}

/// Puts a space on both sides of each character that `apart` accepts.
fn space_around(text: &str, apart: impl Fn(char) -> bool) -> String {
    let mut spaced = String::with_capacity(text.len() + text.len() / 4);
    for it in text.chars() {
        if apart(it) {
            spaced.extend([' ', it, ' ']);
        } else {
            spaced.push(it);
        }
    }
    spaced
}

fn v13a(line: &str) -> String {
    let mut line = Cow::Borrowed(line);
    let mut replace = |from: &str, to: &str| {
        // Most lines hold none: they are not copied.
        if memchr(from.as_bytes()[0], line.as_bytes()).is_some() {
            line = line.replace(from, to).into();
        }
    };
    replace("<skipped>", "");
    replace("-\n", "");
    replace("\n", " ");
    // In this order, so that `&amp;lt;` becomes `<`, as there.
    [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")]
        .iter()
        .for_each(|it| replace(it.0, it.1));
    western(&format!(" {line} "))
}

/// The part of `13a` that knows Western punctuation.
fn western(line: &str) -> String {
    let line = space_signs(line);
    let stops = memchr2_iter(b'.', b',', line.as_bytes());
    let line = space_second(&line, stops, |before| !before.is_ascii_digit());
    let stops = memchr2_iter(b'.', b',', line.as_bytes());
    let line = space_first(&line, stops, |after| !after.is_ascii_digit());
    let hyphens = memchr_iter(b'-', line.as_bytes());
    space_second(&line, hyphens, |before| before.is_ascii_digit())
}

/// [`space_pairs`] with ASCII as the second, which stands at `signs` and gets spaces on both sides.
fn space_second(text: &str, signs: impl Iterator<Item = usize>, first: impl Fn(u8) -> bool) -> String {
    let bytes = text.as_bytes();
    let mut spaced = String::with_capacity(text.len() + text.len() / 4);
    let mut rest = 0;
    for at in signs {
        // Of a longer character the last byte tells as much as the character: it is no ASCII.
        if at > rest && first(bytes[at - 1]) {
            spaced.push_str(&text[rest..at]);
            spaced.extend([' ', char::from(bytes[at]), ' ']);
            rest = at + 1;
        }
    }
    spaced.push_str(&text[rest..]);
    spaced
}

/// [`space_pairs`] with ASCII as the first, which stands at `signs` and gets spaces on both sides.
fn space_first(text: &str, signs: impl Iterator<Item = usize>, second: impl Fn(u8) -> bool) -> String {
    let bytes = text.as_bytes();
    let mut spaced = String::with_capacity(text.len() + text.len() / 4);
    // Up to where it is written, and up to where characters belong to a pair.
    let (mut rest, mut paired) = (0, 0);
    for at in signs {
        if at >= paired && bytes.get(at + 1).is_some_and(|it| second(*it)) {
            spaced.push_str(&text[rest..at]);
            spaced.extend([' ', char::from(bytes[at]), ' ']);
            (rest, paired) = (at + 1, at + 2);
        }
    }
    spaced.push_str(&text[rest..]);
    spaced
}

/// Puts a space on both sides of each of ASCII's signs, spaces too, but not of `'`, `,`, `-` and `.`.
fn space_signs(line: &str) -> String {
    let apart = |it| matches!(it, b'{'..=b'~' | b'['..=b'`' | b' '..=b'&' | b'('..=b'+' | b':'..=b'@' | b'/');
    let mut spaced = Vec::with_capacity(2 * line.len());
    for it in line.bytes() {
        if apart(it) {
            spaced.extend([b' ', it, b' ']);
        } else {
            spaced.push(it);
        }
    }
    String::from_utf8(spaced).expect("ASCII was put between characters")
}

fn intl(line: &str) -> String {
    let line = space_pairs(line, ["", " ", " "], |first, second| !is_number(first) && is_punctuation(second));
    let line =
        space_pairs(&line, [" ", " ", ""], |first, second| is_punctuation(first) && !is_number(second));
    space_around(&line, is_symbol)
}

fn zh(line: &str) -> String {
    western(&space_around(line.trim_matches(is_space), is_chinese))
}

/// The characters that sacrebleu's `zh` separates. Its two ranges beyond U+FFFF are written there with `\u` and five
/// digits, which Python reads as two characters; what they mean by its order of strings is reproduced: much of U+2001
/// to U+2A6D (dashes, quotation marks, arrows) is apart, extension B of the ideographs is not.
fn is_chinese(it: char) -> bool {
    matches!(it,
        '\u{3400}'..='\u{4db5}' | '\u{4e00}'..='\u{9fbb}' | '\u{f900}'..='\u{fa2d}' | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}' | '\u{2001}'..='\u{2a6d}' | '\u{2f81}'..='\u{2fa1}' | '\u{ff00}'..='\u{ffef}'
        | '\u{2e80}'..='\u{2eff}' | '\u{3000}'..='\u{303f}' | '\u{31c0}'..='\u{31ef}' | '\u{2f00}'..='\u{2fdf}'
        | '\u{2ff0}'..='\u{2fff}' | '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}' | '\u{3200}'..='\u{33ff}')
}

fn is_number(it: char) -> bool {
    use Category::{DecimalNumber, LetterNumber, OtherNumber};
    matches!(get_general_category(it), DecimalNumber | LetterNumber | OtherNumber)
}

/// Unicode's category P.
pub(crate) fn is_punctuation(it: char) -> bool {
    use Category::{
        ClosePunctuation, ConnectorPunctuation, DashPunctuation, FinalPunctuation, InitialPunctuation,
        OpenPunctuation, OtherPunctuation,
    };
    matches!(
        get_general_category(it),
        ClosePunctuation
            | ConnectorPunctuation
            | DashPunctuation
            | FinalPunctuation
            | InitialPunctuation
            | OpenPunctuation
            | OtherPunctuation
    )
}

fn is_symbol(it: char) -> bool {
    use Category::{CurrencySymbol, MathSymbol, ModifierSymbol, OtherSymbol};
    matches!(get_general_category(it), CurrencySymbol | MathSymbol | ModifierSymbol | OtherSymbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The patterns of `13a` as sacrebleu has them, one character after the other.
    fn as_written(line: &str) -> String {
        let apart = |it| matches!(it, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/');
        let stop = |it| matches!(it, '.' | ',');
        let digit = |it: char| it.is_ascii_digit();
        let line = space_around(line, apart);
        let line = space_pairs(&line, ["", " ", " "], |first, second| !digit(first) && stop(second));
        let line = space_pairs(&line, [" ", " ", ""], |first, second| stop(first) && !digit(second));
        space_pairs(&line, ["", " ", " "], |first, second| digit(first) && second == '-')
    }

    #[test]
    fn western_punctuation_is_found_as_the_patterns_find_it() {
        let parts = ["", ".", ",", "-", "1", "a", " ", "é", "字", "'", "{", "x.", "1,", "\n", "5-"];
        let count = parts.len().pow(4);
        for number in 0..count {
            let text: String = (0..4).map(|it| parts[number / parts.len().pow(it) % parts.len()]).collect();
            assert_eq!(western(&text), as_written(&text), "{text:?}");
        }
    }

    #[test]
    fn pairs_do_not_overlap() {
        // The second full stop is part of the first pair; as `re.sub` does.
        assert_eq!(space_pairs("a...", ["", " ", " "], |a, b| !a.is_ascii_digit() && b == '.'), "a . . . ");
    }

    #[test]
    fn python_splits_at_ascii_separators_too() {
        assert_eq!(words("a\u{1f}b\u{3000}c\u{a0}d").collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }
}
