//! Leaves out examples that are nearly the same as an earlier one.
//!
//! MinHash: <https://ieeexplore.ieee.org/document/666900>; its use on training data: <https://arxiv.org/abs/2107.06499>.

use fthost_plugin_sdk::{
    Answer, Augmented, Augmenter, ConfigProblem, Content, Example, Message, Prompt, export, plugin_config,
};
use row_tools::example;

mod index;
mod minhash;

use index::Index;
use minhash::MinHash;

/// `[plugins.near-duplicates.config]`.
#[plugin_config]
struct Config {
    /// What is compared.
    #[default]
    part: Part,
    /// What a shingle is made of.
    #[default]
    unit: Unit,
    /// Items of a shingle; a text of fewer is one shingle.
    #[default = 3]
    shingle: u32,
    /// The estimated share of shingles that two texts must have in common to be nearly the same.
    #[default = 0.8]
    threshold: f64,
    /// Hash functions of a signature: the estimate's error is about `0.5 / sqrt(permutations)`.
    #[default = 128]
    permutations: u32,
    /// Capital and small letters, and all punctuation, make no difference.
    #[default = true]
    normalise: bool,
    /// Decides the hash functions.
    #[default = 0]
    seed: u64,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// Everything: prompt and answers, or the text.
    #[default]
    Whole,
    /// The prompt, or its last user turn; examples without one stay.
    Prompt,
    /// The answer, or a plain text; examples without one stay.
    Completion,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Unit {
    /// Words; each Han or kana character is one.
    #[default]
    Words,
    /// Characters, spaces left out.
    Characters,
}

struct NearDuplicates {
    config: Config,
    minhash: MinHash,
    index: Index,
}

impl TryFrom<Config> for NearDuplicates {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.shingle == 0 {
            return Err(ConfigProblem::new("shingle", "must be at least 1, got `0`"));
        }
        if !(config.threshold > 0.0 && config.threshold <= 1.0) {
            return Err(ConfigProblem::new(
                "threshold",
                format!("must be in (0, 1], got `{}`", config.threshold),
            ));
        }
        if !(16..=1024).contains(&config.permutations) {
            let message = format!("must be in [16, 1024], got `{}`", config.permutations);
            return Err(ConfigProblem::new("permutations", message));
        }
        let minhash = MinHash::new(config.permutations as usize, config.seed);
        let index = Index::new(config.threshold, config.permutations as usize);
        Ok(Self { config, minhash, index })
    }
}

fn turns(turns: &[Message]) -> String {
    turns.iter().map(|it| it.content.as_str()).collect::<Vec<_>>().join("\n")
}

/// Everything that an example says.
fn whole(content: &Content) -> String {
    let prompt = |it: &Prompt| match it {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(all) => turns(all),
    };
    let answer = |it: &Answer| match it {
        Answer::Text(text) => text.clone(),
        Answer::Messages(all) => turns(all),
    };
    match content {
        Content::Messages(all) => turns(all),
        Content::PromptCompletion { prompt: asked, completion } => {
            format!("{}\n{}", prompt(asked), answer(completion))
        }
        Content::Preference { prompt: asked, chosen, rejected } => {
            format!("{}\n{}\n{}", prompt(asked), answer(chosen), answer(rejected))
        }
        Content::Text(text) => text.clone(),
        Content::Prompt(asked) => prompt(asked),
    }
}

impl NearDuplicates {
    fn signature(&self, text: &str) -> Option<Vec<u32>> {
        let text = if self.config.normalise { text.to_lowercase() } else { text.to_owned() };
        let size = self.config.shingle as usize;
        let characters: Vec<String>;
        let items: Vec<&str> = match (self.config.unit, self.config.normalise) {
            (Unit::Words, true) => text_tools::words(&text),
            (Unit::Words, false) => text_tools::tokens(&text),
            (Unit::Characters, normalise) => {
                let kept = |it: &char| if normalise { it.is_alphanumeric() } else { !it.is_whitespace() };
                characters = text.chars().filter(kept).map(String::from).collect();
                characters.iter().map(String::as_str).collect()
            }
        };
        if items.is_empty() {
            return None;
        }
        Some(self.minhash.signature(items.windows(size.min(items.len()))))
    }
}

