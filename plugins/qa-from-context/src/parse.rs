//! Pairs of question and answer in what a model writes: lines `Q:` and `A:`, or a JSON list.

use serde_json::Value;
use text_tools::extract;

/// One pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionAnswer {
    /// What is asked.
    pub question: String,
    /// What answers it.
    pub answer: String,
}

const QUESTION: [&str; 5] = ["q", "question", "问", "问题", "質問"];
const ANSWER: [&str; 6] = ["a", "answer", "答", "答案", "回答", "答え"];

/// What a line begins with: a label, perhaps numbered or in bold (`**Q1:**`, `2. Question:`), and what follows it.
fn labelled(line: &str) -> Option<(bool, &str)> {
    let (label, rest) = line.split_once([':', '：'])?;
    let label: String = label.chars().filter(|it| it.is_alphabetic()).collect::<String>().to_lowercase();
    let rest = rest.trim_matches(['*', ' ', '\t']);
    if QUESTION.contains(&label.as_str()) {
        Some((true, rest))
    } else if ANSWER.contains(&label.as_str()) {
        Some((false, rest))
    } else {
        None
    }
}

/// The pairs of an answer; what is only half of a pair is left out.
pub fn pairs(text: &str) -> Vec<QuestionAnswer> {
    let of_json = json(extract::fence(text).unwrap_or(text).trim());
    let pairs = if of_json.is_empty() { of_lines(text) } else { of_json };
    pairs.into_iter().filter(|it| !it.question.is_empty() && !it.answer.is_empty()).collect()
}

fn json(text: &str) -> Vec<QuestionAnswer> {
    let begin = text.find('[').unwrap_or(0);
    let list = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Vec<Value>>().next();
    let field = |it: &Value, names: &[&str]| {
        names
            .iter()
            .find_map(|name| it.get(*name)?.as_str().map(|it| it.trim().to_owned()))
            .unwrap_or_default()
    };
    let pair = |it: &Value| QuestionAnswer {
        question: field(it, &["question", "q", "问题"]),
        answer: field(it, &["answer", "a", "答案"]),
    };
    list.and_then(Result::ok).unwrap_or_default().iter().map(pair).collect()
}

fn of_lines(text: &str) -> Vec<QuestionAnswer> {
    let mut pairs: Vec<QuestionAnswer> = Vec::new();
    let mut in_answer = false;
    for line in text.lines().map(str::trim) {
        match labelled(line) {
            Some((true, question)) => {
                pairs.push(QuestionAnswer { question: question.into(), answer: String::new() });
                in_answer = false;
            }
            Some((false, answer)) => {
                if let Some(last) = pairs.last_mut().filter(|it| it.answer.is_empty()) {
                    last.answer = answer.into();
                }
                in_answer = true;
            }
            // An empty line ends an answer of several lines.
            None if line.is_empty() => in_answer = false,
            None => {
                if let Some(last) = pairs.last_mut().filter(|it| in_answer && !it.answer.is_empty()) {
                    last.answer = format!("{}\n{line}", last.answer);
                }
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        pairs(text).into_iter().map(|it| (it.question, it.answer)).collect()
    }

    #[test]
    fn lines_and_json_give_the_same_pairs() {
        let expected = vec![("Who?".to_owned(), "Ada".to_owned()), ("When?".into(), "1843".into())];
        for text in [
            "Q: Who?\nA: Ada\n\nQ: When?\nA: 1843",
            "Here you are:\n\n**Q1:** Who?\n**A1:** Ada\n**Q2:** When?\n**A2:** 1843\n\nThat is all.",
            "1. Question: Who?\n   Answer: Ada\n2. Question: When?\n   Answer: 1843",
            "```json\n[{\"question\": \"Who?\", \"answer\": \"Ada\"}, {\"q\": \"When?\", \"a\": \"1843\"}]\n```",
            "问题1：Who?\n答案1：Ada\n问：When?\n答：1843",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn halves_of_pairs_are_left_out_and_answers_may_have_lines() {
        assert_eq!(read("Q: Who?\nQ: When?\nA: a\nb\n\nc"), [("When?".to_owned(), "a\nb".to_owned())]);
        assert!(read("no pairs").is_empty());
    }
}
