//! The same task under a constraint or in a style that can be checked: the prompt states it, the answer is rewritten to
//! keep it.
//!
//! The idea of verifiable constraints is IFEval's: <https://arxiv.org/abs/2311.07911>.

use fthost_plugin_sdk::{
    Answer, Augmented, Augmenter, ConfigProblem, Content, Example, Message, Prompt, Role, Variant, export,
    random,
};

mod constraint;

use constraint::{Constraint, Language, Stated};

/// `[plugins.constraint-augmenter.config]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Constraints that may be drawn.
    constraints: Vec<Constraint>,
    /// Variants of each example at most; an answer that no constraint fits has none.
    variants: u32,
    /// Share of the examples that get variants, in [0, 1].
    share: f64,
    /// The language in which a constraint is stated.
    language: Language,
}

impl Default for Config {
    fn default() -> Self {
        Self { constraints: Constraint::ALL.to_vec(), variants: 1, share: 1.0, language: Language::English }
    }
}

struct ConstraintAugmenter(Config);

impl TryFrom<Config> for ConstraintAugmenter {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.constraints.is_empty() {
            return Err(ConfigProblem::new("constraints", "must name at least one"));
        }
        if !(0.0..=1.0).contains(&config.share) {
            return Err(ConfigProblem::new("share", format!("must be in [0, 1], got `{}`", config.share)));
        }
        Ok(Self(config))
    }
}

impl ConstraintAugmenter {
    fn variants(&self, example: &Example, draw: &mut dyn FnMut(u64) -> u64) -> Vec<Variant> {
        let Some((asked, answer)) = parts(&example.content) else { return Vec::new() };
        const PARTS: u64 = 1 << 20;
        if draw(PARTS) as f64 >= self.0.share * PARTS as f64 {
            return Vec::new();
        }
        let mut left = self.0.constraints.clone();
        let mut variants = Vec::new();
        while variants.len() < self.0.variants as usize && !left.is_empty() {
            let constraint = left.remove(draw(left.len() as u64) as usize);
            if let Some(stated) = constraint.state(asked, answer, self.0.language, draw) {
                variants.push(variant(example, stated));
            }
        }
        variants
    }
}

/// What is asked and what is answered; `None` for content with no single answer.
fn parts(content: &Content) -> Option<(&str, &str)> {
    match content {
        Content::PromptCompletion { prompt: Prompt::Text(asked), completion: Answer::Text(answer) } => {
            Some((asked, answer))
        }
        Content::PromptCompletion {
            prompt: Prompt::Messages(prompt),
            completion: Answer::Messages(answer),
        } if answer.len() == 1 => {
            Some((&prompt.last().filter(|it| it.role == Role::User)?.content, &answer[0].content))
        }
        _ => None,
    }
}

fn variant(example: &Example, stated: Stated) -> Variant {
    let mut example = example.clone();
    if let Content::PromptCompletion { prompt, completion } = &mut example.content {
        match (prompt, completion) {
            (Prompt::Messages(prompt), Answer::Messages(answer)) => {
                if let Some(asked) = prompt.last_mut() {
                    asked.content = format!("{}\n{}", asked.content, stated.wording);
                }
                *answer = vec![Message { role: Role::Assistant, content: stated.answer }];
            }
            (Prompt::Text(prompt), Answer::Text(answer)) => {
                *prompt = format!("{}\n{prompt}", stated.wording);
                *answer = stated.answer;
            }
            _ => {}
        }
    }
    Variant { example, operation: stated.operation.into() }
}

impl Augmenter for ConstraintAugmenter {
    fn augment(&mut self, example: &Example) -> Augmented {
        self.variants(example, &mut random::below).into()
    }
}

