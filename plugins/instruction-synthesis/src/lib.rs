//! New instructions that need a named capability, and their answers, which a model writes from examples as seeds.
//!
//! After the two steps of <https://arxiv.org/abs/2212.10560>: first the instruction, then its answer.

use fthost_plugin_sdk::model::Model;
use fthost_plugin_sdk::{Augmented, Augmenter, ConfigProblem, Example, Variant, export, plugin_config};
use row_tools::ask::{self, Asking, bare};
use row_tools::likeness::similarity;
use row_tools::template::Templates;
use row_tools::{check, example};

/// `[plugins.instruction-synthesis.config]`.
#[plugin_config]
struct Config {
    /// What an instruction must need, in words: "arithmetic with units", "polite refusals in Chinese".
    capability: String,
    /// Instructions of each example.
    #[default = 1]
    variants: u32,
    /// The language of the instructions.
    #[default = "English"]
    language: String,
    /// The first question, in Jinja's syntax: `capability`, `language`, `seed` (the example's prompt).
    #[default = INSTRUCTION.to_owned()]
    instruction_template: String,
    /// The second question: `instruction`. It is the new example's prompt too.
    #[default = "{{ instruction }}"]
    answer_template: String,
    /// What stands above the new conversation; nothing where empty.
    #[default = ""]
    system: String,
    /// An instruction more alike (ROUGE-L) to its seed, or to one written before, is left out.
    #[default = 0.7]
    max_similarity: f64,
    /// Instructions that are kept in mind for that, the latest ones.
    #[default = 2000]
    remembered: u32,
    /// Words of an instruction at least.
    #[default = 4]
    min_words: u32,
    /// Words of an instruction at most.
    #[default = 150]
    max_words: u32,
    /// Who is asked, and how.
    #[default]
    asking: Asking,
}

const INSTRUCTION: &str = "Write one new instruction, in {{ language }}, that can only be followed with this capability: \
{{ capability }}. It must be complete in itself, say all that is needed, and be about something else than the example. \
Reply with the instruction only.\n\nExample of an instruction:\n{{ seed }}";

struct InstructionSynthesis {
    config: Config,
    model: Model,
    templates: Templates,
    written: std::collections::VecDeque<String>,
}

impl TryFrom<Config> for InstructionSynthesis {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.capability.trim().is_empty() {
            return Err(ConfigProblem::new("capability", "must say what instructions need"));
        }
        check::positive("variants", config.variants)?;
        check::share("max_similarity", config.max_similarity)?;
        check::uses("instruction_template", &config.instruction_template, &["capability"])?;
        check::uses("answer_template", &config.answer_template, &["instruction"])?;
        if config.min_words > config.max_words {
            let message = format!("must be at most `max_words`, got `{}`", config.min_words);
            return Err(ConfigProblem::new("min_words", message));
        }
        if config.variants > 1 && config.asking.temperature == 0.0 {
            let message = "must be > 0 where `variants` is more than 1: greedy answers are equal";
            return Err(ConfigProblem::new("asking.temperature", message));
        }
        let model = config.asking.checked("asking")?;
        let mut templates = Templates::default();
        templates.add("instruction_template", &config.instruction_template)?;
        templates.add("answer_template", &config.answer_template)?;
        Ok(Self { config, model, templates, written: std::collections::VecDeque::new() })
    }
}

impl InstructionSynthesis {
    fn is_new(&self, seed: &str, instruction: &str) -> bool {
        let words = text_tools::word_count(instruction);
        let limit = self.config.max_similarity;
        (self.config.min_words as usize..=self.config.max_words as usize).contains(&words)
            && similarity(seed, instruction) <= limit
            && self.written.iter().all(|it| similarity(it, instruction) <= limit)
    }

    fn remember(&mut self, instruction: &str) {
        self.written.push_back(instruction.to_owned());
        while self.written.len() > self.config.remembered as usize {
            self.written.pop_front();
        }
    }

    /// For each example the new prompts, in one request.
    fn prompts(&mut self, examples: &[Example]) -> Result<Vec<(usize, String)>, String> {
        let seeds: Vec<(usize, &str)> = examples
            .iter()
            .enumerate()
            .filter_map(|(at, it)| Some((at, example::prompt(&it.content)?)))
            .collect();
        let question = |seed: &str| {
            let values = [
                ("capability", &*self.config.capability),
                ("language", &*self.config.language),
                ("seed", seed),
            ];
            self.templates.fill("instruction_template", &values)
        };
        let questions = seeds.iter().map(|(_, seed)| question(seed)).collect::<Result<Vec<_>, _>>()?;
        let answers = self.config.asking.ask(&self.model, questions, self.config.variants)?;
        let mut prompts = Vec::new();
        for ((at, seed), answers) in seeds.into_iter().zip(answers) {
            for answer in &answers {
                let instruction = bare(answer);
                if self.is_new(seed, instruction) {
                    self.remember(instruction);
                    prompts
                        .push((at, self.templates.fill("answer_template", &[("instruction", instruction)])?));
                }
            }
        }
        Ok(prompts)
    }
}

