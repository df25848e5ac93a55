//! The texts of an example, whatever its shape.

use fthost_plugin_sdk::{Answer, Content, Example, Message, Prompt, Role, plugin_config};

/// Which text of an example is meant.
#[plugin_config]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// The prompt, or its last user turn.
    #[default]
    Prompt,
    /// The answer, or a plain text.
    Completion,
}

impl Part {
    /// [`prompt`] or [`completion`].
    pub fn of(self, content: &Content) -> Option<&str> {
        match self {
            Self::Prompt => prompt(content),
            Self::Completion => completion(content),
        }
    }

    /// [`with_prompt`] or [`with_completion`].
    pub fn replaced(self, example: &Example, text: String) -> Option<Example> {
        match self {
            Self::Prompt => with_prompt(example, text),
            Self::Completion => with_completion(example, text),
        }
    }
}

/// The text that is asked: a prompt, the last user turn before the answer, or nothing.
pub fn prompt(content: &Content) -> Option<&str> {
    match content {
        Content::PromptCompletion { prompt, .. }
        | Content::Preference { prompt, .. }
        | Content::Prompt(prompt) => prompt_text(prompt),
        Content::Messages(turns) => {
            Some(turns[..answer_at(turns)?].last()?).filter(is_user).map(|it| &*it.content)
        }
        Content::Text(_) => None,
    }
}

/// The text that answers: of a single answer, the last assistant turn, or a plain text as a whole.
pub fn completion(content: &Content) -> Option<&str> {
    match content {
        Content::PromptCompletion { completion: Answer::Text(text), .. } | Content::Text(text) => Some(text),
        Content::PromptCompletion { completion: Answer::Messages(turns), .. } => match turns.as_slice() {
            [one] => Some(&one.content),
            _ => None,
        },
        Content::Messages(turns) => Some(&turns[answer_at(turns)?].content),
        Content::Preference { .. } | Content::Prompt(_) => None,
    }
}

/// The example with another [`prompt`].
pub fn with_prompt(example: &Example, text: String) -> Option<Example> {
    let mut example = example.clone();
    match &mut example.content {
        Content::PromptCompletion { prompt, .. }
        | Content::Preference { prompt, .. }
        | Content::Prompt(prompt) => match prompt {
            Prompt::Text(old) => *old = text,
            Prompt::Messages(turns) => turns.last_mut().filter(|it| it.role == Role::User)?.content = text,
        },
        Content::Messages(turns) => {
            let at = answer_at(turns)?;
            turns[..at].last_mut().filter(|it| it.role == Role::User)?.content = text;
        }
        Content::Text(_) => return None,
    }
    Some(example)
}

/// The example with another [`completion`].
pub fn with_completion(example: &Example, text: String) -> Option<Example> {
    completion(&example.content)?;
    let mut example = example.clone();
    match &mut example.content {
        Content::PromptCompletion { completion: Answer::Text(old), .. } | Content::Text(old) => *old = text,
        Content::PromptCompletion { completion: Answer::Messages(turns), .. } | Content::Messages(turns) => {
            turns.last_mut()?.content = text;
        }
        _ => return None,
    }
    Some(example)
}

/// A prompt and its answer, as turns or as plain text.
pub fn pair(row: u64, system: &str, prompt: String, completion: String, chat: bool) -> Example {
    let message = |role, content| Message { role, content };
    let content = if chat {
        let system = (!system.is_empty()).then(|| message(Role::System, system.to_owned()));
        Content::PromptCompletion {
            prompt: Prompt::Messages(system.into_iter().chain([message(Role::User, prompt)]).collect()),
            completion: Answer::Messages(vec![message(Role::Assistant, completion)]),
        }
    } else {
        Content::PromptCompletion {
            prompt: Prompt::Text(format!("{system}{prompt}")),
            completion: Answer::Text(completion),
        }
    };
    Example { row, content, columns: fthost_plugin_sdk::Columns::new() }
}

fn is_user(turn: &&Message) -> bool {
    turn.role == Role::User
}

fn prompt_text(prompt: &Prompt) -> Option<&str> {
    match prompt {
        Prompt::Text(text) => Some(text),
        Prompt::Messages(turns) => turns.last().filter(is_user).map(|it| &*it.content),
    }
}

/// Where the last turn is, if the assistant has it.
fn answer_at(turns: &[Message]) -> Option<usize> {
    turns.last().filter(|it| it.role == Role::Assistant).map(|_| turns.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: Role, content: &str) -> Message {
        Message { role, content: content.into() }
    }

    #[test]
    fn texts_are_found_and_replaced_in_every_shape() {
        let turns = vec![message(Role::User, "q"), message(Role::Assistant, "a")];
        let conversation =
            Example { content: Content::Messages(turns), ..pair(1, "", String::new(), String::new(), true) };
        for example in [
            pair(1, "", "q".into(), "a".into(), true),
            pair(1, "", "q".into(), "a".into(), false),
            conversation,
        ] {
            assert_eq!((prompt(&example.content), completion(&example.content)), (Some("q"), Some("a")));
            let changed = with_completion(&with_prompt(&example, "Q".into()).unwrap(), "A".into()).unwrap();
            assert_eq!((prompt(&changed.content), completion(&changed.content)), (Some("Q"), Some("A")));
        }
        let text =
            Example { content: Content::Text("t".into()), ..pair(1, "", "q".into(), "a".into(), true) };
        assert_eq!((prompt(&text.content), completion(&text.content)), (None, Some("t")));
        assert!(with_prompt(&text, "Q".into()).is_none());
    }
}
