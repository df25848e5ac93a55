//! Conversations in the ways data sets write them.

use std::collections::BTreeMap;

use fthost_plugin_sdk::{ConfigProblem, Message, Role};
use serde_json::{Map, Value};

use crate::columns::kind;

/// Which role a name stands for.
#[derive(Debug, Clone)]
pub struct Roles(BTreeMap<String, Role>);

const KNOWN: [(&str, Role); 15] = [
    ("system", Role::System),
    ("developer", Role::System),
    ("user", Role::User),
    ("human", Role::User),
    ("prompter", Role::User),
    ("question", Role::User),
    ("instruction", Role::User),
    ("assistant", Role::Assistant),
    ("gpt", Role::Assistant),
    ("model", Role::Assistant),
    ("bot", Role::Assistant),
    ("chatgpt", Role::Assistant),
    ("tool", Role::Tool),
    ("function", Role::Tool),
    ("observation", Role::Tool),
];

impl Default for Roles {
    fn default() -> Self {
        Self(KNOWN.into_iter().map(|(name, role)| (name.into(), role)).collect())
    }
}

impl Roles {
    /// The known names and `more`, whose values are `system`, `user`, `assistant` or `tool`.
    ///
    /// # Errors
    /// A value that is no role; the problem's key is `<key>.<name>`.
    pub fn with(key: &str, more: &BTreeMap<String, String>) -> Result<Self, ConfigProblem> {
        let mut roles = Self::default();
        for (name, role) in more {
            let role = match role.as_str() {
                "system" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                "tool" => Role::Tool,
                other => {
                    let message = format!("must be system, user, assistant or tool, got `{other}`");
                    return Err(ConfigProblem::new(format!("{key}.{name}"), message));
                }
            };
            roles.0.insert(name.to_lowercase(), role);
        }
        Ok(roles)
    }

    /// The role of a name.
    ///
    /// # Errors
    /// A name that is not known.
    pub fn of(&self, name: &str) -> Result<Role, String> {
        let known = self.0.get(name.trim().to_lowercase().as_str());
        known.copied().ok_or_else(|| format!("role `{name}` is not known"))
    }
}

/// The turns of a list: objects with `role` and `content` or `from` and `value`, or texts, user and assistant in turn.
/// JSON text of such a list is read too.
///
/// # Errors
/// What is no conversation, with the number of the turn (from 1).
pub fn turns(value: &Value, roles: &Roles) -> Result<Vec<Message>, String> {
    let parsed;
    let list = match value {
        Value::Array(list) => list,
        Value::String(text) => {
            parsed =
                serde_json::from_str::<Vec<Value>>(text).map_err(|_| "a text that is no list of turns")?;
            &parsed
        }
        other => return Err(format!("no list of turns but {}", kind(other))),
    };
    let turn = |(at, turn): (usize, &Value)| {
        let message = match turn {
            Value::String(text) => {
                let role = if at % 2 == 0 { Role::User } else { Role::Assistant };
                Ok(Message { role, content: text.clone() })
            }
            Value::Object(turn) => message(turn, roles),
            other => Err(format!("is {}", kind(other))),
        };
        let message = message.and_then(|it| match it.content.trim().is_empty() {
            true => Err("is empty".into()),
            false => Ok(it),
        });
        message.map_err(|reason| format!("turn {}: {reason}", at + 1))
    };
    list.iter().enumerate().map(turn).collect()
}

fn message(turn: &Map<String, Value>, roles: &Roles) -> Result<Message, String> {
    let first = |keys: &[&str]| keys.iter().find_map(|it| turn.get(*it).filter(|it| !it.is_null()));
    let role =
        first(&["role", "from", "speaker"]).and_then(Value::as_str).ok_or("has no `role` or `from`")?;
    let role = roles.of(role)?;
    if turn.get("tool_calls").is_some_and(|it| it.as_array().is_none_or(|it| !it.is_empty()) && !it.is_null())
    {
        return Err("calls tools, which is no text".into());
    }
    let content = match first(&["content", "value", "text"]) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().map(part).collect::<Result<Vec<_>, _>>()?.join(""),
        Some(other) => return Err(format!("holds {} in the place of a text", kind(other))),
        None => return Err("has no `content` or `value`".into()),
    };
    Ok(Message { role, content })
}

/// A part of a content that is written in parts: `{"type": "text", "text": ...}`.
fn part(part: &Value) -> Result<&str, String> {
    let text = part.get("text").and_then(Value::as_str);
    text.ok_or_else(|| {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("unknown");
        format!("holds a part of type `{kind}`, which is no text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Vec<(Role, String)>, String> {
        turns(&value, &Roles::default()).map(|all| all.into_iter().map(|it| (it.role, it.content)).collect())
    }

    #[test]
    fn every_notation_gives_the_same_turns() {
        let expected = vec![(Role::User, "hi".to_owned()), (Role::Assistant, "ho".to_owned())];
        let notations = [
            json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]),
            json!([{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]),
            json!(["hi", "ho"]),
            json!([{"role": "User", "content": [{"type": "text", "text": "hi"}]}, {"from": "bot", "text": "ho"}]),
            json!("[\"hi\", \"ho\"]"),
        ];
        for notation in notations {
            assert_eq!(read(notation.clone()), Ok(expected.clone()), "{notation}");
        }
    }

    #[test]
    fn what_is_no_turn_is_said_with_its_number() {
        let reason = |value| read(value).unwrap_err();
        assert_eq!(reason(json!(["a", " "])), "turn 2: is empty");
        assert_eq!(reason(json!([{"role": "pope", "content": "a"}])), "turn 1: role `pope` is not known");
        assert_eq!(reason(json!([{"content": "a"}])), "turn 1: has no `role` or `from`");
        let image = json!([{"role": "user", "content": [{"type": "image"}]}]);
        assert_eq!(reason(image), "turn 1: holds a part of type `image`, which is no text");
        assert_eq!(reason(json!(3)), "no list of turns but a number");
    }

    #[test]
    fn a_role_that_is_none_names_its_key() {
        let more = BTreeMap::from([("pope".to_owned(), "priest".to_owned())]);
        assert_eq!(Roles::with("roles", &more).unwrap_err().key, "roles.pope");
        let more = BTreeMap::from([("Pope".to_owned(), "user".to_owned())]);
        assert_eq!(Roles::with("roles", &more).unwrap().of("POPE"), Ok(Role::User));
    }
}
