//! Where numbers stand in a text. What a number looks like: [`crate::number`].

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};

use crate::number::{CURRENCIES, Decimal, Found, VULGAR, at};
use crate::numerals;
use crate::scan::last_place;
use crate::script::{half_width, narrow};
use crate::words::lines_backward;

/// The whole text as one number, apart from spaces, a currency sign and a closing full stop.
pub fn whole(text: &str, decimal: Decimal) -> Option<Found> {
    // Most texts are told by their first letter. Behind a backslash letters may stand for nothing.
    let other =
        text.trim().chars().find(|it| narrow(*it) == '\\' || !(may_stand_in_number(*it) || *it == '。'));
    if other.is_some_and(|it| narrow(it) != '\\') {
        return None;
    }
    let text = prepared(text, decimal);
    let text = text.trim().trim_matches('$').trim();
    let (found, end) = at(text, 0)?;
    let rest = text[end..].trim().trim_end_matches(['.', '。']);
    rest.is_empty().then_some(found)
}

/// The last number in the text.
pub fn last(text: &str, decimal: Decimal) -> Option<Found> {
    // No number goes over a line's end: most texts need a look at few lines.
    lines_backward(text).find_map(|line| last_of_line(line, decimal))
}

/// Every number in the text, in order.
pub fn all(text: &str, decimal: Decimal) -> Vec<Found> {
    numbers(&prepared(text, decimal), 0).collect()
}

/// The last one, by a look at little more than what surrounds it.
fn last_of_line(line: &str, decimal: Decimal) -> Option<Found> {
    // LaTeX's commands hold letters that would separate numbers; without them pieces are made ready one by one.
    let latex = has_backslash(line);
    let line = if latex { prepared(line, decimal) } else { Cow::Borrowed(line) };
    let mut end = line.len();
    loop {
        let digit = last_digit(&line[..end])?;
        // Between characters that stand in no number the same numbers are found as in the whole line. The one in front
        // is kept: what a number begins behind counts.
        let separates = |it: &(usize, char)| !may_stand_in_number(it.1);
        let begin = line[..digit].char_indices().rev().find(separates).map(|it| it.0);
        let after = line[digit..end].char_indices().find(separates);
        let piece = &line[begin.unwrap_or(0)..after.map_or(end, |it| digit + it.0)];
        let piece = if latex { Cow::Borrowed(piece) } else { prepared(piece, decimal) };
        let first = begin.and_then(|_| piece.chars().next()).map_or(0, char::len_utf8);
        if let Some(found) = numbers(&piece, first).last() {
            return Some(found);
        }
        end = begin?;
    }
}

/// Whether a backslash of either width stands in it.
fn has_backslash(text: &str) -> bool {
    let wide = |at: usize| text.as_bytes()[at..].starts_with("＼".as_bytes());
    memchr(b'\\', text.as_bytes()).is_some() || memchr_iter("＼".as_bytes()[0], text.as_bytes()).any(wide)
}

/// Where the last character stands of those of which every number has one.
fn last_digit(text: &str) -> Option<usize> {
    let mut end = text.len();
    while let Some(character) = text[..end].chars().next_back() {
        if character.is_ascii() {
            let bytes = &text.as_bytes()[..end];
            let wanted = |it: u8| it.is_ascii_digit() | !it.is_ascii();
            let at = last_place(bytes, |_, it| wanted(it), |at| wanted(bytes[at]))?;
            if bytes[at].is_ascii() {
                return Some(at);
            }
            end = at + 1;
        } else {
            end -= character.len_utf8();
            if is_digit(character) {
                return Some(end);
            }
        }
    }
    None
}

/// Whether a character beyond ASCII may be the only digit of a number.
fn is_digit(character: char) -> bool {
    match character {
        '\u{3000}'..='\u{9fff}' => numerals::begins(character),
        '０'..='９' => true,
        _ => is_vulgar(character),
    }
}

fn is_vulgar(character: char) -> bool {
    matches!(character, '¼'..='¾' | '⅐'..='⅞') && VULGAR.iter().any(|it| it.0 == character)
}

/// Whether [`at`] may read past it: of ASCII digits, `e E x` and `\frac` of the letters, and some signs.
fn may_stand_in_number(character: char) -> bool {
    match narrow(character) {
        '0'..='9' | 'e' | 'E' | 'x' | 'f' | 'r' | 'a' | 'c' => true,
        '\\' | '{' | '}' | '$' | '%' | '\'' | '*' | '+' | ',' | '-' | '.' | '/' | '^' | ' ' => true,
        other if other.is_ascii() => other.is_ascii_whitespace() || other == '\u{b}',
        '分' | '之' | '点' | '點' | '负' | '負' | '×' | '⁄' | '\u{2019}' => true,
        other => {
            numerals::is_part(other)
                || is_vulgar(other)
                || CURRENCIES.contains(&other)
                || other.is_whitespace()
        }
    }
}

