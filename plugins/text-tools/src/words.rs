//! Words, sentences and runs of them.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::is_ideographic;
use crate::scan::{Eight, beyond_ascii, each_run, is_ascii};

/// What stands between spaces, and each Han or kana character by itself: what n-grams are made of.
///
/// Text without such characters is split as Python's `str.split` does.
pub fn tokens(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    each_token(text, |it| all.push(&text[it]));
    all
}

/// Calls `found` with the place of each of [`tokens`].
pub fn each_token(text: &str, mut found: impl FnMut(Range<usize>)) {
    if is_ascii(text) {
        return each_run(text.as_bytes(), Eight::no_space, found);
    }
    let mut begin = 0;
    for (at, character) in text.char_indices() {
        let alone = is_ideographic(character);
        if alone || character.is_whitespace() {
            let end = at + character.len_utf8();
            if begin < at {
                found(begin..at);
            }
            if alone {
                found(at..end);
            }
            begin = end;
        }
    }
    if begin < text.len() {
        found(begin..text.len());
    }
}

/// ASCII's part of `char::is_whitespace`.
fn is_ascii_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Words as Unicode's annex 29 finds them, without punctuation; a Han or kana character is a word.
pub fn words(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    each_word(text, |it| all.push(it));
    all
}

/// How many [`words`] there are.
pub fn word_count(text: &str) -> usize {
    let mut count = 0;
    each_word(text, |_| count += 1);
    count
}

/// Calls `found` with each of [`words`].
fn each_word<'a>(text: &'a str, mut found: impl FnMut(&'a str)) {
    let bytes = text.as_bytes();
    // A word begins behind a space, whatever stands before it, where ASCII follows: nothing reaches over such a place.
    let apart =
        |at: usize| is_ascii_space(bytes[at - 1]) && bytes[at].is_ascii() && !is_ascii_space(bytes[at]);
    let mut rest = 0;
    while rest < bytes.len() {
        let Some(other) = beyond_ascii(&bytes[rest..]).map(|it| rest + it) else {
            return each_ascii_word(&text[rest..], found);
        };
        if let Some(end) = (rest + 1..other).rev().find(|at| apart(*at)) {
            each_ascii_word(&text[rest..end], &mut found);
            rest = end;
        }
        let end = (other + 1..bytes.len()).find(|at| apart(*at)).unwrap_or(bytes.len());
        each_han_word(&text[rest..end], &mut found);
        rest = end;
    }
}

/// [`each_word`] of a text with Han characters, of which each is a word by itself unless a mark follows that belongs to it.
fn each_han_word<'a>(text: &'a str, mut found: impl FnMut(&'a str)) {
    let other = |text: &'a str, found: &mut dyn FnMut(&'a str)| {
        for word in text.unicode_words() {
            // Annex 29 keeps runs of katakana together.
            if word.chars().any(is_ideographic) {
                each_token(word, |it| found(&word[it]))
            } else {
                found(word)
            }
        }
    };
    let mut rest = 0;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if !is_han(character) {
            continue;
        }
        if rest < at {
            other(&text[rest..at], &mut found);
        }
        rest = at;
        let next = characters.peek().map(|it| it.1);
        if next.is_none_or(|it| it.is_ascii() || is_han(it) || matches!(it, '、'..='】' | '！'..='～')) {
            rest = at + character.len_utf8();
            found(&text[at..rest]);
        }
    }
    if rest < text.len() {
        other(&text[rest..], &mut found);
    }
}

/// Han characters as such, which annex 29 joins with nothing but marks.
fn is_han(character: char) -> bool {
    matches!(character, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}')
}

/// [`each_word`] of a text that is all ASCII.
fn each_ascii_word<'a>(text: &'a str, mut found: impl FnMut(&'a str)) {
    let bytes = text.as_bytes();
    let mut word = 0..0;
    let mut end = |word: Range<usize>| {
        if bytes[word.clone()].iter().any(|it| *it != b'_') {
            found(&text[word]);
        }
    };
    each_run(bytes, Eight::word, |run| {
        if run.start == word.end + 1 && !word.is_empty() && joins(bytes, word.end) {
            word.end = run.end;
        } else {
            end(std::mem::replace(&mut word, run));
        }
    });
    end(word);
}

