//! Conversations of chat data: ShareGPT's `conversations`, OpenAI's `messages`, or texts of user and assistant in turn.

use std::collections::BTreeMap;

use fthost_plugin_sdk::{
    Answer, Columns, ConfigProblem, Content, DataBuilder, Example, Message, Prompt, Role, Row, export,
    plugin_config,
};
use row_tools::columns;
use row_tools::conversation::{Roles, turns};

/// `[plugins.chat-builder.config]`.
#[plugin_config]
struct Config {
    /// The column that holds the turns; where absent, the first of `messages`, `conversations`, `conversation`,
    /// `dialog`, `dialogue`, `turns` that is there.
    #[default = None]
    column: Option<String>,
    /// Names of roles that a data set uses beside the known ones, each `system`, `user`, `assistant` or `tool`.
    #[default]
    roles: BTreeMap<String, String>,
    /// What stands above a conversation.
    #[default = ""]
    system: String,
    /// What becomes of a system turn that the row has.
    #[default]
    system_turn: SystemTurn,
    /// What becomes of turns behind the last answer.
    #[default]
    unanswered: Unanswered,
    /// Turns must be user's and assistant's in turn; otherwise neighbours of one role become one turn.
    #[default = true]
    strict: bool,
    /// Every answer is supervised, or the last one only.
    #[default]
    supervise: Supervise,
    /// Answers that a conversation has at least.
    #[default = 1]
    min_answers: u32,
    /// Columns handed on to rewards and evaluators; where absent all but the turns.
    #[default = None]
    keep: Option<Vec<String>>,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum SystemTurn {
    /// It stays; `system` stands where there is none.
    #[default]
    Keep,
    /// `system` stands in its place.
    Replace,
    /// It is left out, and so is `system`.
    Drop,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Unanswered {
    /// The row is bad.
    Refuse,
    /// They are left out.
    #[default]
    Trim,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Supervise {
    /// Every turn of the assistant.
    #[default]
    Every,
    /// The last one; the turns before it are the prompt.
    Last,
}

const COLUMNS: [&str; 6] = ["messages", "conversations", "conversation", "dialog", "dialogue", "turns"];

struct ChatBuilder {
    config: Config,
    roles: Roles,
}

impl TryFrom<Config> for ChatBuilder {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.min_answers == 0 {
            return Err(ConfigProblem::new("min_answers", "must be at least 1, got `0`"));
        }
        if config.system.is_empty() && config.system_turn == SystemTurn::Replace {
            return Err(ConfigProblem::new("system", "must be given where `system_turn` is `replace`"));
        }
        let roles = Roles::with("roles", &config.roles)?;
        Ok(Self { config, roles })
    }
}

impl ChatBuilder {
    fn column<'a>(&'a self, columns: &Columns) -> &'a str {
        let known = || COLUMNS.into_iter().find(|it| columns.contains_key(*it));
        self.config.column.as_deref().or_else(known).unwrap_or(COLUMNS[0])
    }

    /// System turn and the others, in order.
    fn split(&self, mut turns: Vec<Message>) -> Result<(Option<String>, Vec<Message>), String> {
        let own = match turns.first() {
            Some(first) if first.role == Role::System => Some(turns.remove(0).content),
            _ => None,
        };
        if let Some(at) = turns.iter().position(|it| it.role == Role::System) {
            return Err(format!("a system turn stands in the middle, after {at} other turns"));
        }
        let given = Some(self.config.system.clone()).filter(|it| !it.is_empty());
        let system = match self.config.system_turn {
            SystemTurn::Keep => own.or(given),
            SystemTurn::Replace => given,
            SystemTurn::Drop => None,
        };
        Ok((system, turns))
    }

    fn sound(&self, turns: Vec<Message>) -> Result<Vec<Message>, String> {
        let mut sound: Vec<Message> = Vec::with_capacity(turns.len());
        for turn in turns {
            let previous = sound.last().map(|it| it.role);
            // Several tools may answer one call.
            let repeated = previous == Some(turn.role) && turn.role != Role::Tool;
            match sound.last_mut() {
                Some(last) if repeated && !self.config.strict => {
                    last.content = format!("{}\n\n{}", last.content, turn.content);
                    continue;
                }
                _ if repeated => {
                    return Err(format!("turn {} has the role of the one before it", sound.len() + 1));
                }
                None if turn.role != Role::User => return Err("the first turn is not the user's".into()),
                _ if turn.role == Role::Tool && !matches!(previous, Some(Role::Assistant | Role::Tool)) => {
                    return Err(format!("turn {} is a tool's and follows no answer", sound.len() + 1));
                }
                _ => sound.push(turn),
            }
        }
        let answered = sound.iter().rposition(|it| it.role == Role::Assistant).map_or(0, |it| it + 1);
        if answered < sound.len() && answered > 0 && self.config.unanswered == Unanswered::Refuse {
            return Err("the last turn is not the assistant's".into());
        }
        sound.truncate(answered);
        let answers = sound.iter().filter(|it| it.role == Role::Assistant).count();
        match answers < self.config.min_answers as usize {
            true => Err(format!("{answers} answers, at least {} are asked for", self.config.min_answers)),
            false => Ok(sound),
        }
    }
}

