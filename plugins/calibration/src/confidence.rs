//! Confidence that an answer states, and that of the likeliest of several choices.

use regex_lite::Regex;

/// Finds `Confidence: 80%`, `confidence 0.8`, `置信度：80%` and the like.
pub struct Stated(Regex);

impl Stated {
    pub fn new() -> Self {
        let words = "confidence|certainty|probability|置信度|信心|把握|自信度|確信度|확신도|confianza|confiance|konfidenz";
        let pattern = format!(r"(?i)(?:{words})[^0-9\n]{{0,20}}(\d+(?:\.\d+)?)\s*([%％])?");
        Self(Regex::new(&pattern).expect("the pattern is sound"))
    }

    /// The confidence that is stated last, from 0 to 1, and the answer without that statement.
    pub fn split(&self, answer: &str) -> Option<(f64, String)> {
        let found = self.0.captures_iter(answer).last()?;
        let number: f64 = found[1].parse().ok()?;
        // Without a sign, what is over 1 can only be per cent.
        let share = if found.get(2).is_some() || number > 1.0 { number / 100.0 } else { number };
        let whole = found.get(0)?;
        let rest = format!("{}{}", &answer[..whole.start()], &answer[whole.end()..]);
        (share <= 1.0).then_some((share, rest))
    }
}

/// Position of the highest score, and its share where scores are log-probabilities of all there is.
pub fn most_likely(scores: &[f64]) -> Option<(usize, f64)> {
    let (chosen, best) = scores.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let all: f64 = scores.iter().map(|it| (it - best).exp()).sum();
    let share = 1.0 / all;
    share.is_finite().then_some((chosen, share))
}

/// Which choice is meant: its text, its letter, or its position from 0.
pub fn expected_choice(reference: &str, choices: &[String]) -> Option<usize> {
    let reference = reference.trim();
    let letter = || match reference.as_bytes() {
        [letter @ (b'A'..=b'Z' | b'a'..=b'z')] => Some(usize::from(letter.to_ascii_uppercase() - b'A')),
        _ => None,
    };
    let position = choices.iter().position(|it| it.trim() == reference);
    position.or_else(letter).or_else(|| reference.parse().ok()).filter(|it| *it < choices.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_found_and_taken_out() {
        let split = |text| Stated::new().split(text);
        assert_eq!(split("Paris. Confidence: 80%"), Some((0.8, "Paris. ".into())));
        assert_eq!(split("Paris (confidence is 0.35)"), Some((0.35, "Paris ()".into())));
        assert_eq!(split("巴黎。\n置信度：９０％"), None);
        assert_eq!(split("巴黎。\n置信度：90％"), Some((0.9, "巴黎。\n".into())));
        assert_eq!(split("My confidence: 95"), Some((0.95, "My ".into())));
        assert_eq!(split("Confidence: 250%"), None);
        assert_eq!(split("Paris"), None);
    }

    #[test]
    fn a_choice_is_named_by_text_letter_or_position() {
        let choices: Vec<String> = ["4", "2", "A"].map(String::from).into();
        let named = |it| expected_choice(it, &choices);
        // Text comes first.
        assert_eq!(
            [named("2"), named("A"), named("B"), named("0"), named("7")],
            [Some(1), Some(2), Some(1), Some(0), None]
        );
    }

    #[test]
    fn confidence_is_the_share_of_the_likeliest() {
        let (chosen, share) = most_likely(&[0.25f64.ln(), 0.5f64.ln(), 0.25f64.ln()]).unwrap();
        assert!(chosen == 1 && (share - 0.5).abs() < 1e-12);
        // However unlikely all of them are.
        let (_, share) = most_likely(&[-2000.0, -2000.0]).unwrap();
        assert_eq!(share, 0.5);
        assert_eq!(most_likely(&[]), None);
    }
}
