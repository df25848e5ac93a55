//! 1 for the right answer: text after normalisation, or a number in whatever way it is written.
//!
//! GSM8K's `#### 42` is from <https://arxiv.org/abs/2110.14168>, `\boxed{}` from MATH, <https://arxiv.org/abs/2103.03874>.

use std::cell::{Cell, OnceCell};

use fthost_plugin_sdk::{Columns, ConfigProblem, Group, Reward, Score, export};
use serde_json::Value;
use text_tools::number::{self, Decimal, Found};
use text_tools::{extract, narrow};

mod config;

use config::{Compare, Config, DecimalSign, Percent, Place, Scores};

struct AnswerMatch {
    config: Config,
    /// The component of each place of `extract`.
    components: Vec<String>,
}

impl TryFrom<Config> for AnswerMatch {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.extract.is_empty() {
            return Err(ConfigProblem::new("extract", "must name at least one place"));
        }
        if config.tag.is_empty() || config.tag.contains(['<', '>', '/']) {
            return Err(ConfigProblem::new("tag", format!("must be a tag's name, got `{}`", config.tag)));
        }
        for (key, value) in
            [("tolerance", config.tolerance), ("relative_tolerance", config.relative_tolerance)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(ConfigProblem::new(key, format!("must be >= 0, got `{value}`")));
            }
        }
        let Scores { right, wrong, missing } = config.scores;
        for (key, value) in [("right", right), ("wrong", wrong), ("missing", missing)] {
            if !value.is_finite() {
                return Err(ConfigProblem::new(format!("scores.{key}"), "must be finite"));
            }
        }
        let components = config.extract.iter().map(|it| format!("found/{}", it.name())).collect();
        Ok(Self { config, components })
    }
}

/// One accepted answer.
struct Accepted {
    number: Option<Found>,
    text: String,
}

/// The accepted answers, read once a group.
struct Expected {
    accepted: Vec<Accepted>,
    /// Some are numbers.
    numeric: bool,
    /// Some are texts, and texts count.
    textual: bool,
    /// Bytes of the longest text.
    longest: usize,
}

/// A completion. Its last number is looked for once, however many places ask.
struct Answer<'a> {
    text: &'a str,
    decimal: Decimal,
    last: OnceCell<Option<Found>>,
}

impl<'a> Answer<'a> {
    fn new(text: &'a str, decimal: Decimal) -> Self {
        Self { text, decimal, last: OnceCell::new() }
    }

    /// The last number of a part of the text.
    fn last_number(&self, part: &str) -> Option<Found> {
        if part.len() < self.text.len() {
            return number::last(part, self.decimal);
        }
        *self.last.get_or_init(|| number::last(self.text, self.decimal))
    }
}

/// What a place holds.
#[derive(Clone, Copy)]
struct Held<'a> {
    place: Place,
    text: &'a str,
    /// Its last number, where numbers are asked for.
    last: Option<Found>,
}

