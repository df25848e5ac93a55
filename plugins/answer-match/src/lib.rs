//! 1 for the right answer: text after normalisation, or a number in whatever way it is written.
//!
//! GSM8K's `#### 42` is from <https://arxiv.org/abs/2110.14168>, `\boxed{}` from MATH, <https://arxiv.org/abs/2103.03874>.

use fthost_plugin_sdk::{Columns, ConfigProblem, Group, Reward, Score, export};
use serde_json::Value;
use text_tools::number::{self, Decimal, Found};
use text_tools::{extract, half_width};

/// `[plugins.answer-match.config]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The column that holds the right answer: a text, a number, a truth value, or a list of such, any of which is right.
    column: String,
    /// Where the answer stands in a completion: tried in this order, the first that is found counts.
    extract: Vec<Place>,
    /// The same for the column's texts; a text in which none is found is taken whole.
    extract_reference: Vec<Place>,
    /// The tag of the place `tag`.
    tag: String,
    /// Numbers as numbers, texts as texts; `auto` decides by the right answer.
    compare: Compare,
    /// What the decimal sign of completions is.
    decimal: DecimalSign,
    /// What a percent sign does.
    percent: Percent,
    /// Numbers are equal within this distance.
    tolerance: f64,
    /// Numbers are equal within this share of the right answer.
    relative_tolerance: f64,
    /// What texts are compared without.
    ignore: Ignore,
    /// The score of each outcome.
    scores: Scores,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Place {
    /// The line after the last `####`.
    Hash,
    /// Inside the last `\boxed{}`.
    Boxed,
    /// Inside the last `<answer>`, or what `tag` names.
    Tag,
    /// After the last "the answer is", 答案是 and the like.
    Phrase,
    /// The last number of the text.
    LastNumber,
    /// The last line with something on it.
    LastLine,
    /// The whole text.
    Whole,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Boxed => "boxed",
            Self::Tag => "tag",
            Self::Phrase => "phrase",
            Self::LastNumber => "last_number",
            Self::LastLine => "last_line",
            Self::Whole => "whole",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Compare {
    /// As numbers where the right answer is one.
    Auto,
    /// As numbers only.
    Number,
    /// As texts only.
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DecimalSign {
    /// `1,234.5`.
    Point,
    /// `1.234,5`.
    Comma,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Percent {
    /// `50%` is 50.
    Ignore,
    /// `50%` is 0.5.
    Share,
    /// `50%` is either.
    Either,
}

#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Ignore {
    /// Differences between capital and small letters.
    case: bool,
    /// Everything that is neither letter, digit, sign nor space.
    punctuation: bool,
    /// The English words `a`, `an`, `the`.
    articles: bool,
    /// All spaces; where false, runs of spaces count as one.
    spaces: bool,
}

#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Scores {
    /// The answer is right.
    right: f64,
    /// An answer was found and is wrong.
    wrong: f64,
    /// No answer was found.
    missing: f64,
}

impl Default for Config {
    fn default() -> Self {
        use Place::{Boxed, Hash, LastNumber, Phrase, Tag, Whole};
        Self {
            column: "answer".into(),
            extract: vec![Hash, Boxed, Tag, Phrase, LastNumber, Whole],
            extract_reference: vec![Hash, Boxed],
            tag: "answer".into(),
            compare: Compare::Auto,
            decimal: DecimalSign::Point,
            percent: Percent::Ignore,
            tolerance: 0.0,
            relative_tolerance: 0.0,
            ignore: Ignore::default(),
            scores: Scores::default(),
        }
    }
}

impl Default for Ignore {
    fn default() -> Self {
        Self { case: true, punctuation: true, articles: false, spaces: false }
    }
}

impl Default for Scores {
    fn default() -> Self {
        Self { right: 1.0, wrong: 0.0, missing: 0.0 }
    }
}

struct AnswerMatch(Config);

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
        Ok(Self(config))
    }
}

/// One accepted answer, read once a group.
struct Accepted {
    number: Option<Found>,
    text: String,
}

