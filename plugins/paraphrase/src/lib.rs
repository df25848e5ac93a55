//! The same prompt or answer in other words, which a model finds.

use fthost_plugin_sdk::model::Model;
use fthost_plugin_sdk::{
    Augmented, Augmenter, ConfigProblem, Example, Variant, export, plugin_config, random,
};
use row_tools::ask::{self, Asking, bare};
use row_tools::check;
use row_tools::example::Part;
use row_tools::likeness::Likeness;
use row_tools::template::Templates;

/// `[plugins.paraphrase.config]`.
#[plugin_config]
struct Config {
    /// What is said in other words.
    #[default]
    part: Part,
    /// Paraphrases of each text at most; those that are refused are not asked for again.
    #[default = 1]
    variants: u32,
    /// Share of the examples that get variants, in [0, 1].
    #[default = 1.0]
    share: f64,
    /// What the model is asked, in Jinja's syntax: `text`.
    #[default = "Say the following in other words. Keep its meaning, its language and everything it asks for. Reply with the new text only.\n\n{{ text }}"]
    template: String,
    /// Who is asked, and how.
    #[default]
    asking: Asking,
    /// Which paraphrases are kept.
    #[default]
    likeness: Likeness,
}

struct Paraphrase {
    config: Config,
    model: Model,
    templates: Templates,
}

impl TryFrom<Config> for Paraphrase {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        check::uses("template", &config.template, &["text"])?;
        check::positive("variants", config.variants)?;
        check::share("share", config.share)?;
        if config.variants > 1 && config.asking.temperature == 0.0 {
            let message = "must be > 0 where `variants` is more than 1: greedy answers are equal";
            return Err(ConfigProblem::new("asking.temperature", message));
        }
        config.likeness.checked("likeness")?;
        let model = config.asking.checked("asking")?;
        let mut templates = Templates::default();
        templates.add("template", &config.template)?;
        Ok(Self { config, model, templates })
    }
}

impl Paraphrase {
    fn text<'a>(&self, example: &'a Example) -> Option<&'a str> {
        let text = self.config.part.of(&example.content);
        // A share of 1 draws nothing, so that what is asked does not depend on the draws.
        text.filter(|it| !it.trim().is_empty())
            .filter(|_| self.config.share >= 1.0 || random::unit() < self.config.share)
    }

    fn variants(&self, example: &Example, original: &str, answers: &[String]) -> Vec<Variant> {
        let mut kept: Vec<&str> = Vec::new();
        for answer in answers {
            let text = bare(answer);
            if self.config.likeness.accepts(original, text) && !kept.contains(&text) {
                kept.push(text);
            }
        }
        let made = kept.into_iter().filter_map(|text| {
            let example = self.config.part.replaced(example, text.into())?;
            Some(Variant { example, operation: "paraphrase".into() })
        });
        made.collect()
    }
}

impl Augmenter for Paraphrase {
    fn augment(&mut self, example: &Example) -> Augmented {
        ask::only(self.augment_all(std::slice::from_ref(example)))
    }

    /// One request for all examples.
    fn augment_all(&mut self, examples: &[Example]) -> Result<Vec<Augmented>, String> {
        let texts: Vec<Option<&str>> = examples.iter().map(|it| self.text(it)).collect();
        let question = |text: &&str| self.templates.fill("template", &[("text", text)]);
        let questions = texts.iter().flatten().map(question).collect::<Result<Vec<_>, _>>()?;
        let mut answers = self.config.asking.ask(&self.model, questions, self.config.variants)?.into_iter();
        let augmented = examples.iter().zip(texts).map(|(example, text)| match text {
            None => Augmented::default(),
            Some(text) => self.variants(example, text, &answers.next().unwrap_or_default()).into(),
        });
        Ok(augmented.collect())
    }
}

export!(augmenter: Paraphrase from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use row_tools::example;
    use row_tools::script::Script;
    use serde_json::{Value, json};

    fn made(config: Value) -> Result<Paraphrase, String> {
        testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())
    }

    fn pair(prompt: &str, answer: &str) -> Example {
        example::pair(1, "", prompt.into(), answer.into(), true)
    }

    #[test]
    fn all_examples_are_asked_about_in_one_request_and_copies_are_refused() {
        let script = Script::new(&[
            "Which town is France's capital?",
            "\"Name the capital of France.\"",
            "Add 2 and 2.",
            "add 2 and 2",
        ]);
        let mut plugin = made(json!({"variants": 2})).unwrap();
        let examples = [pair("What is the capital of France?", "Paris"), pair("Add 2 and 2.", "4")];
        let all =
            testing::with_host(script.clone(), || testing::augment(&mut plugin, examples.to_vec())).unwrap();
        let prompts = |at: usize| {
            all[at].variants.iter().filter_map(|it| example::prompt(&it.example.content)).collect::<Vec<_>>()
        };
        assert_eq!(prompts(0), ["Which town is France's capital?", "Name the capital of France."]);
        assert!(prompts(1).is_empty() && all[0].dropped.is_none());
        assert_eq!(example::completion(&all[0].variants[0].example.content), Some("Paris"));
        assert_eq!(all[0].variants[0].operation, "paraphrase");
        let asked = script.asked();
        assert_eq!((asked.len(), asked[0].len()), (1, 2));
        assert!(asked[0][0].ends_with("What is the capital of France?"));
    }

    #[test]
    fn answers_may_be_paraphrased_and_a_failing_model_fails_the_batch() {
        let mut plugin = made(json!({"part": "completion"})).unwrap();
        let examples = vec![
            pair("?", "It is Paris."),
            Example { content: fthost_plugin_sdk::Content::Text("它是巴黎。".into()), ..pair("", "") },
        ];
        let script = Script::new(&["That would be Paris.", "就是巴黎这座城市。"]);
        let all = testing::with_host(script, || testing::augment(&mut plugin, examples.clone())).unwrap();
        let texts: Vec<_> =
            all.iter().map(|it| example::completion(&it.variants[0].example.content).unwrap()).collect();
        assert_eq!(texts, ["That would be Paris.", "就是巴黎这座城市。"]);
        assert!(testing::augment(&mut plugin, examples).unwrap_err().contains("no model"));
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| made(config).err().unwrap();
        assert_eq!(key(json!({"template": "say it"})), "template");
        assert_eq!(key(json!({"variants": 0})), "variants");
        assert_eq!(key(json!({"share": 2})), "share");
        assert_eq!(key(json!({"variants": 2, "asking": {"temperature": 0}})), "asking.temperature");
        assert_eq!(key(json!({"likeness": {"max_similarity": 2}})), "likeness.max_similarity");
        assert_eq!(key(json!({"asking": {"model": "x"}})), "asking.model");
    }
}