impl AnswerMatch {
    fn place<'a>(&self, place: Place, answer: &Answer<'a>) -> Option<&'a str> {
        let text = answer.text;
        match place {
            Place::Hash => extract::hash(text),
            Place::Boxed => extract::boxed(text),
            Place::Tag => extract::tag(text, &self.config.tag),
            Place::Phrase => extract::phrase(text),
            // Which number it is, is decided where numbers are compared.
            Place::LastNumber => answer.last_number(text).map(|_| text),
            Place::LastLine => extract::last_line(text),
            Place::Whole => Some(text).filter(|it| !it.trim().is_empty()),
        }
    }

    fn decimal(&self) -> Decimal {
        match self.config.decimal {
            DecimalSign::Point => Decimal::Point,
            DecimalSign::Comma => Decimal::Comma,
        }
    }

    fn expected(&self, columns: &Columns) -> Result<Expected, String> {
        let column = &self.config.column;
        let value = columns.get(column).ok_or_else(|| format!("the row has no column `{column}`"))?;
        let list = match value {
            Value::Array(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        let accepted: Option<Vec<Accepted>> = list.iter().map(|it| self.accept(it)).collect();
        let accepted = accepted.ok_or_else(|| format!("column `{column}` holds neither text nor number"))?;
        if accepted.is_empty() {
            return Err(format!("column `{column}` is an empty list"));
        }
        let numeric = accepted.iter().any(|it| it.number.is_some());
        if self.config.compare == Compare::Number && !numeric {
            return Err(format!("column `{column}` holds no number"));
        }
        let textual = self.config.compare != Compare::Number && accepted.iter().any(|it| it.number.is_none());
        let longest = accepted.iter().map(|it| it.text.len()).max().unwrap_or(0);
        Ok(Expected { accepted, numeric, textual, longest })
    }

    fn accept(&self, value: &Value) -> Option<Accepted> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            _ => return None,
        };
        let whole = Answer::new(&text, self.decimal());
        let found =
            self.config.extract_reference.iter().find_map(|it| self.place(*it, &whole)).unwrap_or(&text);
        // A number in the column is JSON's, whatever completions use.
        let decimal = if value.is_string() { self.decimal() } else { Decimal::Point };
        let number = match self.config.compare {
            Compare::Text => None,
            Compare::Auto => number::whole(found, decimal),
            Compare::Number => number::whole(found, decimal).or_else(|| number::last(found, decimal)),
        };
        Some(Accepted { number, text: self.normalised(found, usize::MAX).unwrap_or_default() })
    }

    /// What texts are compared by; `None` where it is longer than `most` bytes.
    fn normalised(&self, text: &str, most: usize) -> Option<String> {
        let narrowed = text.chars().map(narrow);
        if !self.config.ignore.case {
            return self.joined(narrowed, most);
        }
        // Of all letters the sigma alone depends on its place when it becomes small.
        let sigma = Cell::new(false);
        let seen = |it: char| sigma.set(sigma.get() | (it == 'Σ'));
        let joined =
            self.joined(narrowed.clone().inspect(|it| seen(*it)).flat_map(char::to_lowercase), most)?;
        if sigma.get() {
            return self.joined(narrowed.collect::<String>().to_lowercase().chars(), most);
        }
        Some(joined)
    }

    /// Words with one space, or none, between them.
    fn joined(&self, characters: impl Iterator<Item = char>, most: usize) -> Option<String> {
        let ignore = &self.config.ignore;
        // Signs without which an answer says something else stay.
        let kept = |it: char| it.is_alphanumeric() || it.is_whitespace() || "+-*/^=<>%$€£¥".contains(it);
        let mut joined = String::new();
        // Where the last word's separator stands, and where the word begins.
        let (mut end, mut word) = (0, 0);
        for character in characters.chain([' ']) {
            if !character.is_whitespace() && (!ignore.punctuation || kept(character)) {
                if joined.len() == end && end > 0 && !ignore.spaces {
                    joined.push(' ');
                    word = joined.len();
                }
                joined.push(character);
                continue;
            }
            if ignore.articles && ["a", "an", "the"].contains(&&joined[word..]) {
                joined.truncate(end);
            }
            (end, word) = (joined.len(), joined.len());
            if end > most {
                return None;
            }
        }
        Some(joined)
    }

    fn numbers_equal(&self, found: Found, expected: Found) -> bool {
        let close = |a: f64, b: f64| {
            (a - b).abs() <= self.config.tolerance.max(self.config.relative_tolerance * b.abs())
        };
        let same =
            || found.number.close_to(expected.number, self.config.tolerance, self.config.relative_tolerance);
        let share = |it: Found| it.number.value() / if it.percent { 100.0 } else { 1.0 };
        let shares = || {
            let (a, b) = (share(found), share(expected));
            close(a, b) || (found.percent != expected.percent && (a - b).abs() <= 1e-12 * b.abs())
        };
        match self.config.percent {
            Percent::Ignore => same(),
            Percent::Share if found.percent == expected.percent => same(),
            Percent::Share => shares(),
            Percent::Either => same() || shares(),
        }
    }

    /// What a place holds, where that may be an answer: where a number is asked for, a place without one holds none;
    /// where none is, the last number is none.
    fn held<'a>(&self, place: Place, answer: &Answer<'a>, expected: &Expected) -> Option<Held<'a>> {
        let text = self.place(place, answer)?;
        let last = expected.numeric.then(|| answer.last_number(text)).flatten();
        let accepted_text = || {
            let text = self.normalised(text, expected.longest);
            text.is_some_and(|text| expected.accepted.iter().any(|it| it.text == text))
        };
        let usable = (expected.textual && place != Place::LastNumber)
            || last.is_some()
            || (expected.numeric && accepted_text());
        usable.then_some(Held { place, text, last })
    }

    fn right(&self, held: Held, expected: &Expected) -> bool {
        let Held { place, text, last } = held;
        let number = expected.numeric.then(|| number::whole(text, self.decimal()).or(last)).flatten();
        let normalised = OnceCell::new();
        let same = |it: &Accepted| {
            let text = normalised.get_or_init(|| self.normalised(text, expected.longest));
            text.as_ref() == Some(&it.text)
        };
        let compare = self.config.compare;
        expected.accepted.iter().any(|it| match (it.number, number) {
            (Some(expected), Some(number)) => self.numbers_equal(number, expected),
            (Some(_), None) => compare == Compare::Auto && same(it),
            (None, _) => compare != Compare::Number && place != Place::LastNumber && same(it),
        })
    }

    fn judge(&self, text: &str, expected: &Expected) -> Score {
        let answer = Answer::new(text, self.decimal());
        let places: Vec<Option<Held>> =
            self.config.extract.iter().map(|it| self.held(*it, &answer, expected)).collect();
        let first = places.iter().find_map(|it| *it);
        let right = first.map(|it| self.right(it, expected));
        let scores = &self.config.scores;
        let value = match right {
            Some(true) => scores.right,
            Some(false) => scores.wrong,
            None => scores.missing,
        };
        let flag = |it: bool| f64::from(u8::from(it));
        let score =
            Score::new(value).with("right", flag(right == Some(true))).with("found", flag(right.is_some()));
        self.components
            .iter()
            .zip(&places)
            .fold(score, |score, (name, held)| score.with(name.as_str(), flag(held.is_some())))
    }
}

