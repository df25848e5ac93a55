//! Conversations written as one text: `\n\nHuman: ...\n\nAssistant: ...`.

use fthost_plugin_sdk::{Message, Role};

const SPEAKERS: [(&str, Role); 3] =
    [("Human:", Role::User), ("Assistant:", Role::Assistant), ("System:", Role::System)];

fn speaker(text: &str) -> Option<(Role, &str)> {
    SPEAKERS.into_iter().find_map(|(name, role)| Some((role, text.strip_prefix(name)?)))
}

/// The turns of a transcript; `None` for a text that begins with no speaker. A turn ends where, after an empty line,
/// another speaker begins.
pub fn turns(text: &str) -> Option<Vec<Message>> {
    let (mut role, mut rest) = speaker(text.trim_start())?;
    let mut turns = Vec::new();
    loop {
        let next = rest.match_indices("\n\n").find_map(|(at, _)| {
            let (role, after) = speaker(rest[at..].trim_start_matches('\n'))?;
            Some((at, role, after))
        });
        let content = rest[..next.map_or(rest.len(), |it| it.0)].trim().to_owned();
        // The data set has turns that were cut off.
        if !content.is_empty() {
            turns.push(Message { role, content });
        }
        match next {
            Some((_, next_role, after)) => (role, rest) = (next_role, after),
            None => return Some(turns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speaker_begins_a_turn_only_after_an_empty_line() {
        let text = "\n\nHuman: a\nAssistant: no\n\nb\n\nAssistant: c\n\nHuman:";
        let turns: Vec<_> = turns(text).unwrap().into_iter().map(|it| (it.role, it.content)).collect();
        let expected = [(Role::User, "a\nAssistant: no\n\nb".to_owned()), (Role::Assistant, "c".to_owned())];
        assert_eq!(turns, expected);
        assert!(super::turns("Hello. Human: a").is_none());
    }
}