impl AnswerMatch {
    fn place<'a>(&self, place: Place, text: &'a str) -> Option<&'a str> {
        match place {
            Place::Hash => extract::hash(text),
            Place::Boxed => extract::boxed(text),
            Place::Tag => extract::tag(text, &self.0.tag),
            Place::Phrase => extract::phrase(text),
            // Which number it is, is decided where numbers are compared.
            Place::LastNumber => number::last(text, self.decimal()).map(|_| text),
            Place::LastLine => extract::last_line(text),
            Place::Whole => Some(text).filter(|it| !it.trim().is_empty()),
        }
    }

    fn decimal(&self) -> Decimal {
        match self.0.decimal {
            DecimalSign::Point => Decimal::Point,
            DecimalSign::Comma => Decimal::Comma,
        }
    }

    fn accepted(&self, columns: &Columns) -> Result<Vec<Accepted>, String> {
        let column = &self.0.column;
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
        if self.0.compare == Compare::Number && accepted.iter().all(|it| it.number.is_none()) {
            return Err(format!("column `{column}` holds no number"));
        }
        Ok(accepted)
    }

    fn accept(&self, value: &Value) -> Option<Accepted> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            _ => return None,
        };
        let found = self.0.extract_reference.iter().find_map(|it| self.place(*it, &text)).unwrap_or(&text);
        // A number in the column is JSON's, whatever completions use.
        let decimal = if value.is_string() { self.decimal() } else { Decimal::Point };
        let number = match self.0.compare {
            Compare::Text => None,
            Compare::Auto => number::whole(found, decimal),
            Compare::Number => number::whole(found, decimal).or_else(|| number::last(found, decimal)),
        };
        Some(Accepted { number, text: self.normalised(found) })
    }

    fn normalised(&self, text: &str) -> String {
        let ignore = &self.0.ignore;
        let mut text = half_width(text);
        if ignore.case {
            text = text.to_lowercase();
        }
        if ignore.punctuation {
            // Signs without which an answer says something else stay.
            let kept = |it: char| it.is_alphanumeric() || it.is_whitespace() || "+-*/^=<>%$€£¥".contains(it);
            let open = |it: char| if kept(it) { it } else { ' ' };
            text = text.chars().map(open).collect();
        }
        let words = text.split_whitespace().filter(|it| !ignore.articles || !["a", "an", "the"].contains(it));
        words.collect::<Vec<_>>().join(if ignore.spaces { "" } else { " " })
    }

    fn numbers_equal(&self, found: Found, expected: Found) -> bool {
        let close =
            |a: f64, b: f64| (a - b).abs() <= self.0.tolerance.max(self.0.relative_tolerance * b.abs());
        let same = || found.number.close_to(expected.number, self.0.tolerance, self.0.relative_tolerance);
        let share = |it: Found| it.number.value() / if it.percent { 100.0 } else { 1.0 };
        let shares = || {
            let (a, b) = (share(found), share(expected));
            close(a, b) || (found.percent != expected.percent && (a - b).abs() <= 1e-12 * b.abs())
        };
        match self.0.percent {
            Percent::Ignore => same(),
            Percent::Share if found.percent == expected.percent => same(),
            Percent::Share => shares(),
            Percent::Either => same() || shares(),
        }
    }

    fn right(&self, found: &str, place: Place, accepted: &[Accepted]) -> bool {
        let number = number::whole(found, self.decimal()).or_else(|| number::last(found, self.decimal()));
        let text = self.normalised(found);
        accepted.iter().any(|it| match (it.number, number) {
            (Some(expected), Some(number)) => self.numbers_equal(number, expected),
            (Some(_), None) => self.0.compare == Compare::Auto && text == it.text,
            (None, _) => self.0.compare != Compare::Number && place != Place::LastNumber && text == it.text,
        })
    }

    fn judge(&self, text: &str, accepted: &[Accepted]) -> Score {
        // Where a number is asked for, a place without one holds no answer; where none is, the last number is none.
        let numeric = accepted.iter().any(|it| it.number.is_some());
        let textual = self.0.compare != Compare::Number && accepted.iter().any(|it| it.number.is_none());
        let usable = |place: Place, found: &str| {
            (textual && place != Place::LastNumber)
                || (numeric && number::last(found, self.decimal()).is_some())
                || (numeric && accepted.iter().any(|it| it.text == self.normalised(found)))
        };
        let places: Vec<(Place, Option<&str>)> = (self.0.extract.iter())
            .map(|it| (*it, self.place(*it, text).filter(|found| usable(*it, found))))
            .collect();
        let first = places.iter().find_map(|(place, found)| Some((*place, (*found)?)));
        let right = first.map(|(place, found)| self.right(found, place, accepted));
        let scores = &self.0.scores;
        let value = match right {
            Some(true) => scores.right,
            Some(false) => scores.wrong,
            None => scores.missing,
        };
        let flag = |it: bool| f64::from(u8::from(it));
        let score =
            Score::new(value).with("right", flag(right == Some(true))).with("found", flag(right.is_some()));
        places.iter().fold(score, |score, (place, found)| {
            score.with(format!("found/{}", place.name()), flag(found.is_some()))
        })
    }
}

impl Reward for AnswerMatch {
    fn score(&self, group: &Group) -> Vec<Score> {
        match self.accepted(&group.columns) {
            Err(reason) => vec![Score::abstain(reason); group.completions.len()],
            Ok(accepted) => group.completions.iter().map(|it| self.judge(&it.text, &accepted)).collect(),
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
