//! Where an answer stands in a longer text.

/// What stands inside the last `\boxed{...}`, braces balanced.
pub fn boxed(text: &str) -> Option<&str> {
    let (begin, command) =
        ["\\boxed{", "\\fbox{"].into_iter().filter_map(|it| Some((text.rfind(it)?, it))).max()?;
    let inside = &text[begin + command.len()..];
    let mut depth = 1usize;
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' => {
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
    let after = &text[text.rfind("####")? + 4..];
    let line = after.trim_start_matches([' ', '\t']).lines().next()?.trim();
    (!line.is_empty()).then_some(line)
}

/// What stands inside the last `<tag>...</tag>`.
pub fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let end = text.rfind(&format!("</{name}>"))?;
    let opening = format!("<{name}>");
    let begin = text[..end].rfind(&opening)? + opening.len();
    Some(text[begin..end].trim())
}

/// The first Markdown code fence, without its language.
pub fn fence(text: &str) -> Option<&str> {
    let after = &text[text.find("```")? + 3..];
    let (_, body) = after.split_once('\n')?;
    Some(body[..body.find("```")?].trim())
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

/// What follows the last "the answer is", up to the end of its sentence or line; the common wordings in English,
/// Chinese, Japanese and Korean.
pub fn phrase(text: &str) -> Option<&str> {
    // Lower-casing ASCII only keeps every byte where it is.
    let lower = text.to_ascii_lowercase();
    let begin = PHRASES.iter().filter_map(|it| Some(lower.rfind(it)? + it.len())).max()?;
    let line = text[begin..].lines().next()?;
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
    text.lines().rev().map(str::trim).find(|it| !it.is_empty())
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
