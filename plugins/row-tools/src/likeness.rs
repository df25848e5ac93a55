//! Whether a text that a model wrote may stand beside the one it was made from.

use fthost_plugin_sdk::{ConfigProblem, plugin_config};

/// What a new text must keep to.
#[plugin_config]
#[derive(Debug, Clone, Copy)]
pub struct Likeness {
    /// ROUGE-L to the original at most: a text that is more alike says nothing new.
    #[default = 0.95]
    pub max_similarity: f64,
    /// ROUGE-L to the original at least: a text that is less alike says something else.
    #[default = 0.0]
    pub min_similarity: f64,
    /// Characters at least, as a share of the original's.
    #[default = 0.4]
    pub min_length: f64,
    /// Characters at most, as a multiple of the original's.
    #[default = 2.5]
    pub max_length: f64,
}

impl Likeness {
    /// Whether every value is possible; problems name `<key>.<name>`.
    ///
    /// # Errors
    /// The first value that is impossible.
    pub fn checked(&self, key: &str) -> Result<(), ConfigProblem> {
        let problem = |name: &str, message: String| Err(ConfigProblem::new(format!("{key}.{name}"), message));
        for (name, value) in
            [("max_similarity", self.max_similarity), ("min_similarity", self.min_similarity)]
        {
            if !(0.0..=1.0).contains(&value) {
                return problem(name, format!("must be in [0, 1], got `{value}`"));
            }
        }
        if self.min_similarity > self.max_similarity {
            return problem(
                "min_similarity",
                format!("must be at most `max_similarity`, got `{}`", self.min_similarity),
            );
        }
        if !(self.min_length >= 0.0 && self.min_length <= self.max_length && self.max_length.is_finite()) {
            return problem("min_length", format!("must be in [0, max_length], got `{}`", self.min_length));
        }
        Ok(())
    }

    /// Whether `new` may stand beside `original`.
    pub fn accepts(&self, original: &str, new: &str) -> bool {
        if new.trim().is_empty() || new.trim() == original.trim() {
            return false;
        }
        let length = |text: &str| text.trim().chars().count() as f64;
        let share = length(new) / length(original).max(1.0);
        let alike = similarity(original, new);
        (self.min_length..=self.max_length).contains(&share)
            && (self.min_similarity..=self.max_similarity).contains(&alike)
    }
}

/// ROUGE-L's F1 on lower-case words; Han and kana characters are words.
pub fn similarity(a: &str, b: &str) -> f64 {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    text_tools::lcs_f1(&text_tools::words(&a), &text_tools::words(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_other_things_and_lengths_out_of_range_are_refused() {
        let likeness = Likeness { min_similarity: 0.2, ..Likeness::default() };
        let original = "What is the capital of France?";
        assert!(likeness.accepts(original, "Which city is the capital of France?"));
        assert!(!likeness.accepts(original, " What is the capital of France?"));
        assert!(!likeness.accepts(original, "what is the capital of france"));
        assert!(!likeness.accepts(original, "Bake some bread for me today"));
        assert!(!likeness.accepts(original, "France?") && !likeness.accepts(original, ""));
        assert!((similarity("法国的首都", "法国首都") - 8.0 / 9.0).abs() < 1e-12);
        assert_eq!(
            Likeness { max_similarity: 2.0, ..likeness }.checked("like").err().unwrap().key,
            "like.max_similarity"
        );
    }
}