impl Augmenter for InstructionSynthesis {
    fn augment(&mut self, example: &Example) -> Augmented {
        ask::only(self.augment_all(std::slice::from_ref(example)))
    }

    /// Two requests for all examples: instructions, then their answers.
    fn augment_all(&mut self, examples: &[Example]) -> Result<Vec<Augmented>, String> {
        let prompts = self.prompts(examples)?;
        let questions = prompts.iter().map(|it| it.1.clone()).collect();
        let answers = self.config.asking.ask(&self.model, questions, 1)?;
        let mut augmented = vec![Augmented::default(); examples.len()];
        for ((at, prompt), answers) in prompts.into_iter().zip(answers) {
            let answer = answers.first().map_or("", |it| it.trim());
            if answer.is_empty() {
                continue;
            }
            let example =
                example::pair(examples[at].row, &self.config.system, prompt, answer.to_owned(), true);
            augmented[at].variants.push(Variant { example, operation: "instruction-synthesis".into() });
        }
        Ok(augmented)
    }
}

export!(augmenter: InstructionSynthesis from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use row_tools::script::Script;
    use serde_json::{Value, json};

    fn made(config: Value) -> Result<InstructionSynthesis, String> {
        testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())
    }

    fn pair(prompt: &str) -> Example {
        example::pair(3, "", prompt.into(), "a".into(), true)
    }

    #[test]
    fn instructions_and_answers_are_asked_for_in_two_requests() {
        let script = Script::new(&[
            "Instruction: How many grams are 3.5 kilograms of flour?",
            "How many grams are 3.5 kilograms of rice?",
            "Convert a speed of 90 km/h to metres per second.",
            "Too short",
            "3500 grams.",
            "25 m/s.",
        ]);
        let mut plugin = made(json!({"capability": "conversion of units", "variants": 2})).unwrap();
        let examples = vec![pair("Convert 2 miles to kilometres."), pair("How long is an hour?")];
        let all = testing::with_host(script.clone(), || testing::augment(&mut plugin, examples)).unwrap();
        let shown = |it: &Augmented| {
            let one = |it: &Variant| {
                let content = &it.example.content;
                format!("{} -> {}", example::prompt(content).unwrap(), example::completion(content).unwrap())
            };
            it.variants.iter().map(one).collect::<Vec<_>>()
        };
        // The second is nearly the first, the fourth too short.
        assert_eq!(shown(&all[0]), ["How many grams are 3.5 kilograms of flour? -> 3500 grams."]);
        assert_eq!(shown(&all[1]), ["Convert a speed of 90 km/h to metres per second. -> 25 m/s."]);
        assert_eq!(all[0].variants[0].example.row, 3);
        let asked = script.asked();
        assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        assert!(
            asked[0][0].contains("conversion of units") && asked[0][0].ends_with("2 miles to kilometres.")
        );
        assert_eq!(asked[1][1], "Convert a speed of 90 km/h to metres per second.");
    }

    #[test]
    fn what_an_earlier_batch_wrote_is_kept_in_mind() {
        let mut plugin = made(json!({"capability": "history", "language": "Chinese"})).unwrap();
        let script =
            Script::new(&["请说明秦始皇统一中国的过程", "公元前221年。", "请说明秦始皇统一中国的经过"]);
        let mut once =
            || testing::augment(&mut plugin, vec![pair("Tell me about Rome.")]).unwrap()[0].variants.len();
        assert_eq!(testing::with_host(script, || (once(), once())), (1, 0));
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| made(config).err().unwrap();
        assert_eq!(key(json!({"capability": " "})), "capability");
        assert_eq!(key(json!({"capability": "a", "min_words": 9, "max_words": 8})), "min_words");
        assert_eq!(key(json!({"capability": "a", "answer_template": "x"})), "answer_template");
        assert_eq!(
            key(json!({"capability": "a", "variants": 2, "asking": {"temperature": 0}})),
            "asking.temperature"
        );
    }
}