/// The numbers that begin from `from` on, in order; `from` stands in the middle of none.
fn numbers(text: &str, from: usize) -> impl Iterator<Item = Found> {
    let mut from = from;
    std::iter::from_fn(move || {
        while let Some(character) = text[from..].chars().next() {
            if begins_number(character) {
                // After a slash no fraction begins: that is a date's middle.
                let slash = text[..from].ends_with('/').then(|| text[from..].find('/')).flatten();
                let seen = &text[..slash.map_or(text.len(), |it| from + it)];
                if let Some((number, end)) = starts_number(seen, from).then(|| at(seen, from)).flatten() {
                    from = end;
                    return Some(number);
                }
            }
            from += character.len_utf8();
        }
        None
    })
}

/// Whether [`at`] may find a number that begins with this: most of a text is letters and spaces, none of which does.
fn begins_number(character: char) -> bool {
    match character {
        '0'..='9' | '+' | '-' | '.' | '\\' => true,
        _ if character.is_ascii() => character == '$',
        '负' | '負' | '百' => true,
        _ => is_digit(character) || CURRENCIES.contains(&character),
    }
}

/// A number begins neither within a word (`x2`) nor within another number; a sign belongs to it only where it is no
/// operator (`3-4`).
fn starts_number(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    match before {
        None => true,
        Some(it) if it.is_ascii_digit() => {
            !text[at..].starts_with(|it: char| it.is_ascii_digit() || "+-.".contains(it))
        }
        Some(it) if it.is_ascii_alphabetic() || it == '_' => {
            !text[at..].starts_with(|it: char| it.is_ascii_digit())
        }
        Some(')' | ']') => !text[at..].starts_with(['+', '-']),
        Some(_) => true,
    }
}

/// Half-width, LaTeX's spacing and braces around separators gone, the decimal sign a point.
fn prepared(text: &str, decimal: Decimal) -> Cow<'_, str> {
    let mut text = half_width(text);
    let bytes = text.as_bytes();
    if memchr(b'\\', bytes).is_some() || memchr_iter(b'{', bytes).any(|it| text[it..].starts_with("{,}")) {
        text = without_latex(&text).into();
    }
    if decimal == Decimal::Point {
        return text;
    }
    let swap = |it| match it {
        ',' => '.',
        '.' => ',',
        other => other,
    };
    text.chars().map(swap).collect::<String>().into()
}

fn without_latex(text: &str) -> String {
    let text = text.replace("{,}", ",").replace("\\,", "").replace("\\!", "").replace("\\%", "%");
    let text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac");
    text.replace("\\$", "$").replace("\\times", "×").replace("\\cdot", "×")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn_texts;

    /// What numbers are made of, what separates them, and what looks like either.
    const PARTS: [&str; 72] = [
        "1",
        "42",
        "1,234",
        "12,34,567",
        "1 234",
        ".5",
        "0.75",
        "3/4",
        "3/4/2020",
        "1e5",
        "e",
        "E-3",
        "x",
        "x10^",
        "×10^5",
        "*10^{-2}",
        "-",
        "+",
        "−",
        "$",
        "€",
        "%",
        " %",
        ",",
        ".",
        "'",
        "’",
        "/",
        "{,}",
        "{",
        "}",
        "\\frac{",
        "\\frac12",
        "\\dfrac{3}{4}",
        "\\times",
        "\\cdot",
        "\\,",
        "\\!",
        "＼times",
        "½",
        "¾",
        "三百",
        "二十一",
        "十",
        "〇",
        "万",
        "亿",
        "点",
        "百分之",
        "分之",
        "负",
        "１２",
        "．５",
        "，",
        "。",
        "％",
        "ａ",
        " ",
        " ",
        " ",
        "\n",
        "\t",
        "\u{a0}",
        "a",
        "the",
        "b2",
        "_",
        "(",
        ")",
        "]",
        ":",
        "字",
    ];

    #[test]
    fn the_last_number_is_the_last_of_all() {
        for text in drawn_texts(&PARTS, 14) {
            for decimal in [Decimal::Point, Decimal::Comma] {
                let expected = text.lines().rev().find_map(|it| all(it, decimal).pop());
                assert_eq!(last(&text, decimal), expected, "{text:?}");
            }
        }
    }

    /// Oracle: [`whole`] without its first look.
    #[test]
    fn a_first_look_refuses_no_number() {
        for text in drawn_texts(&PARTS, 5) {
            let prepared = prepared(&text, Decimal::Point);
            let bare = prepared.trim().trim_matches('$').trim();
            let found = at(bare, 0).filter(|it| bare[it.1..].trim().trim_end_matches(['.', '。']).is_empty());
            assert_eq!(whole(&text, Decimal::Point), found.map(|it| it.0), "{text:?}");
        }
    }
}