export!(augmenter: ConstraintAugmenter from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use constraint::object;
    use serde_json::{Map, Value, json};

    /// `(prompt, answer, operation)` of each variant; draws are 0, 1, 2, ... within their bound.
    fn derived(config: Value, answer: &str) -> Vec<(String, String, String)> {
        let config: Config = serde_json::from_value(config).unwrap();
        let message = |role, content: &str| Message { role, content: content.into() };
        let example = Example {
            row: 1,
            content: Content::PromptCompletion {
                prompt: Prompt::Messages(vec![message(Role::User, "Q")]),
                completion: Answer::Messages(vec![message(Role::Assistant, answer)]),
            },
            columns: Map::new(),
        };
        let mut next = 0;
        let mut draw = |bound: u64| {
            next += 1;
            (next - 1) % bound
        };
        let variants = ConstraintAugmenter::try_from(config).ok().unwrap().variants(&example, &mut draw);
        variants
            .into_iter()
            .map(|it| match it.example.content {
                Content::PromptCompletion {
                    prompt: Prompt::Messages(prompt),
                    completion: Answer::Messages(answer),
                } => (prompt[0].content.clone(), answer[0].content.clone(), it.operation),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn only_keys_keeps_some_keys_and_says_which() {
        let config = json!({"constraints": ["only-keys"]});
        let all = derived(config, r#"{"name": "Ada", "age": 36, "city": "Rome"}"#);
        let (prompt, answer, operation) = &all[0];
        let kept = object(answer).unwrap();
        assert!((1..3).contains(&kept.len()));
        let names: Vec<&str> = kept.keys().map(String::as_str).collect();
        assert_eq!(*prompt, format!("Q\nGive only these keys: {}.", names.join(", ")));
        assert_eq!(operation, "constraint:only-keys");
    }

    #[test]
    fn text_constraints_leave_json_alone_and_the_other_way_round() {
        assert!(derived(json!({"constraints": ["lowercase", "quoted"]}), r#"{"A": 1}"#).is_empty());
        assert!(derived(json!({"constraints": ["only-keys", "sorted-keys"]}), "Rome").is_empty());
    }

    #[test]
    fn sorted_keys_are_sorted_and_an_answer_that_keeps_it_has_no_variant() {
        let config = json!({"constraints": ["sorted-keys"]});
        assert_eq!(derived(config.clone(), r#"{"b": 1, "a": "x, y"}"#)[0].1, r#"{"a": "x, y", "b": 1}"#);
        assert!(derived(config, r#"{"a": 1, "b": 2}"#).is_empty());
    }

    #[test]
    fn as_many_variants_as_asked_each_another_constraint() {
        let all = derived(json!({"variants": 9}), "Rome");
        let mut operations: Vec<&str> = all.iter().map(|it| it.2.as_str()).collect();
        operations.sort_unstable();
        assert_eq!(operations.len(), 8);
        operations.dedup();
        assert_eq!(operations.len(), 8);
        assert!(derived(json!({"share": 0.0}), "Rome").is_empty());
    }

    #[test]
    fn styles_are_stated_and_kept() {
        let text = "Rome is old. It lies on the Tiber.";
        let one = |constraint: &str| derived(json!({ "constraints": [constraint] }), text).remove(0);
        assert_eq!(one("bullets").1, "- Rome is old.\n- It lies on the Tiber.");
        assert_eq!(one("numbered").1, "1. Rome is old.\n2. It lies on the Tiber.");
        assert_eq!(one("own-lines").1, "Rome is old.\nIt lies on the Tiber.");
        assert_eq!(one("tagged").1, format!("<answer>{text}</answer>"));
        assert_eq!(one("json-answer").1, format!("{{\"answer\": \"{text}\"}}"));
        assert_eq!(
            one("repeat-question"),
            (
                "Q\nFirst repeat the question word for word, then answer on a new line.".into(),
                format!("Q\n{text}"),
                "constraint:repeat-question".into()
            )
        );
        let (prompt, answer, _) = one("closing");
        let closing = answer.strip_prefix(text).unwrap().trim();
        assert!(prompt.contains(closing), "{prompt} {answer}");
        // One sentence is no list.
        assert!(derived(json!({"constraints": ["bullets", "numbered", "own-lines"]}), "Rome").is_empty());
    }

    #[test]
    fn constraints_are_stated_in_chinese_too() {
        let config = json!({"constraints": ["bullets"], "language": "chinese"});
        let (prompt, answer, _) = derived(config, "罗马很古老。它在台伯河边。").remove(0);
        assert_eq!(answer, "- 罗马很古老。\n- 它在台伯河边。");
        assert!(prompt.starts_with("Q\n") && prompt.contains("每句话"), "{prompt}");
    }
}
