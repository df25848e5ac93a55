//! Questions and answers about a text, which a model writes and the text must bear out.

use fthost_plugin_sdk::model::Model;
use fthost_plugin_sdk::{
    Augmented, Augmenter, Columns, ConfigProblem, Content, Example, Variant, export, plugin_config,
};
use row_tools::ask::{self, Asking};
use row_tools::likeness::similarity;
use row_tools::template::Templates;
use row_tools::{check, example};
use serde_json::Value;

mod parse;

use parse::QuestionAnswer;

/// `[plugins.qa-from-context.config]`.
#[plugin_config]
struct Config {
    /// The column that holds the text; where absent, plain-text examples are taken.
    #[default = None]
    column: Option<String>,
    /// Pairs of each text.
    #[default = 3]
    pairs: u32,
    /// What the model is asked, in Jinja's syntax: `context`, `pairs`.
    #[default = ASK.to_owned()]
    template: String,
    /// The new example's prompt: `context`, `question`.
    #[default = "{{ context }}\n\nQuestion: {{ question }}"]
    prompt: String,
    /// What stands above the new conversation; nothing where empty.
    #[default = ""]
    system: String,
    /// The share of an answer's words that must stand in the text.
    #[default = 0.7]
    min_grounding: f64,
    /// Questions of a text that are more alike than this (ROUGE-L) count once.
    #[default = 0.7]
    max_similarity: f64,
    /// The text itself is left out: its pairs take its place.
    #[default = false]
    replace: bool,
    /// Who is asked, and how.
    #[default]
    asking: Asking,
}

const ASK: &str = "Write {{ pairs }} questions that the following text answers, each with its answer. Questions must make \
sense to one who knows the subject but not the text's wording; answers must be short and stand in the text. Use the text's \
language. Write every pair on two lines:\nQ: the question\nA: the answer\n\nText:\n{{ context }}";

struct QaFromContext {
    config: Config,
    model: Model,
    templates: Templates,
}

impl TryFrom<Config> for QaFromContext {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        check::positive("pairs", config.pairs)?;
        check::share("min_grounding", config.min_grounding)?;
        check::share("max_similarity", config.max_similarity)?;
        check::uses("template", &config.template, &["context"])?;
        check::uses("prompt", &config.prompt, &["question"])?;
        let model = config.asking.checked("asking")?;
        let mut templates = Templates::default();
        templates.add("template", &config.template)?;
        templates.add("prompt", &config.prompt)?;
        Ok(Self { config, model, templates })
    }
}

impl QaFromContext {
    fn context<'a>(&self, example: &'a Example) -> Option<&'a str> {
        let text = match (&self.config.column, &example.content) {
            (Some(column), _) => example.columns.get(column).and_then(Value::as_str),
            (None, Content::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        text.map(str::trim).filter(|it| !it.is_empty())
    }

    /// Whether the text bears the answer out.
    fn is_grounded(&self, context: &str, answer: &str) -> bool {
        let (context, answer) = (context.to_lowercase(), answer.to_lowercase());
        let known: std::collections::HashSet<&str> = text_tools::words(&context).into_iter().collect();
        let words = text_tools::words(&answer);
        let found = words.iter().filter(|it| known.contains(**it)).count();
        !words.is_empty() && found as f64 >= self.config.min_grounding * words.len() as f64
    }

    fn variants(&self, example: &Example, context: &str, answer: &str) -> Result<Vec<Variant>, String> {
        let mut kept: Vec<QuestionAnswer> = Vec::new();
        for pair in parse::pairs(answer) {
            let again =
                |it: &QuestionAnswer| similarity(&it.question, &pair.question) > self.config.max_similarity;
            if self.is_grounded(context, &pair.answer) && !kept.iter().any(again) {
                kept.push(pair);
            }
        }
        kept.truncate(self.config.pairs as usize);
        let variant = |pair: QuestionAnswer| {
            let prompt =
                self.templates.fill("prompt", &[("context", context), ("question", &pair.question)])?;
            let mut columns = Columns::new();
            for (name, value) in
                [("context", context), ("question", &pair.question), ("answer", &pair.answer)]
            {
                columns.insert(name.into(), value.into());
            }
            let mut made = example::pair(example.row, &self.config.system, prompt, pair.answer, true);
            made.columns = columns;
            Ok(Variant { example: made, operation: "qa-from-context".into() })
        };
        kept.into_iter().map(variant).collect()
    }
}

