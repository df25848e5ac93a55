//! Scores from what a judge says: a JSON object, wherever it stands, or else lines such as `Relevance: 4/5`. What is not
//! plainly a number from 1 to 5 is no score.

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::rubric::Criterion;

/// What is looked for in an answer.
pub struct Reader {
    criteria: Vec<Criterion>,
    /// `1-5`, `1 to 5`: the scale, which is no score.
    scale: Regex,
    /// A number, and what it is out of.
    number: Regex,
}

impl Reader {
    pub fn new(criteria: Vec<Criterion>) -> Self {
        let pattern = |text| Regex::new(text).expect("the pattern is sound");
        Self {
            criteria,
            scale: pattern(r"[(（\[]?\s*\b1\s*(?:-|–|—|~|～|to|至|到)\s*5\b\s*[)）\]]?"),
            number: pattern(r"(-?\d+(?:\.\d+)?)(?:\s*(?:/|out of|，?满分|of)\s*(\d+))?"),
        }
    }

    /// Of each criterion its score, where there is one.
    pub fn scores(&self, text: &str) -> Vec<Option<f64>> {
        // What a reasoning model thinks aloud is not its verdict.
        let text = text.rsplit("</think>").next().unwrap_or(text);
        let text: String = text.chars().map(half_width).collect();
        let object = objects(&text).into_iter().rev().find_map(|it| self.of_object(&it));
        let mut scores = object.unwrap_or_else(|| vec![None; self.criteria.len()]);
        if scores.iter().all(Option::is_none) {
            scores = self.criteria.iter().map(|it| self.of_lines(it, &text)).collect();
        }
        if let [score @ None] = scores.as_mut_slice() {
            *score = self.only_number(&text);
        }
        scores
    }

    /// `None` where the object is about something else.
    fn of_object(&self, object: &Map<String, Value>) -> Option<Vec<Option<f64>>> {
        let value = |criterion: &Criterion| {
            object.iter().find(|(key, _)| names(criterion).any(|it| it == key.trim().to_lowercase()))
        };
        let found: Vec<_> = self.criteria.iter().map(value).collect();
        let about = found.iter().any(Option::is_some);
        about.then(|| found.into_iter().map(|it| it.and_then(|(_, value)| self.of_value(value))).collect())
    }

    fn of_value(&self, value: &Value) -> Option<f64> {
        match value {
            Value::Number(number) => number.as_f64().filter(in_range),
            Value::String(text) => self.first_number(text),
            Value::Object(parts) => {
                let score = ["score", "rating", "value", "分数", "评分", "得分"];
                score.iter().find_map(|key| parts.get(*key)).and_then(|it| self.of_value(it))
            }
            _ => None,
        }
    }

    /// The last line that names the criterion and has a score behind its name.
    fn of_lines(&self, criterion: &Criterion, text: &str) -> Option<f64> {
        let lower = text.to_lowercase();
        let mut found = None;
        for line in lower.lines() {
            let behind =
                names(criterion).filter_map(|it| line.find(&it).map(|at| &line[at + it.len()..])).next();
            // Up to the next criterion, where all stand on one line.
            let until = |rest: &str| {
                let others = self.criteria.iter().filter(|it| it.name != criterion.name);
                others.flat_map(names).filter_map(|it| rest.find(&it)).min().unwrap_or(rest.len())
            };
            if let Some(score) = behind.and_then(|rest| self.first_number(&rest[..until(rest)])) {
                found = Some(score);
            }
        }
        found
    }

    fn first_number(&self, text: &str) -> Option<f64> {
        let text = self.scale.replace_all(text, " ");
        self.number.captures(&text).and_then(|it| score(&it))
    }

    /// A lone number, for a rubric of one line.
    fn only_number(&self, text: &str) -> Option<f64> {
        let text = self.scale.replace_all(text, " ");
        let mut numbers = self.number.captures_iter(&text);
        let first = numbers.next()?;
        if numbers.next().is_some() { None } else { score(&first) }
    }
}

