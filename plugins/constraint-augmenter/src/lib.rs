//! The same task under a constraint that can be checked: the prompt states it, the answer is rewritten to keep it.
//!
//! The idea of verifiable constraints is IFEval's: <https://arxiv.org/abs/2311.07911>.

use fthost_plugin_sdk::{
    Answer, Augmented, Augmenter, ConfigProblem, Content, Example, Message, Prompt, Role, Variant, export,
    random,
};
use serde_json::{Map, Value};

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
}

impl Default for Config {
    fn default() -> Self {
        Self { constraints: Constraint::ALL.to_vec(), variants: 1, share: 1.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Constraint {
    /// JSON answers: some of the keys only.
    OnlyKeys,
    /// JSON answers: keys in alphabetical order.
    SortedKeys,
    /// The answer in lower case.
    Lowercase,
    /// The answer in upper case.
    Uppercase,
    /// The answer between double quotes.
    Quoted,
    /// The answer after a given word.
    Opening,
}

/// A constraint, its wording and the answer that keeps it.
struct Stated {
    operation: &'static str,
    wording: String,
    answer: String,
}

impl Constraint {
    const ALL: [Self; 6] =
        [Self::OnlyKeys, Self::SortedKeys, Self::Lowercase, Self::Uppercase, Self::Quoted, Self::Opening];

    /// The constraint on `answer`; `None` where it does not fit or would change nothing. `draw(n)` is in `0..n`.
    fn state(self, answer: &str, draw: &mut dyn FnMut(u64) -> u64) -> Option<Stated> {
        let stated = |operation, wording: String, kept: String| {
            (kept != answer).then_some(Stated { operation, wording, answer: kept })
        };
        // Text constraints would break JSON.
        let json = object(answer);
        match (self, json) {
            (Self::OnlyKeys, Some(object)) => {
                let chosen = some_keys(&object, draw)?;
                let names: Vec<&str> = chosen.keys().map(String::as_str).collect();
                stated(
                    "constraint:only-keys",
                    format!("Give only these keys: {}.", names.join(", ")),
                    line(&chosen),
                )
            }
            (Self::SortedKeys, Some(object)) => {
                let mut entries: Vec<_> = object.into_iter().collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                let sorted: Map<String, Value> = entries.into_iter().collect();
                stated("constraint:sorted-keys", "Put the keys in alphabetical order.".into(), line(&sorted))
            }
            (Self::Lowercase, None) => {
                stated("constraint:lowercase", "Answer in lower case only.".into(), answer.to_lowercase())
            }
            (Self::Uppercase, None) => {
                stated("constraint:uppercase", "Answer in upper case only.".into(), answer.to_uppercase())
            }
            (Self::Quoted, None) => {
                let wording = "Put your whole answer between double quotes.".into();
                stated("constraint:quoted", wording, format!("\"{answer}\""))
            }
            (Self::Opening, None) => {
                let words = ["Answer:", "Result:", "Reply:"];
                let word = words[draw(words.len() as u64) as usize];
                stated("constraint:opening", format!("Begin with \"{word}\"."), format!("{word} {answer}"))
            }
            _ => None,
        }
    }
}

fn object(text: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(text.trim()) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// At least one key and not all, in their order.
fn some_keys(object: &Map<String, Value>, draw: &mut dyn FnMut(u64) -> u64) -> Option<Map<String, Value>> {
    if object.len() < 2 {
        return None;
    }
    let count = 1 + draw(object.len() as u64 - 1) as usize;
    let mut left: Vec<&String> = object.keys().collect();
    let chosen: Vec<&String> = (0..count).map(|_| left.remove(draw(left.len() as u64) as usize)).collect();
    Some(object.iter().filter(|it| chosen.contains(&it.0)).map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// One line with a space after `,` and `:`, as the answer it replaces is written as a rule.
fn line(object: &Map<String, Value>) -> String {
    let entries: Vec<String> =
        object.iter().map(|(key, value)| format!("{}: {value}", Value::from(key.as_str()))).collect();
    format!("{{{}}}", entries.join(", "))
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
        let Some((answer, _)) = parts(&example.content) else { return Vec::new() };
        const PARTS: u64 = 1 << 20;
        if draw(PARTS) as f64 >= self.0.share * PARTS as f64 {
            return Vec::new();
        }
        let mut left = self.0.constraints.clone();
        let mut variants = Vec::new();
        while variants.len() < self.0.variants as usize && !left.is_empty() {
            let constraint = left.remove(draw(left.len() as u64) as usize);
            if let Some(stated) = constraint.state(&answer, draw) {
                variants.push(variant(example, stated));
            }
        }
        variants
    }
}

/// The answer and whether it is a turn of a conversation; `None` for content with no single answer.
fn parts(content: &Content) -> Option<(String, bool)> {
    match content {
        Content::PromptCompletion { prompt: Prompt::Text(_), completion: Answer::Text(answer) } => {
            Some((answer.clone(), false))
        }
        Content::PromptCompletion {
            prompt: Prompt::Messages(prompt),
            completion: Answer::Messages(answer),
        } if answer.len() == 1 && prompt.last().is_some_and(|it| it.role == Role::User) => {
            Some((answer[0].content.clone(), true))
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
    use serde_json::json;

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
        assert_eq!(
            operations,
            ["constraint:lowercase", "constraint:opening", "constraint:quoted", "constraint:uppercase"]
        );
        assert!(derived(json!({"share": 0.0}), "Rome").is_empty());
    }
}
