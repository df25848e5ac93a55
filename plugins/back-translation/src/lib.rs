//! The same text in other words, by way of another language: <https://arxiv.org/abs/1511.06709>, as data augmentation in
//! <https://arxiv.org/abs/1904.12848>.

use fthost_plugin_sdk::model::Model;
use fthost_plugin_sdk::{
    Augmented, Augmenter, ConfigProblem, Example, Variant, export, plugin_config, random,
};
use row_tools::ask::{self, Asking, bare};
use row_tools::check;
use row_tools::example::Part;
use row_tools::likeness::Likeness;
use row_tools::template::Templates;

/// `[plugins.back-translation.config]`.
#[plugin_config]
struct Config {
    /// What is translated.
    #[default]
    part: Part,
    /// The language of the texts.
    #[default = "English"]
    language: String,
    /// Languages by way of which texts are translated; each gives a variant.
    #[default = vec!["French".into()]]
    through: Vec<String>,
    /// Share of the examples that get variants, in [0, 1].
    #[default = 1.0]
    share: f64,
    /// What the model is asked, both ways, in Jinja's syntax: `text`, `from`, `to`.
    #[default = "Translate from {{ from }} into {{ to }}. Reply with the translation only.\n\n{{ text }}"]
    template: String,
    /// Who is asked, and how.
    #[default]
    asking: Asking,
    /// Which texts are kept.
    #[default]
    likeness: Likeness,
}

struct BackTranslation {
    config: Config,
    model: Model,
    templates: Templates,
}

impl TryFrom<Config> for BackTranslation {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        check::uses("template", &config.template, &["text", "from", "to"])?;
        check::share("share", config.share)?;
        if config.through.is_empty() {
            return Err(ConfigProblem::new("through", "must name at least one language"));
        }
        if let Some(at) = config.through.iter().position(|it| it.eq_ignore_ascii_case(&config.language)) {
            let message = format!("must be another language than `language`, got `{}`", config.through[at]);
            return Err(ConfigProblem::new(format!("through[{at}]"), message));
        }
        config.likeness.checked("likeness")?;
        let model = config.asking.checked("asking")?;
        let mut templates = Templates::default();
        templates.add("template", &config.template)?;
        Ok(Self { config, model, templates })
    }
}

impl BackTranslation {
    fn text<'a>(&self, example: &'a Example) -> Option<&'a str> {
        let text = self.config.part.of(&example.content);
        // A share of 1 draws nothing.
        text.filter(|it| !it.trim().is_empty())
            .filter(|_| self.config.share >= 1.0 || random::unit() < self.config.share)
    }

    fn translated(&self, texts: &[(String, &str, &str)]) -> Result<Vec<String>, String> {
        let question = |(text, from, to): &(String, &str, &str)| {
            self.templates.fill("template", &[("text", text), ("from", from), ("to", to)])
        };
        let questions = texts.iter().map(question).collect::<Result<Vec<_>, _>>()?;
        let answers = self.config.asking.ask(&self.model, questions, 1)?;
        Ok(answers.iter().map(|it| it.first().map_or_else(String::new, |it| bare(it).to_owned())).collect())
    }
}

impl Augmenter for BackTranslation {
    fn augment(&mut self, example: &Example) -> Augmented {
        ask::only(self.augment_all(std::slice::from_ref(example)))
    }

    /// Two requests for all examples: there and back.
    fn augment_all(&mut self, examples: &[Example]) -> Result<Vec<Augmented>, String> {
        let own = self.config.language.as_str();
        // An example and a language each.
        let pairs: Vec<(usize, &str, &str)> = examples
            .iter()
            .enumerate()
            .filter_map(|(at, it)| Some((at, self.text(it)?)))
            .flat_map(|(at, text)| self.config.through.iter().map(move |other| (at, text, other.as_str())))
            .collect();
        let there: Vec<_> = pairs.iter().map(|(_, text, other)| ((*text).to_owned(), own, *other)).collect();
        let foreign = self.translated(&there)?;
        // What was not translated is not asked about again.
        let kept: Vec<_> = pairs.into_iter().zip(foreign).filter(|it| !it.1.is_empty()).collect();
        let back: Vec<_> = kept.iter().map(|((_, _, other), text)| (text.clone(), *other, own)).collect();
        let texts = self.translated(&back)?;
        let mut augmented = vec![Augmented::default(); examples.len()];
        for (((at, original, other), _), text) in kept.into_iter().zip(texts) {
            let variants = &mut augmented[at].variants;
            let part = self.config.part;
            let made = part.replaced(&examples[at], text.clone());
            let known = |it: &Variant| part.of(&it.example.content) == Some(text.as_str());
            if let Some(example) = made.filter(|_| self.config.likeness.accepts(original, &text))
                && !variants.iter().any(known)
            {
                variants.push(Variant { example, operation: format!("back-translation:{other}") });
            }
        }
        Ok(augmented)
    }
}

export!(augmenter: BackTranslation from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use row_tools::example;
    use row_tools::script::Script;
    use serde_json::{Value, json};

    fn made(config: Value) -> Result<BackTranslation, String> {
        testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())
    }

    #[test]
    fn texts_go_there_and_back_in_two_requests() {
        let script = Script::new(&[
            "Quelle heure est-il ?",
            "Wie spät ist es?",
            "",
            "Guten Tag!",
            "What's the hour?",
            "How late is it?",
            "Good day to you!",
        ]);
        let mut plugin = made(json!({"through": ["French", "German"]})).unwrap();
        let pair = |text: &str| example::pair(1, "", text.into(), "a".into(), true);
        let examples = vec![pair("What time is it?"), pair("Good day!")];
        let all = testing::with_host(script.clone(), || testing::augment(&mut plugin, examples)).unwrap();
        let shown = |it: &Augmented| {
            let one =
                |it: &Variant| format!("{} {}", it.operation, example::prompt(&it.example.content).unwrap());
            it.variants.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&all[0]),
            ["back-translation:French What's the hour?", "back-translation:German How late is it?"]
        );
        assert_eq!(shown(&all[1]), ["back-translation:German Good day to you!"]);
        let asked = script.asked();
        assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [4, 3]);
        assert!(asked[0][0].starts_with("Translate from English into French"), "{}", asked[0][0]);
        assert!(asked[1][2].starts_with("Translate from German into English"), "{}", asked[1][2]);
    }

    #[test]
    fn what_comes_back_unchanged_is_no_variant() {
        let mut plugin =
            made(json!({"part": "completion", "language": "Chinese", "through": ["English"]})).unwrap();
        let examples = vec![example::pair(1, "", "q".into(), "你好，世界。".into(), false)];
        let script = Script::new(&["Hello, world.", "你好，世界！"]);
        let all = testing::with_host(script, || testing::augment(&mut plugin, examples)).unwrap();
        assert!(all[0].variants.is_empty());
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| made(config).err().unwrap();
        assert_eq!(key(json!({"through": []})), "through");
        assert_eq!(key(json!({"through": ["French", "english"]})), "through[1]");
        assert_eq!(key(json!({"template": "{{ text }}"})), "template");
        assert_eq!(key(json!({"share": -1})), "share");
    }
}