fn score(number: &regex_lite::Captures) -> Option<f64> {
    // A score out of ten is on another scale: it is not ours to convert.
    let ours = number.get(2).is_none_or(|it| it.as_str() == "5");
    number[1].parse().ok().filter(|it| ours && in_range(it))
}

fn in_range(score: &f64) -> bool {
    (1.0..=5.0).contains(score)
}

fn names(criterion: &Criterion) -> impl Iterator<Item = String> {
    std::iter::once(&criterion.name).chain(&criterion.labels).map(|it| it.to_lowercase())
}

/// Digits and marks of East Asian width as ASCII.
fn half_width(it: char) -> char {
    match it {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(it as u32 - 0xfee0).unwrap_or(it),
        _ => it,
    }
}

/// Every JSON object in a text that stands in no other, in order.
fn objects(text: &str) -> Vec<Map<String, Value>> {
    let mut objects = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find('{') {
        let begin = from + at;
        let mut stream = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Map<String, Value>>();
        from = match stream.next() {
            Some(Ok(object)) => {
                objects.push(object);
                begin + stream.byte_offset()
            }
            _ => begin + 1,
        };
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rubric::Language;

    fn scores(text: &str) -> Vec<Option<f64>> {
        Reader::new(Language::En.rubric()).scores(text)
    }

    const ALL: [Option<f64>; 4] = [Some(4.0), Some(5.0), Some(3.0), Some(1.0)];

    #[test]
    fn json_is_read_wherever_it_stands() {
        let plain = r#"{"relevance": 4, "fluency": 5, "informativeness": 3, "correctness": 1}"#;
        assert_eq!(scores(plain), ALL);
        assert_eq!(scores(&format!("Here is my verdict:\n```json\n{plain}\n```\nDone.")), ALL);
        assert_eq!(scores(&format!("<think>{{\"relevance\": 1}} hm</think>{plain}")), ALL);
        // The last object about the rubric is the verdict.
        assert_eq!(scores(&format!("{{\"relevance\": 2}} no: {plain} {{\"note\": 2}}")), ALL);
        let nested = r#"{"Relevance": {"score": 4, "reason": "ok"}, "Fluency": "5/5", "informativeness": "3 out of 5", "correctness": "1 - wrong"}"#;
        assert_eq!(scores(nested), ALL);
    }

    #[test]
    fn lines_are_read_in_any_dress() {
        assert_eq!(scores("Relevance: 4\nFluency: 5\nInformativeness: 3\nCorrectness: 1"), ALL);
        assert_eq!(
            scores("**Relevance** (1-5): 4/5\n- Fluency = 5\n* informativeness — 3\nCORRECTNESS: 1 out of 5"),
            ALL
        );
        assert_eq!(scores("Relevance: 4, Fluency: 5, Informativeness: 3, Correctness: 1"), ALL);
        assert_eq!(scores("相关性：４分\n流畅性：5 分\n信息量：3分（满分5）\n正确性：１"), ALL);
    }

    #[test]
    fn what_is_no_score_is_none_and_no_zero() {
        assert_eq!(scores("I can't judge this."), [None; 4]);
        assert_eq!(scores(""), [None; 4]);
        let partly = r#"{"relevance": 6, "fluency": 0, "informativeness": "n/a", "correctness": 2.5}"#;
        assert_eq!(scores(partly), [None, None, None, Some(2.5)]);
        assert_eq!(scores("Relevance: 8/10\nFluency: -4\nCorrectness: 3"), [None, None, None, Some(3.0)]);
        assert_eq!(scores(r#"{"relevance": <1-5>, "fluency": <1-5>}"#), [None; 4]);
    }

    #[test]
    fn a_rubric_of_one_line_takes_a_lone_number() {
        let one = Reader::new(vec![Language::En.rubric().remove(0)]);
        assert_eq!(one.scores("4"), [Some(4.0)]);
        assert_eq!(one.scores("My score is 4 out of 5."), [Some(4.0)]);
        assert_eq!(one.scores("Between 3 and 4."), [None]);
    }
}
