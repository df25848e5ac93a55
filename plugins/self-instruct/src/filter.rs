//! Which of the tasks that a model writes are kept, by the paper's rules.

use fthost_plugin_sdk::{ConfigProblem, plugin_config};
use row_tools::check;
use row_tools::likeness::similarity;

/// What a new task must keep to.
#[plugin_config]
#[derive(Debug, Clone)]
pub struct Filter {
    /// ROUGE-L to every seed and every task kept before must be below this.
    #[default = 0.7]
    pub max_similarity: f64,
    /// Words at least; Han and kana characters are words.
    #[default = 4]
    pub min_words: u32,
    /// Words at most.
    #[default = 150]
    pub max_words: u32,
    /// A task with one of these words is left out: what a model of texts can't do.
    #[default = keywords()]
    pub keywords: Vec<String>,
    /// A task that begins with one of these is left out.
    #[default = vec!["Write a program".into()]]
    pub beginnings: Vec<String>,
    /// Tasks that are kept in mind, the latest ones.
    #[default = 2000]
    pub remembered: u32,
}

const KEYWORDS: [&str; 20] = [
    "image",
    "images",
    "graph",
    "graphs",
    "picture",
    "pictures",
    "file",
    "files",
    "map",
    "maps",
    "draw",
    "plot",
    "go to",
    "video",
    "audio",
    "music",
    "flowchart",
    "diagram",
    "图片",
    "画一",
];

fn keywords() -> Vec<String> {
    KEYWORDS.into_iter().map(str::to_owned).collect()
}

impl Filter {
    /// Whether every value is possible.
    ///
    /// # Errors
    /// The first value that is impossible.
    pub fn checked(&self) -> Result<(), ConfigProblem> {
        check::share("filter.max_similarity", self.max_similarity)?;
        if self.min_words > self.max_words {
            let message = format!("must be at most `max_words`, got `{}`", self.min_words);
            return Err(ConfigProblem::new("filter.min_words", message));
        }
        Ok(())
    }

    /// Whether a task may be kept, whatever was kept before.
    fn allows(&self, task: &str) -> bool {
        let words: Vec<String> = text_tools::words(task).into_iter().map(str::to_lowercase).collect();
        let spaced = format!(" {} ", words.join(" "));
        let holds = |keyword: &String| {
            let keyword = text_tools::words(keyword).join(" ").to_lowercase();
            !keyword.is_empty() && spaced.contains(&format!(" {keyword} "))
        };
        let first = task.chars().next();
        (self.min_words as usize..=self.max_words as usize).contains(&words.len())
            && first.is_some_and(char::is_alphanumeric)
            && !self.keywords.iter().any(holds)
            && !self.beginnings.iter().any(|it| task.starts_with(it.as_str()))
    }
}

/// The tasks that were kept.
pub struct Pool {
    filter: Filter,
    written: Vec<String>,
}

impl Pool {
    /// An empty pool.
    pub fn new(filter: Filter) -> Self {
        Self { filter, written: Vec::new() }
    }

    /// What was kept, the oldest first.
    pub fn written(&self) -> &[String] {
        &self.written
    }

    /// Keeps `task` if it is allowed and unlike the seeds and all that was kept.
    pub fn admit(&mut self, seeds: &[String], task: &str) -> bool {
        let alike = |it: &String| similarity(it, task) >= self.filter.max_similarity;
        if !self.filter.allows(task) || seeds.iter().chain(&self.written).any(alike) {
            return false;
        }
        self.written.push(task.to_owned());
        let most = self.filter.remembered as usize;
        let surplus = self.written.len().saturating_sub(most);
        self.written.drain(..surplus);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paper_s_rules_hold() {
        let filter = Filter::default();
        assert!(filter.allows("List five kinds of bread.") && filter.allows("请列出五种面包"));
        for task in [
            "Tell a joke",
            "Draw a cat that sits on a mat",
            "Describe the picture of the house below",
            "Write a program that sorts a list",
            "? what is this thing here",
            "画一只坐在垫子上的猫",
        ] {
            assert!(!filter.allows(task), "{task}");
        }
        // A keyword is a word, not a part of one: "imagine" is no image.
        assert!(filter.allows("Imagine a filename for photographs"));
    }

    #[test]
    fn nothing_like_a_seed_or_a_kept_task_is_admitted_and_the_oldest_are_forgotten() {
        let mut pool = Pool::new(Filter { remembered: 1, ..Filter::default() });
        let seeds = ["Name three rivers of Europe.".to_owned()];
        assert!(!pool.admit(&seeds, "Name four rivers of Europe."));
        assert!(pool.admit(&seeds, "Explain how bread is made."));
        assert!(!pool.admit(&seeds, "Explain how bread is baked."));
        assert!(pool.admit(&seeds, "Who was the first king of Sweden?"));
        assert_eq!(pool.written(), ["Who was the first king of Sweden?"]);
        assert!(pool.admit(&seeds, "Explain how bread is baked."));
    }
}