/// Whether a sign stands within a number or a word: `1,000`, `can't`.
fn joins(bytes: &[u8], at: usize) -> bool {
    let (Some(sign), Some(after)) = (bytes.get(at), bytes.get(at + 1)) else { return false };
    let before = bytes[at - 1];
    match sign {
        b'.' | b'\'' if before.is_ascii_digit() => after.is_ascii_digit(),
        b',' | b';' => before.is_ascii_digit() && after.is_ascii_digit(),
        b'.' | b'\'' | b':' => before.is_ascii_alphabetic() && after.is_ascii_alphabetic(),
        _ => false,
    }
}

/// Where each of [`words`] begins, in bytes.
pub fn word_starts(text: &str) -> Vec<usize> {
    let origin = text.as_ptr() as usize;
    words(text).into_iter().map(|it| it.as_ptr() as usize - origin).collect()
}

/// The text's lines without what ends them, from the last on. Behind a last line feed an empty one counts, which
/// `str::lines` leaves out.
pub(crate) fn lines_backward(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let feed = memchr::memrchr(b'\n', text.as_bytes());
        rest = feed.map(|it| &text[..it]);
        let line = &text[feed.map_or(0, |it| it + 1)..];
        Some(line.strip_suffix('\r').unwrap_or(line))
    })
}

/// Abbreviations that a capital letter may follow within a sentence.
const ABBREVIATIONS: [&str; 28] = [
    "mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "e.g.", "i.e.", "no.", "fig.", "eq.", "al.", "cf.",
    "jr.", "sr.", "inc.", "ltd.", "co.", "gen.", "sen.", "rep.", "gov.", "capt.", "col.", "approx.", "dept.",
    "vol.",
];

fn goes_on(sentence: &str) -> bool {
    if sentence.ends_with(['\n', '\r', '\u{2029}']) {
        return false;
    }
    let Some(last) = sentence.trim_end().rsplit(char::is_whitespace).next() else { return false };
    let last = last.trim_start_matches(['(', '[', '"', '“']);
    // A capital letter with a full stop is an initial.
    let initial =
        last.len() == 2 && last.ends_with('.') && last.starts_with(|it: char| it.is_ascii_uppercase());
    initial || ABBREVIATIONS.contains(&last.to_lowercase().as_str())
}

/// Sentences with the space that follows each; their concatenation is the text. Ends are those of Unicode's annex 29,
/// which knows `。！？`; common abbreviations, initials and what goes on in lower case do not end one, a line feed does.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut begin, mut end) = (0, 0);
    for piece in text.split_sentence_bounds() {
        end += piece.len();
        let lower = text[end..].starts_with(char::is_lowercase) && !text[..end].ends_with(['\n', '\r']);
        if !lower && !goes_on(&text[begin..end]) {
            all.push(&text[begin..end]);
            begin = end;
        }
    }
    if begin < end {
        all.push(&text[begin..end]);
    }
    all
}

