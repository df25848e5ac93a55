//! Impossible values of an objective's keys, told as every part of a run file tells them.

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Check(Vec<String>);

impl Check {
    /// `value` must be `bound`, which `fine` says whether it is. What is not finite never is.
    pub fn number(&mut self, key: &str, value: f64, fine: bool, bound: &str) -> &mut Self {
        if !(fine && value.is_finite()) {
            self.0.push(format!("`{key}` must be {bound}, got `{value}`"));
        }
        self
    }

    /// The same for a key that may be absent.
    pub fn optional(
        &mut self,
        key: &str,
        value: Option<f64>,
        fine: fn(f64) -> bool,
        bound: &str,
    ) -> &mut Self {
        if let Some(value) = value {
            self.number(key, value, fine(value), bound);
        }
        self
    }

    /// A problem in words, begun with its key.
    pub fn refuse(&mut self, wrong: bool, problem: impl FnOnce() -> String) -> &mut Self {
        if wrong {
            self.0.push(problem());
        }
        self
    }

    pub fn problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }
}
