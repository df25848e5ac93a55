//! Where an answer stands in a longer text. Each looks at a text's bytes once, from its end where the last counts.

use memchr::{memchr_iter, memrchr_iter};

use crate::scan::last_place;
use crate::words::lines_backward;

/// What stands inside the last `\boxed{...}`, braces balanced.
pub fn boxed(text: &str) -> Option<&str> {
    let inside = memrchr_iter(b'\\', text.as_bytes())
        .find_map(|at| ["\\boxed{", "\\fbox{"].iter().find_map(|it| text[at..].strip_prefix(it)))?;
    let mut depth = 1usize;
    let mut escaped = false;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(&inside[..at]);
                }
            }
            _ => {}
        }
    }
    None
}

/// The line after the last `####`, as GSM8K marks its answers.
pub fn hash(text: &str) -> Option<&str> {
    let mut signs = memrchr_iter(b'#', text.as_bytes());
    let after = signs.find_map(|at| text[..=at].ends_with("####").then(|| &text[at + 1..]))?;
    let line = after.trim_start_matches([' ', '\t']).lines().next()?.trim();
    (!line.is_empty()).then_some(line)
}

/// What stands inside the last `<tag>...</tag>`.
pub fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let end = last_mark(text, "</", name)?;
    let opening = last_mark(&text[..end], "<", name)?;
    let begin = opening + "<".len() + name.len() + ">".len();
    Some(text[begin..end].trim())
}

/// Where the last `<name>` or `</name>` begins.
fn last_mark(text: &str, open: &str, name: &str) -> Option<usize> {
    let is_mark = |at: usize| {
        let after = text[at..].strip_prefix(open).and_then(|it| it.strip_prefix(name));
        after.is_some_and(|it| it.starts_with('>'))
    };
    memrchr_iter(b'<', text.as_bytes()).find(|at| is_mark(*at))
}

/// The first Markdown code fence, without its language.
pub fn fence(text: &str) -> Option<&str> {
    let after = &text[first_fence(text)? + 3..];
    let (_, body) = after.split_once('\n')?;
    Some(body[..first_fence(body)?].trim())
}

fn first_fence(text: &str) -> Option<usize> {
    memchr_iter(b'`', text.as_bytes()).find(|at| text[*at..].starts_with("```"))
}

const PHRASES: [&str; 12] = [
    "answer is",
    "answer:",
    "answers:",
    "result is",
    "答案是",
    "答案为",
    "答案：",
    "答案:",
    "结果是",
    "结果为",
    "答えは",
    "정답은",
];

/// The bytes with which phrases end, capital letters included.
const PHRASE_ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let mut phrase = 0;
    while phrase < PHRASES.len() {
        let bytes = PHRASES[phrase].as_bytes();
        let last = bytes[bytes.len() - 1];
        ends[last as usize] = true;
        ends[last.to_ascii_uppercase() as usize] = true;
        phrase += 1;
    }
    ends
};

/// Where the phrase ends that ends last; capital and small letters of ASCII are the same.
fn last_phrase(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let is_here = |phrase: &&str, last: usize| {
        let begin = (last + 1).checked_sub(phrase.len());
        begin.is_some_and(|begin| bytes[begin..=last].eq_ignore_ascii_case(phrase.as_bytes()))
    };
    let ends =
        |last: usize| PHRASE_ENDS[usize::from(bytes[last])] && PHRASES.iter().any(|it| is_here(it, last));
    // Phrases end in `is`, `r:` and `s:`, or with a character beyond ASCII and perhaps a colon.
    let may_end = |before: u8, last: u8| {
        let letter = before | 0x20;
        let colon = (letter == b'r') | (letter == b's') | !before.is_ascii();
        ((last | 0x20 == b's') & (letter == b'i')) | ((last == b':') & colon) | !last.is_ascii()
    };
    Some(last_place(bytes, may_end, ends)? + 1)
}

/// What follows the last "the answer is", up to the end of its sentence or line; the common wordings in English,
/// Chinese, Japanese and Korean.
pub fn phrase(text: &str) -> Option<&str> {
    let line = text[last_phrase(text)?..].lines().next()?;
    let end = line.char_indices().find(|(at, it)| match it {
        '。' | '！' | '？' | '!' | '?' => true,
        '.' => line[at + 1..].chars().next().is_none_or(char::is_whitespace),
        _ => false,
    });
    let answer = line[..end.map_or(line.len(), |it| it.0)].trim_matches([' ', ':', '：', '*', '\t']);
    (!answer.is_empty()).then_some(answer)
}

/// The last line with something on it.
pub fn last_line(text: &str) -> Option<&str> {
    lines_backward(text).map(str::trim).find(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_mark_an_answer_is_found() {
        assert_eq!(boxed(r"so \boxed{1} or \boxed{\frac{3}{4}}."), Some(r"\frac{3}{4}"));
        assert_eq!(boxed(r"\boxed{\{1\}}"), Some(r"\{1\}"));
        assert_eq!(boxed(r"\boxed{1"), None);
        assert_eq!(hash("3*4=12\n#### 1,200\n"), Some("1,200"));
        assert_eq!(hash("#### "), None);
        assert_eq!(tag("<answer>a</answer> <answer> b </answer>", "answer"), Some("b"));
        assert_eq!(fence("Here:\n```json\n{}\n```"), Some("{}"));
        assert_eq!(last_line("a\n b \n\n"), Some("b"));
    }

    #[test]
    fn a_phrase_ends_with_its_sentence_and_not_at_a_decimal_point() {
        assert_eq!(phrase("The answer is 3.5. Bye"), Some("3.5"));
        assert_eq!(phrase("**Answer:** Paris\nmore"), Some("Paris"));
        assert_eq!(phrase("所以答案是三百。谢谢"), Some("三百"));
        assert_eq!(phrase("The Answer is: X = 4"), Some("X = 4"));
        assert_eq!(phrase("none"), None);
    }
}