impl Reward for AnswerMatch {
    fn score(&self, group: &Group) -> Vec<Score> {
        match self.expected(&group.columns) {
            Err(reason) => vec![Score::abstain(reason); group.completions.len()],
            Ok(expected) => group.completions.iter().map(|it| self.judge(&it.text, &expected)).collect(),
        }
    }
}

export!(reward: AnswerMatch from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::group;
    use serde_json::json;

    fn scores(config: Value, answer: Value, completions: &[&str]) -> Vec<Score> {
        let config: Config = serde_json::from_value(config).unwrap();
        AnswerMatch::try_from(config).unwrap().score(&group(json!({"answer": answer}), completions))
    }

    fn values(config: Value, answer: Value, completions: &[&str]) -> Vec<f64> {
        scores(config, answer, completions).iter().map(|it| it.value().unwrap()).collect()
    }

    #[test]
    fn one_number_is_right_however_it_is_written() {
        let written = [
            "so 3*4=12\n#### 1,234.50",
            r"Thus \boxed{1234.5}.",
            "<answer>1.2345e3</answer>",
            "The answer is $1,234.50.",
            "答案是１２３４．５元",
            "答案是一千二百三十四点五",
            r"\boxed{\frac{2469}{2}}",
            "It is 1 234.5",
            r"1.2345 \times 10^{3}",
            "1234 1/2",
        ];
        assert_eq!(values(json!({}), json!("x = ... #### 1234.5"), &written), [1.0; 10]);
        let wrong = ["#### 1235", "none", "-1234.5"];
        assert_eq!(values(json!({}), json!(1234.5), &wrong), [0.0; 3]);
    }

    #[test]
    fn the_places_that_hold_no_answer_are_told() {
        let found = scores(json!({"extract": ["boxed", "last_number"]}), json!("7"), &["about 7", "no"]);
        assert_eq!(found[0].value(), Some(1.0));
        assert_eq!(found[0].component("found/boxed"), Some(0.0));
        assert_eq!(found[0].component("found/last_number"), Some(1.0));
        assert_eq!((found[1].value(), found[1].component("found")), (Some(0.0), Some(0.0)));
        let scores = json!({"scores": {"wrong": -0.5, "missing": -1.0}});
        assert_eq!(values(scores, json!(7), &["#### 8", "no idea", "7"]), [-0.5, -1.0, 1.0]);
    }

    #[test]
    fn texts_are_compared_after_normalisation_and_any_of_several_is_right() {
        let answer = json!(["New York City", "NYC"]);
        let completions = ["The answer is **new york  city**.", "nyc!", "Boston"];
        assert_eq!(values(json!({}), answer, &completions), [1.0, 1.0, 0.0]);
        let articles = json!({"ignore": {"articles": true, "spaces": true}});
        assert_eq!(values(articles, json!("Eiffel Tower"), &["the EiffelTower"]), [1.0]);
        assert_eq!(values(json!({"ignore": {"case": false}}), json!("Ada"), &["ada"]), [0.0]);
        assert_eq!(values(json!({}), json!(true), &["True"]), [1.0]);
        assert_eq!(values(json!({}), json!("C++"), &["C"]), [0.0]);
    }

    #[test]
    fn a_percent_sign_counts_as_the_configuration_says() {
        let of = |percent: &str, answer: &str, text: &str| {
            values(json!({"percent": percent}), json!(answer), &[text])[0]
        };
        assert_eq!((of("ignore", "50", "50%"), of("ignore", "0.5", "50%")), (1.0, 0.0));
        assert_eq!((of("share", "50", "50%"), of("share", "0.5", "百分之五十")), (0.0, 1.0));
        assert_eq!((of("either", "50", "50%"), of("either", "0.07", "7 %")), (1.0, 1.0));
    }

    #[test]
    fn tolerances_are_kept_and_large_whole_numbers_are_exact() {
        assert_eq!(values(json!({"tolerance": 0.01}), json!("3.14"), &["3.1415", "3.16"]), [1.0, 0.0]);
        assert_eq!(values(json!({"relative_tolerance": 0.1}), json!(100), &["91", "89"]), [1.0, 0.0]);
        let large = ["12345678901234567", "12345678901234568"];
        assert_eq!(values(json!({}), json!("12345678901234567"), &large), [1.0, 0.0]);
        let comma = json!({"decimal": "comma"});
        assert_eq!(values(comma, json!("1234,5"), &["1.234,50 €"]), [1.0]);
    }

    #[test]
    fn a_row_without_an_answer_is_no_zero() {
        assert_eq!(scores(json!({"column": "gold"}), json!(1), &["1"])[0].value(), None);
        assert_eq!(scores(json!({"compare": "number"}), json!("Rome"), &["1"])[0].value(), None);
        assert_eq!(scores(json!({}), json!({"a": 1}), &["1"])[0].value(), None);
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| AnswerMatch::try_from(serde_json::from_value::<Config>(config).unwrap()).err();
        assert_eq!(key(json!({"extract": []})).unwrap().key, "extract");
        assert_eq!(key(json!({"tolerance": -1})).unwrap().key, "tolerance");
        assert_eq!(key(json!({"tag": "<a>"})).unwrap().key, "tag");
    }
}