impl Augmenter for QaFromContext {
    fn augment(&mut self, example: &Example) -> Augmented {
        ask::only(self.augment_all(std::slice::from_ref(example)))
    }

    /// One request for all texts.
    fn augment_all(&mut self, examples: &[Example]) -> Result<Vec<Augmented>, String> {
        let pairs = self.config.pairs.to_string();
        let question =
            |context: &str| self.templates.fill("template", &[("context", context), ("pairs", &pairs)]);
        let contexts: Vec<Option<&str>> = examples.iter().map(|it| self.context(it)).collect();
        let questions = contexts.iter().flatten().map(|it| question(it)).collect::<Result<Vec<_>, _>>()?;
        let mut answers = self.config.asking.ask(&self.model, questions, 1)?.into_iter().flatten();
        let one = |(example, context): (&Example, Option<&str>)| {
            let Some(context) = context else { return Ok(Augmented::default()) };
            let variants = self.variants(example, context, &answers.next().unwrap_or_default())?;
            let replaced = self.config.replace && !variants.is_empty();
            let dropped = replaced.then(|| format!("replaced by {} questions about it", variants.len()));
            Ok(Augmented { dropped, variants })
        };
        examples.iter().zip(contexts).map(one).collect()
    }
}

export!(augmenter: QaFromContext from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use row_tools::script::Script;
    use serde_json::json;

    fn made(config: Value) -> Result<QaFromContext, String> {
        testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())
    }

    fn text(text: &str) -> Example {
        Example { row: 5, content: Content::Text(text.into()), columns: Columns::new() }
    }

    #[test]
    fn pairs_that_the_text_bears_out_become_examples() {
        let script = Script::new(&[
            "Q: Who wrote the first program?\nA: Ada Lovelace\nQ: Who wrote that first program?\nA: Ada\n\
             Q: Where was she born?\nA: In London, England",
            "问：首都是哪里？\n答：北京",
        ]);
        let mut plugin = made(json!({"replace": true})).unwrap();
        let examples = vec![
            text("Ada Lovelace wrote the first program in 1843."),
            example::pair(6, "", "q".into(), "a".into(), true),
            text("中国的首都是北京。"),
        ];
        let all = testing::with_host(script.clone(), || testing::augment(&mut plugin, examples)).unwrap();
        let counts: Vec<usize> = all.iter().map(|it| it.variants.len()).collect();
        assert_eq!((counts, script.asked().len()), (vec![1, 0, 1], 1));
        let made = &all[0].variants[0].example;
        assert_eq!(made.row, 5);
        let expected =
            "Ada Lovelace wrote the first program in 1843.\n\nQuestion: Who wrote the first program?";
        assert_eq!(example::prompt(&made.content), Some(expected));
        assert_eq!(example::completion(&made.content), Some("Ada Lovelace"));
        assert_eq!(made.columns["answer"], json!("Ada Lovelace"));
        assert_eq!(all[0].dropped.as_deref(), Some("replaced by 1 questions about it"));
        assert!(all[1].dropped.is_none());
        assert_eq!(example::completion(&all[2].variants[0].example.content), Some("北京"));
    }

    #[test]
    fn the_text_may_stand_in_a_column_and_a_text_without_pairs_stays() {
        let mut plugin = made(json!({"column": "passage", "replace": true, "pairs": 1})).unwrap();
        let mut example = example::pair(1, "", "q".into(), "a".into(), true);
        example.columns = testing::columns(json!({"passage": "Tea is green."}));
        let script = Script::new(&["I can not do that."]);
        let all =
            testing::with_host(script.clone(), || testing::augment(&mut plugin, vec![example])).unwrap();
        assert!(all[0].variants.is_empty() && all[0].dropped.is_none());
        assert!(script.asked()[0][0].ends_with("Tea is green."));
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| made(config).err().unwrap();
        assert_eq!(key(json!({"pairs": 0})), "pairs");
        assert_eq!(key(json!({"min_grounding": 1.5})), "min_grounding");
        assert_eq!(key(json!({"prompt": "{{ context }}"})), "prompt");
        assert_eq!(key(json!({"template": "ask"})), "template");
    }
}
