//! The number in a judge's answer.

use std::sync::LazyLock;

use regex::Regex;

/// Where verdicts stand, the surest first; of each the last match counts, since reasons come before.
static WORDINGS: LazyLock<[Regex; 5]> = LazyLock::new(|| {
    [
        r"\[\[\s*(-?\d+(?:\.\d+)?)\s*\]\]",
        r"(?i)<(?:score|rating|verdict)>\s*(-?\d+(?:\.\d+)?)\s*</",
        r#"(?i)"(?:score|rating|verdict)"\s*:\s*"?(-?\d+(?:\.\d+)?)"#,
        r"(?i)(?:score|rating|verdict|评分|得分|分数|打分)\W{0,4}(?:is|of|为|是)?\W{0,4}(-?\d+(?:\.\d+)?)",
        r"(?m)^\W*(-?\d+(?:\.\d+)?)\W*$",
    ]
    .map(|it| Regex::new(it).expect("a sound pattern"))
});

/// `7/10` and `7 out of 10`: the second number must be the scale's best.
static OUT_OF: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(-?\d+(?:\.\d+)?)\s*(?:/|out of)\s*(\d+(?:\.\d+)?)").expect("a sound pattern")
});

/// How an answer is read.
pub struct Verdict {
    /// The worst.
    pub low: f64,
    /// The best.
    pub high: f64,
    /// In the place of the usual wordings.
    pub pattern: Option<Regex>,
}

impl Verdict {
    /// The verdict, or why there is none.
    pub fn read(&self, answer: &str) -> Result<f64, String> {
        let value = match &self.pattern {
            Some(pattern) => last(pattern, answer),
            None => WORDINGS.iter().find_map(|it| last(it, answer)).or_else(|| self.out_of(answer)),
        };
        let beginning: String = answer.chars().take(80).collect();
        let value = value.ok_or_else(|| format!("no number where one is expected in {beginning:?}"))?;
        if (self.low..=self.high).contains(&value) {
            Ok(value)
        } else {
            Err(format!("{value} is outside of [{}, {}] in {beginning:?}", self.low, self.high))
        }
    }

    fn out_of(&self, answer: &str) -> Option<f64> {
        let found = OUT_OF.captures_iter(answer).last()?;
        let best: f64 = found[2].parse().ok()?;
        (best == self.high).then(|| found[1].parse().ok()).flatten()
    }
}

fn last(pattern: &Regex, answer: &str) -> Option<f64> {
    pattern.captures_iter(answer).last()?.get(1)?.as_str().trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &str) -> Result<f64, String> {
        Verdict { low: 1.0, high: 10.0, pattern: None }.read(answer)
    }

    #[test]
    fn the_usual_wordings_are_read_and_the_last_counts() {
        let known = [
            ("I compared 2 things. Rating: [[7]]", 7.0),
            ("Score: 3\nOn reflection:\nScore: 4.5", 4.5),
            ("**Score:** 8/10", 8.0),
            ("<score> 9 </score>", 9.0),
            (r#"{"reason": "ok", "score": 6}"#, 6.0),
            ("The rating is 5.", 5.0),
            ("It earns 7 out of 10.", 7.0),
            ("理由充分。评分：8", 8.0),
            ("Good.\n8\n", 8.0),
        ];
        for (answer, value) in known {
            assert_eq!(read(answer), Ok(value), "{answer}");
        }
    }

    #[test]
    fn what_is_no_verdict_is_said_and_never_a_number() {
        for answer in ["", "It has 3 errors.", "Score: eleven", "Score: 11", "7 out of 100"] {
            assert!(read(answer).is_err(), "{answer}: {:?}", read(answer));
        }
    }
}