impl DataBuilder for ChatBuilder {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let column = self.column(&row.columns);
        let value = columns::value(&row.columns, column)?;
        let turns = turns(value, &self.roles).map_err(|reason| format!("column `{column}`: {reason}"))?;
        let (system, turns) = self.split(turns)?;
        let turns = self.sound(turns)?;
        let system = system.map(|content| Message { role: Role::System, content });
        let mut turns: Vec<Message> = system.into_iter().chain(turns).collect();
        let content = match (self.config.supervise, turns.pop()) {
            (Supervise::Last, Some(answer)) => Content::PromptCompletion {
                prompt: Prompt::Messages(turns),
                completion: Answer::Messages(vec![answer]),
            },
            (_, last) => {
                turns.extend(last);
                Content::Messages(turns)
            }
        };
        let mut kept = columns::kept(&row.columns, self.config.keep.as_deref());
        if self.config.keep.is_none() {
            kept.shift_remove(column);
        }
        Ok(vec![Example { row: row.id, content, columns: kept }])
    }
}

export!(data_builder: ChatBuilder from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use serde_json::{Value, json};

    /// The turns as `role: content`, or the reason.
    fn built(config: Value, columns: Value) -> Result<Vec<String>, String> {
        let mut builder: ChatBuilder =
            testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())?;
        let built = testing::build(&mut builder, vec![testing::row(columns)])?;
        let example = built.outcomes.into_iter().next().unwrap()?.remove(0);
        let shown = |turns: Vec<Message>, mark: &str| {
            turns.into_iter().map(|it| format!("{:?}: {}{mark}", it.role, it.content)).collect::<Vec<_>>()
        };
        Ok(match example.content {
            Content::Messages(turns) => shown(turns, ""),
            Content::PromptCompletion { prompt: Prompt::Messages(a), completion: Answer::Messages(b) } => {
                [shown(a, ""), shown(b, "!")].concat()
            }
            other => panic!("{other:?}"),
        })
    }

    fn share_gpt() -> Value {
        json!({"id": 7, "conversations": [
            {"from": "system", "value": "S"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
            {"from": "human", "value": "c"},
        ]})
    }

    #[test]
    fn share_gpt_and_messages_become_conversations() {
        let expected = ["Role::System: S", "Role::User: a", "Role::Assistant: b"];
        assert_eq!(built(json!({}), share_gpt()).unwrap(), expected);
        let messages =
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
        assert_eq!(built(json!({"system": "S"}), messages).unwrap(), expected);
        assert_eq!(built(json!({"column": "t", "system": "S"}), json!({"t": ["a", "b"]})).unwrap(), expected);
    }

    #[test]
    fn the_system_turn_is_kept_replaced_or_dropped() {
        let first = |config| built(config, share_gpt()).unwrap().remove(0);
        assert_eq!(first(json!({"system": "T"})), "Role::System: S");
        assert_eq!(first(json!({"system": "T", "system_turn": "replace"})), "Role::System: T");
        assert_eq!(first(json!({"system": "T", "system_turn": "drop"})), "Role::User: a");
    }

    #[test]
    fn the_last_answer_alone_may_be_supervised() {
        let row = json!({"turns": ["a", "b", "c", "d"]});
        let expected = ["Role::User: a", "Role::Assistant: b", "Role::User: c", "Role::Assistant: d!"];
        assert_eq!(built(json!({"supervise": "last"}), row).unwrap(), expected);
    }

    #[test]
    fn bad_rows_are_refused_with_a_reason() {
        let reason = |config: Value, turns: Value| built(config, json!({ "messages": turns })).unwrap_err();
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let two = json!([message("user", "a"), message("user", "b"), message("assistant", "c")]);
        assert_eq!(reason(json!({}), two.clone()), "turn 2 has the role of the one before it");
        assert_eq!(
            built(json!({"strict": false}), json!({ "messages": two })).unwrap(),
            ["Role::User: a\n\nb", "Role::Assistant: c"]
        );
        assert_eq!(reason(json!({}), json!([message("assistant", "a")])), "the first turn is not the user's");
        assert_eq!(reason(json!({}), json!(["a"])), "0 answers, at least 1 are asked for");
        assert_eq!(
            reason(json!({"unanswered": "refuse"}), json!(["a", "b", "c"])),
            "the last turn is not the assistant's"
        );
        assert!(
            reason(json!({}), json!([message("user", "a"), message("system", "b")]))
                .contains("in the middle")
        );
        assert_eq!(reason(json!({}), json!([message("user", "")])), "column `messages`: turn 1: is empty");
        assert!(built(json!({}), json!({"text": "a"})).unwrap_err().contains("no column `messages`"));
        assert!(
            reason(json!({}), json!([message("user", "a"), message("tool", "b")]))
                .contains("follows no answer")
        );
    }

    #[test]
    fn impossible_values_name_their_key() {
        assert_eq!(built(json!({"min_answers": 0}), share_gpt()).unwrap_err(), "min_answers");
        assert_eq!(built(json!({"system_turn": "replace"}), share_gpt()).unwrap_err(), "system");
        assert_eq!(built(json!({"roles": {"x": "y"}}), share_gpt()).unwrap_err(), "roles.x");
    }

    #[test]
    fn every_column_but_the_turns_is_handed_on() {
        let mut builder: ChatBuilder = testing::configure::<Config, _>(json!({})).unwrap();
        let example = builder.build(&testing::row(share_gpt())).unwrap().remove(0);
        assert_eq!(example.columns, testing::columns(json!({"id": 7})));
    }
}
