//! Typing errors, so that a model learns to read what people type. Nothing that carries meaning by itself (numbers,
//! addresses, code, placeholders) is touched, and Han characters are only swapped, left out or repeated.
//!
//! Noise as augmentation: <https://arxiv.org/abs/1711.02173>.

use fthost_plugin_sdk::{
    Augmented, Augmenter, ConfigProblem, Example, Variant, export, plugin_config, random,
};
use row_tools::check;
use row_tools::example::Part;
use row_tools::random::Draws;

mod kinds;
mod protect;

use kinds::Kind;

/// `[plugins.noise.config]`.
#[plugin_config]
struct Config {
    /// Which text gets errors.
    #[default]
    part: Part,
    /// Errors that may be made.
    #[default = Kind::USUAL.to_vec()]
    kinds: Vec<Kind>,
    /// Share of the characters that are changed, in [0, 1].
    #[default = 0.03]
    rate: f64,
    /// Variants of each example at most; a text that nothing was changed in is none.
    #[default = 1]
    variants: u32,
    /// Share of the examples that get variants, in [0, 1].
    #[default = 1.0]
    share: f64,
    /// The example itself is left out where it has variants.
    #[default = false]
    replace: bool,
}

struct Noise(Config);

impl TryFrom<Config> for Noise {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.kinds.is_empty() {
            return Err(ConfigProblem::new("kinds", "must name at least one"));
        }
        check::share("rate", config.rate)?;
        check::share("share", config.share)?;
        check::positive("variants", config.variants)?;
        Ok(Self(config))
    }
}

impl Augmenter for Noise {
    fn augment(&mut self, example: &Example) -> Augmented {
        let config = &self.0;
        let text = config.part.of(&example.content);
        let Some(text) = text.filter(|it| !it.trim().is_empty()) else { return Augmented::default() };
        // One number of the host an example: how long one text is does not change what another gets.
        let mut draws = Draws::new(random::next_u64());
        if draws.unit() >= config.share {
            return Augmented::default();
        }
        let mut texts: Vec<String> = Vec::new();
        for _ in 0..config.variants {
            let changed = kinds::noisy(text, &config.kinds, config.rate, &mut draws);
            if changed != text && !texts.contains(&changed) {
                texts.push(changed);
            }
        }
        let made = texts.into_iter().filter_map(|it| config.part.replaced(example, it));
        let variants: Vec<Variant> =
            made.map(|example| Variant { example, operation: "noise".into() }).collect();
        let replaced = config.replace && !variants.is_empty();
        Augmented {
            dropped: replaced.then(|| "replaced by its variants with typing errors".into()),
            variants,
        }
    }
}

export!(augmenter: Noise from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use row_tools::example;
    use serde_json::{Value, json};

    fn made(config: Value) -> Result<Noise, String> {
        testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())
    }

    fn pair(prompt: &str) -> Example {
        example::pair(2, "", prompt.into(), "Answer.".into(), true)
    }

    /// Prompts of the variants, under a host that draws the same each time.
    fn prompts(config: Value, text: &str) -> Vec<String> {
        let mut plugin = made(config).unwrap();
        let all =
            testing::with_host(testing::Plain, || testing::augment(&mut plugin, vec![pair(text)])).unwrap();
        all[0].variants.iter().map(|it| example::prompt(&it.example.content).unwrap().to_owned()).collect()
    }

    const TEXT: &str = "Please tell me how many people live in the capital of France, and since when.";

    #[test]
    fn errors_are_seeded_and_their_number_follows_the_rate() {
        let config = json!({"rate": 0.1, "variants": 3});
        let drawn = prompts(config.clone(), TEXT);
        assert_eq!((drawn.len(), &drawn), (3, &prompts(config, TEXT)));
        let long = TEXT.repeat(40);
        let changed = &prompts(json!({"rate": 0.05, "kinds": ["keyboard"]}), &long)[0];
        let share =
            long.chars().zip(changed.chars()).filter(|(a, b)| a != b).count() as f64 / long.len() as f64;
        // About five in six characters are letters, which alone can be mistyped.
        assert!((0.025..0.06).contains(&share), "{share}");
        assert!(prompts(json!({"rate": 0.0}), TEXT).is_empty());
    }

    #[test]
    fn the_answer_stays_and_the_example_goes_where_it_is_replaced() {
        let mut plugin = made(json!({"rate": 0.5, "replace": true})).unwrap();
        let all = testing::augment(&mut plugin, vec![pair(TEXT), pair("12 34")]).unwrap();
        assert_eq!(example::completion(&all[0].variants[0].example.content), Some("Answer."));
        assert!(all[0].dropped.is_some());
        assert!(all[1].dropped.is_none() && all[1].variants.is_empty());
        let mut plugin = made(json!({"part": "completion", "rate": 1.0, "kinds": ["case"]})).unwrap();
        let all = testing::augment(&mut plugin, vec![pair("Q")]).unwrap();
        assert_eq!(example::completion(&all[0].variants[0].example.content), Some("aNSWER."));
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| made(config).err().unwrap();
        assert_eq!(key(json!({"kinds": []})), "kinds");
        assert_eq!(key(json!({"kinds": ["typo"]})), "kinds[0]");
        assert_eq!(key(json!({"rate": 1.1})), "rate");
        assert_eq!(key(json!({"variants": 0})), "variants");
    }
}