/// ROUGE-L's F1 of two sequences: the longest common subsequence over the mean of the lengths; 0 where one is empty.
pub fn lcs_f1<T: PartialEq>(a: &[T], b: &[T]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 0.0;
    }
    let mut row = vec![0usize; b.len() + 1];
    for item in a {
        let mut diagonal = 0;
        for (at, other) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if item == other { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    2.0 * row[b.len()] as f64 / (a.len() + b.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn_texts;

    #[test]
    fn tokens_are_python_s_split_and_single_ideographs() {
        assert_eq!(tokens(" Hello,  world!\n"), ["Hello,", "world!"]);
        assert_eq!(tokens("用GPT-4写 代码。"), ["用", "GPT-4", "写", "代", "码", "。"]);
    }

    #[test]
    fn words_have_no_punctuation_and_numbers_stay_whole() {
        assert_eq!(words("It can't be 3.14, (no)!"), ["It", "can't", "be", "3.14", "no"]);
        assert_eq!(words("我爱カタ。한국 말"), ["我", "爱", "カ", "タ", "한국", "말"]);
        assert_eq!(word_starts("a, bc"), [0, 3]);
    }

    /// Everything that annex 29's rules tell apart.
    const PARTS: [&str; 41] = [
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{b}",
        "\u{a0}",
        "\u{3000}",
        "a",
        "Bc",
        "_",
        "1",
        "42",
        ".",
        ",",
        ":",
        ";",
        "'",
        "\"",
        "-",
        "é",
        "e\u{301}",
        "\u{301}",
        "\u{200d}",
        "\u{ad}",
        "א",
        "\u{93f}",
        "क",
        "カタ",
        "字",
        "们，",
        "一。",
        "한",
        "ไ",
        "’",
        "·",
        "１",
        "👍",
        "👩\u{200d}🚀",
        "🇩",
        "🇪",
    ];

    /// Oracle: `unicode-segmentation` on the whole text, without its way for ASCII.
    #[test]
    fn words_are_those_of_annex_29_wherever_the_text_is_cut() {
        for text in drawn_texts(&PARTS, 12) {
            let bounds = text.split_word_bounds().filter(|it| it.unicode_words().next().is_some());
            let expected: Vec<&str> = bounds
                .flat_map(|it| if it.chars().any(is_ideographic) { split_at_spaces(it) } else { vec![it] })
                .collect();
            assert_eq!(words(&text), expected, "{text:?}");
            assert_eq!(word_count(&text), expected.len(), "{text:?}");
        }
    }

    /// Oracle: the standard library's `split_whitespace`.
    #[test]
    fn tokens_are_pieces_between_spaces() {
        for text in drawn_texts(&PARTS, 12) {
            assert_eq!(tokens(&text), split_at_spaces(&text), "{text:?}");
        }
    }

    fn split_at_spaces(text: &str) -> Vec<&str> {
        let piece = |it: &'_ str| -> Vec<(usize, usize)> {
            let mut ends: Vec<usize> = it
                .char_indices()
                .filter(|it| is_ideographic(it.1))
                .flat_map(|(at, character)| [at, at + character.len_utf8()])
                .chain([0, it.len()])
                .collect();
            ends.sort_unstable();
            ends.dedup();
            ends.windows(2).map(|it| (it[0], it[1])).collect()
        };
        text.split_whitespace().flat_map(|it| piece(it).into_iter().map(move |(a, b)| &it[a..b])).collect()
    }

    #[test]
    fn sentences_end_where_readers_end_them() {
        let text = "Dr. Smith paid $3.50. He left! \"Why?\" she asked.\nNext";
        assert_eq!(sentences(text), ["Dr. Smith paid $3.50. ", "He left! ", "\"Why?\" she asked.\n", "Next"]);
        assert_eq!(sentences("今天下雨。你好吗？我很好！"), ["今天下雨。", "你好吗？", "我很好！"]);
        assert_eq!(sentences("他说：“好。”然后走了。"), ["他说：“好。”", "然后走了。"]);
        assert_eq!(sentences("J. R. Tolkien wrote. End"), ["J. R. Tolkien wrote. ", "End"]);
        assert!(sentences("").is_empty());
    }

    #[test]
    fn the_longest_common_subsequence_is_rouge_l() {
        // rouge-score's own example: "police killed the gunman", "police kill the gunman": 3 of 4 and 4.
        let (a, b) = (tokens("police killed the gunman"), tokens("police kill the gunman"));
        assert!((lcs_f1(&a, &b) - 0.75).abs() < 1e-12);
        assert_eq!(lcs_f1(&tokens("a b"), &[]), 0.0);
    }
}
