//! Metadata keys below an architecture's name, as it asks for them: what is wrong with any of them is told at once, and
//! a key that nobody asks for is refused, because what it changes would be lost without a sign.

use std::collections::BTreeSet;

use super::GgufFile;

/// No size of a model is larger: products of two of them can be counted.
const LARGEST: usize = 1 << 31;

/// Keys that say nothing about what is computed.
const SILENT: [&str; 3] = ["rope.scaling.finetuned", "tensor_data_layout", "vocab_size"];

/// Reads keys and tensors of factors, and notes what is wrong.
pub(super) struct Keys<'a> {
    file: &'a GgufFile,
    architecture: &'static str,
    asked: BTreeSet<String>,
    tensors: BTreeSet<String>,
    problems: Vec<String>,
}

/// What is left when all was asked.
pub(super) struct Asked {
    /// Tensors that are no weights.
    pub tensors: BTreeSet<String>,
    /// What is wrong, each with its key.
    pub problems: Vec<String>,
}

impl<'a> Keys<'a> {
    pub fn of(file: &'a GgufFile, architecture: &'static str) -> Self {
        let asked = SILENT.map(str::to_string).into();
        Self { file, architecture, asked, tensors: BTreeSet::new(), problems: Vec::new() }
    }

    pub fn file(&self) -> &'a GgufFile {
        self.file
    }

    /// A key as the file has it.
    pub fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// A key of the file, which is now known.
    fn ask(&mut self, key: &str) -> String {
        self.asked.insert(key.to_string());
        self.full(key)
    }

    /// Whether nothing was wrong so far.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    pub fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Whether the file holds a tensor.
    pub fn holds(&self, tensor: &str) -> bool {
        self.file.tensor(tensor).is_some()
    }

    /// A whole number that may be 0, which is as good as nothing; one a layer, where all are the same.
    pub fn size(&mut self, key: &str) -> Option<usize> {
        let key = self.ask(key);
        let found = self.file.metadata().get(&key)?;
        let each = self.file.wholes(&key).filter(|all| all.windows(2).all(|it| it[0] == it[1]));
        let each = each.and_then(|all| u64::try_from(*all.first()?).ok());
        let size = found.whole().or(each).and_then(|it| usize::try_from(it).ok());
        if size.is_none_or(|it| it > LARGEST) {
            self.problems.push(format!("`{key}` must be one whole number up to {LARGEST}"));
        }
        size.filter(|it| (1..=LARGEST).contains(it))
    }

    /// A truth value of a layer each; `None` where the key is absent, or something else.
    pub fn flags(&mut self, key: &str) -> Option<Vec<bool>> {
        let key = self.ask(key);
        self.file.truths(&key)
    }

    /// A size that must be there.
    pub fn needed(&mut self, key: &str) -> usize {
        let (before, full) = (self.problems.len(), self.full(key));
        let size = self.size(key);
        if size.is_none() && self.problems.len() == before {
            let there = self.file.metadata().contains_key(&full);
            let problem = if there { "must be one whole number > 0" } else { "is missing" };
            self.problems.push(format!("`{full}` {problem}"));
        }
        // Not 0, which would be told as well.
        size.unwrap_or(1)
    }

    /// A number that is finite, as f32 as well.
    pub fn number(&mut self, key: &str) -> Option<f64> {
        let key = self.ask(key);
        let found = self.file.metadata().get(&key)?;
        let number = found.number().map(as_written).filter(|it| it.is_finite());
        if number.is_none() {
            self.problems.push(format!("`{key}` must be a number"));
        }
        number
    }

    /// A number that must be there.
    pub fn needed_number(&mut self, key: &str) -> f64 {
        let (before, full) = (self.problems.len(), self.full(key));
        let number = self.number(key);
        if number.is_none() && self.problems.len() == before {
            self.problems.push(format!("`{full}` is missing"));
        }
        number.unwrap_or(1.0)
    }

    pub fn text(&mut self, key: &str) -> Option<&'a str> {
        let key = self.ask(key);
        self.file.text(&key)
    }

    /// A number that is known at one value only, which is also what its absence means.
    pub fn only(&mut self, key: &str, known: f64) {
        if let Some(found) = self.number(key).filter(|it| *it != known) {
            let key = self.full(key);
            self.problems.push(format!("`{key}` = {found} is not known here (known: {known})"));
        }
    }

    /// A truth value that is known to be true only, which is also what its absence means.
    pub fn only_true(&mut self, key: &str) {
        let key = self.ask(key);
        if self.file.metadata().contains_key(&key) && self.file.truth(&key) != Some(true) {
            self.problems.push(format!("`{key}` is known here as true only"));
        }
    }

    /// The values of a tensor that is no weight; `None` where there is none.
    pub fn factors(&mut self, tensor: &str) -> Option<Vec<f64>> {
        let found = self.file.tensor(tensor)?;
        self.tensors.insert(tensor.to_string());
        let values = match self.file.values(found) {
            Ok(values) => values,
            Err(error) => {
                self.problems.push(error.to_string());
                return None;
            }
        };
        if let Some(bad) = values.iter().find(|it| !(it.is_finite() && **it > 0.0)) {
            self.problems.push(format!("`{tensor}` must hold numbers > 0, got {bad}"));
        }
        Some(values.into_iter().map(|it| as_written(it.into())).collect())
    }

    pub fn finish(mut self) -> Asked {
        let prefix = format!("{}.", self.architecture);
        for key in self.file.metadata().keys().filter_map(|it| it.strip_prefix(&prefix)) {
            if !self.asked.contains(key) {
                self.problems.push(format!("`{prefix}{key}` is not understood here"));
            }
        }
        Asked { tensors: self.tensors, problems: self.problems }
    }
}

/// f32 in the file; the shortest text of the f32 is what its author wrote.
fn as_written(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}