impl Augmenter for NearDuplicates {
    fn augment(&mut self, example: &Example) -> Augmented {
        let text = match self.config.part {
            Part::Whole => Some(whole(&example.content)),
            Part::Prompt => example::prompt(&example.content).map(str::to_owned),
            Part::Completion => example::completion(&example.content).map(str::to_owned),
        };
        let Some(signature) = text.and_then(|it| self.signature(&it)) else { return Augmented::default() };
        match self.index.nearest(&signature) {
            Some((row, similarity)) => {
                Augmented::drop(format!("nearly the same as row {row} (similarity {similarity:.2})"))
            }
            None => {
                self.index.add(example.row, signature);
                Augmented::default()
            }
        }
    }
}

export!(augmenter: NearDuplicates from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::{Columns, testing};
    use serde_json::{Value, json};

    fn made(config: Value) -> Result<NearDuplicates, String> {
        testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())
    }

    fn text(row: u64, text: &str) -> Example {
        Example { row, content: Content::Text(text.into()), columns: Columns::new() }
    }

    fn dropped(plugin: &mut NearDuplicates, examples: Vec<Example>) -> Vec<Option<String>> {
        testing::augment(plugin, examples).unwrap().into_iter().map(|it| it.dropped).collect()
    }

    const LONG: &str = "The quick brown fox jumps over the lazy dog while the cat sleeps by the warm stove in the old kitchen \
        and the children read their books until the lamp goes out late in the evening";

    #[test]
    fn near_duplicates_name_the_row_they_duplicate_across_batches() {
        let mut plugin = made(json!({})).unwrap();
        let first = dropped(&mut plugin, vec![text(4, LONG), text(5, "Something else entirely, and short.")]);
        assert_eq!(first, [None, None]);
        let near = LONG.replace("late in the evening", "late in the morning").to_uppercase() + "!";
        let second =
            dropped(&mut plugin, vec![text(9, &near), text(10, "Something else entirely - and short")]);
        assert!(
            second[0].as_ref().unwrap().starts_with("nearly the same as row 4 (similarity 0.9"),
            "{second:?}"
        );
        assert_eq!(second[1].as_deref(), Some("nearly the same as row 5 (similarity 1.00)"));
        let half =
            format!("{} {}", &LONG[..80], "but then everything that follows is told in quite another way");
        assert_eq!(dropped(&mut plugin, vec![text(11, &half)]), [None]);
    }

    #[test]
    fn chinese_is_compared_by_characters() {
        let mut plugin = made(json!({"threshold": 0.6})).unwrap();
        let all = [
            "人工智能正在改变我们的生活方式和工作方式。",
            "人工智能正在改变我们的生活方式与工作方式！",
            "今天天气很好，我们去公园吧。",
        ];
        let examples = all.iter().zip(0..).map(|(it, row)| text(row, it)).collect();
        let dropped = dropped(&mut plugin, examples);
        assert!(
            dropped[0].is_none() && dropped[1].as_ref().unwrap().contains("row 0") && dropped[2].is_none()
        );
    }

    #[test]
    fn only_the_part_that_is_asked_for_counts() {
        let pair =
            |row, answer: &str| example::pair(row, "", "Tell me all about tea.".into(), answer.into(), true);
        let examples =
            || vec![pair(1, "It is a drink made of leaves."), pair(2, "Ask somebody who drinks it, please.")];
        let count = |part: &str| {
            let all = dropped(&mut made(json!({ "part": part })).unwrap(), examples());
            all.iter().flatten().count()
        };
        assert_eq!((count("prompt"), count("completion"), count("whole")), (1, 0, 0));
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| made(config).err().unwrap();
        assert_eq!(key(json!({"threshold": 0})), "threshold");
        assert_eq!(key(json!({"permutations": 8})), "permutations");
        assert_eq!(key(json!({"shingle": 0})), "shingle");
    }
}
