//! Preference pairs of pairs, ranked lists, scored answers and whole conversations that part ways.
//!
//! Whole conversations are written by Anthropic's HH data, <https://arxiv.org/abs/2204.05862>.

use std::collections::BTreeMap;

use fthost_plugin_sdk::{
    Answer, Columns, ConfigProblem, Content, DataBuilder, Example, Message, Prompt, Role, Row, export,
    plugin_config,
};
use row_tools::columns;
use row_tools::conversation::{Roles, turns};
use serde_json::Value;

mod pairs;
mod transcript;

use pairs::{Choice, Scored};

/// `[plugins.preference-builder.config]`; at most one of `ranked` and `scored` is given, and with neither of them a row
/// holds `chosen` and `rejected`.
#[plugin_config]
struct Config {
    /// The column that holds the prompt: a text or a list of turns. Not needed where `chosen` and `rejected` are whole
    /// conversations.
    #[default = "prompt"]
    prompt: String,
    /// The column that holds the preferred answer: a text, a list of turns, or a whole conversation.
    #[default = "chosen"]
    chosen: String,
    /// The column that holds the other one.
    #[default = "rejected"]
    rejected: String,
    /// A list of answers, the best first, or with their ranks.
    #[default = None]
    ranked: Option<Ranked>,
    /// A list of answers with their scores.
    #[default = None]
    scored: Option<ScoredAnswers>,
    /// Which of all possible pairs of a list are made.
    #[default]
    pairs: Choice,
    /// Pairs of a row at most, those furthest apart first.
    #[default = 16]
    max_pairs: u32,
    /// What stands above a conversation that has no system turn; nothing where empty.
    #[default = ""]
    system: String,
    /// Names of roles that a data set uses beside the known ones, each `system`, `user`, `assistant` or `tool`.
    #[default]
    roles: BTreeMap<String, String>,
    /// Turns for a chat template, or plain text to continue.
    #[default]
    format: Format,
    /// Columns handed on to evaluators.
    #[default]
    keep: Vec<String>,
}

#[plugin_config]
struct Ranked {
    /// The column that holds the list of answers.
    answers: String,
    /// The column that holds each answer's rank, 1 the best; where absent the list is in order.
    #[default = None]
    ranks: Option<String>,
}

#[plugin_config]
struct ScoredAnswers {
    /// The column that holds the list of answers: texts, or objects with `text` (or `content`, `response`, `answer`) and a score.
    answers: String,
    /// The column that holds the list of scores; or, where answers are objects, the key of their score.
    scores: String,
    /// How far apart two scores must be.
    #[default = 0.0]
    min_margin: f64,
    /// A lower score is a better one.
    #[default = false]
    lower_is_better: bool,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Format {
    /// A conversation, written with the model's chat template.
    #[default]
    Chat,
    /// Plain text; the answers follow the prompt as it stands.
    Text,
}

struct PreferenceBuilder {
    config: Config,
    roles: Roles,
}

impl TryFrom<Config> for PreferenceBuilder {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.ranked.is_some() && config.scored.is_some() {
            return Err(ConfigProblem::new("scored", "`ranked` is given too; a row holds one or the other"));
        }
        if config.max_pairs == 0 {
            return Err(ConfigProblem::new("max_pairs", "must be at least 1, got `0`"));
        }
        if let Some(scored) = &config.scored
            && !(scored.min_margin >= 0.0 && scored.min_margin.is_finite())
        {
            let message = format!("must be >= 0, got `{}`", scored.min_margin);
            return Err(ConfigProblem::new("scored.min_margin", message));
        }
        let roles = Roles::with("roles", &config.roles)?;
        Ok(Self { config, roles })
    }
}

/// A prompt and two answers to it.
type Pair = (Vec<Message>, Vec<Message>, Vec<Message>);

fn one(role: Role, content: &str) -> Vec<Message> {
    vec![Message { role, content: content.trim().to_owned() }]
}

impl PreferenceBuilder {
    /// Turns of a column: a list of them, a transcript, or a text of one turn of `role`.
    fn read(&self, value: &Value, role: Role) -> Result<Vec<Message>, String> {
        match value {
            Value::String(text) if text.trim().is_empty() => Err("is empty".into()),
            Value::String(text) => Ok(transcript::turns(text).unwrap_or_else(|| one(role, text))),
            other => turns(other, &self.roles),
        }
    }

    fn column(&self, columns: &Columns, name: &str, role: Role) -> Result<Vec<Message>, String> {
        self.read(columns::value(columns, name)?, role).map_err(|reason| format!("column `{name}`: {reason}"))
    }

    /// `chosen` and `rejected` with their prompt, which may be the turns that both begin with.
    fn pair(&self, columns: &Columns) -> Result<Pair, String> {
        let mut chosen = self.column(columns, &self.config.chosen, Role::Assistant)?;
        let mut rejected = self.column(columns, &self.config.rejected, Role::Assistant)?;
        let same = |a: &Message, b: &Message| a.role == b.role && a.content == b.content;
        let mut prompt = match columns.get(&self.config.prompt) {
            None | Some(Value::Null) => Vec::new(),
            Some(_) => self.column(columns, &self.config.prompt, Role::User)?,
        };
        let mut shared = chosen.iter().zip(&rejected).take_while(|(a, b)| same(a, b)).count();
        if shared == chosen.len() && shared == rejected.len() {
            return Err("both answers are the same".into());
        }
        // An answer begins with a turn of the assistant.
        while shared > 0
            && [&chosen, &rejected]
                .iter()
                .any(|it| it.get(shared).is_none_or(|it| it.role != Role::Assistant))
        {
            shared -= 1;
        }
        let beginning: Vec<Message> = chosen.drain(..shared).collect();
        rejected.drain(..shared);
        // Where the conversations repeat the prompt, it stands there once.
        let repeats =
            prompt.len() <= beginning.len() && prompt.iter().zip(&beginning).all(|(a, b)| same(a, b));
        if repeats {
            prompt = beginning;
        } else {
            prompt.extend(beginning);
        }
        Ok((prompt, chosen, rejected))
    }

    /// The answers of a list with a score each, the best highest.
    fn scored(&self, columns: &Columns) -> Result<Option<(Vec<Scored>, f64)>, String> {
        let list = |name: &str| match columns::value(columns, name)? {
            Value::Array(list) => Ok(list),
            other => Err(format!("column `{name}` holds no list but {}", columns::kind(other))),
        };
        if let Some(ranked) = &self.config.ranked {
            let answers = list(&ranked.answers)?;
            let ranks = ranked.ranks.as_deref().map(list).transpose()?;
            let scores = match ranks {
                Some(ranks) => pairs::numbers(ranks, answers.len())?.into_iter().map(|it| -it).collect(),
                None => (0..answers.len()).map(|at| -(at as f64)).collect::<Vec<_>>(),
            };
            return Ok(Some((pairs::scored(answers, scores)?, 0.0)));
        }
        let Some(config) = &self.config.scored else { return Ok(None) };
        let answers = list(&config.answers)?;
        let scores = match columns.get(&config.scores) {
            Some(Value::Array(scores)) => pairs::numbers(scores, answers.len())?,
            Some(other) => {
                return Err(format!("column `{}` holds no list but {}", config.scores, columns::kind(other)));
            }
            None => pairs::scores_within(answers, &config.scores)?,
        };
        let sign = if config.lower_is_better { -1.0 } else { 1.0 };
        let scores = scores.into_iter().map(|it| sign * it).collect();
        Ok(Some((pairs::scored(answers, scores)?, config.min_margin)))
    }

    fn content(&self, (prompt, chosen, rejected): Pair) -> Result<Content, String> {
        let mut prompt = prompt;
        match prompt.last().map(|it| it.role) {
            None => return Err("there is no prompt, and the answers share none".into()),
            Some(Role::User | Role::Tool) => {}
            Some(_) => return Err("the prompt does not end with a turn of the user".into()),
        }
        for (name, answer) in [("chosen", &chosen), ("rejected", &rejected)] {
            if answer.first().is_none_or(|it| it.role != Role::Assistant) {
                return Err(format!("`{name}` does not begin with a turn of the assistant"));
            }
        }
        if prompt[0].role != Role::System && !self.config.system.is_empty() {
            prompt.insert(0, Message { role: Role::System, content: self.config.system.clone() });
        }
        Ok(match self.config.format {
            Format::Chat => Content::Preference {
                prompt: Prompt::Messages(prompt),
                chosen: Answer::Messages(chosen),
                rejected: Answer::Messages(rejected),
            },
            Format::Text => {
                let plain = |turns: Vec<Message>| {
                    turns.into_iter().map(|it| it.content).collect::<Vec<_>>().join("\n\n")
                };
                Content::Preference {
                    prompt: Prompt::Text(format!("{}\n\n", plain(prompt))),
                    chosen: Answer::Text(plain(chosen)),
                    rejected: Answer::Text(plain(rejected)),
                }
            }
        })
    }
}

impl DataBuilder for PreferenceBuilder {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let pairs: Vec<Pair> = match self.scored(&row.columns)? {
            None => vec![self.pair(&row.columns)?],
            Some((answers, margin)) => {
                let prompt = self.column(&row.columns, &self.config.prompt, Role::User)?;
                let chosen =
                    pairs::choose(&answers, self.config.pairs, margin, self.config.max_pairs as usize);
                if chosen.is_empty() {
                    return Err(format!(
                        "none of {} answers is better than another by the margin",
                        answers.len()
                    ));
                }
                let answer = |at: usize| one(Role::Assistant, &answers[at].text);
                chosen.into_iter().map(|(a, b)| (prompt.clone(), answer(a), answer(b))).collect()
            }
        };
        let kept = columns::kept(&row.columns, Some(&self.config.keep));
        let example = |pair| Ok(Example { row: row.id, content: self.content(pair)?, columns: kept.clone() });
        pairs.into_iter().map(example).collect()
    }
}

export!(data_builder: PreferenceBuilder from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use serde_json::json;

    /// Prompt, chosen and rejected as `role: content` joined by ` | `, or the reason.
    fn built(config: Value, columns: Value) -> Result<Vec<[String; 3]>, String> {
        let mut builder: PreferenceBuilder =
            testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())?;
        let shown = |turns: Vec<Message>| {
            let role = |it: &Message| format!("{:?}", it.role).replace("Role::", "").to_lowercase();
            turns.iter().map(|it| format!("{}: {}", role(it), it.content)).collect::<Vec<_>>().join(" | ")
        };
        let examples = builder.build(&testing::row(columns))?;
        let one = |it: Example| match it.content {
            Content::Preference {
                prompt: Prompt::Messages(a),
                chosen: Answer::Messages(b),
                rejected: Answer::Messages(c),
            } => [shown(a), shown(b), shown(c)],
            Content::Preference {
                prompt: Prompt::Text(a),
                chosen: Answer::Text(b),
                rejected: Answer::Text(c),
            } => [a, b, c],
            other => panic!("{other:?}"),
        };
        Ok(examples.into_iter().map(one).collect())
    }

    fn expected() -> [String; 3] {
        ["user: q", "assistant: good", "assistant: bad"].map(str::to_owned)
    }

    #[test]
    fn pairs_of_texts_and_of_turns() {
        let texts = json!({"prompt": "q", "chosen": "good", "rejected": "bad"});
        assert_eq!(built(json!({}), texts.clone()).unwrap(), [expected()]);
        let turns = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
        // With the prompt apart, or in both conversations, or in both places.
        let implicit = json!({"chosen": turns("good"), "rejected": turns("bad")});
        assert_eq!(built(json!({}), implicit).unwrap(), [expected()]);
        let both = json!({"prompt": "q", "chosen": turns("good"), "rejected": turns("bad")});
        assert_eq!(built(json!({}), both).unwrap(), [expected()]);
        let text = built(json!({"format": "text", "system": "S"}), texts).unwrap().remove(0);
        assert_eq!(text, ["S\n\nq\n\n", "good", "bad"]);
    }

    #[test]
    fn transcripts_part_where_they_differ() {
        let chosen = "\n\nHuman: hi\n\nAssistant: ho\n\nHuman: Is\n\nit?\n\nAssistant: yes";
        let row = json!({"chosen": chosen, "rejected": chosen.replace("yes", "no")});
        assert_eq!(
            built(json!({}), row).unwrap(),
            [["user: hi | assistant: ho | user: Is\n\nit?", "assistant: yes", "assistant: no"]]
        );
    }

    #[test]
    fn ranked_lists_give_the_pairs_that_are_asked_for() {
        let row = json!({"prompt": "q", "all": ["a", "b", "c"], "ranks": [2, 1, 3]});
        let of = |pairs: &str, ranks: bool| {
            let mut config = json!({"ranked": {"answers": "all"}, "pairs": pairs});
            if ranks {
                config["ranked"]["ranks"] = json!("ranks");
            }
            let letters = |it: &str| it.rsplit(' ').next().unwrap().to_owned();
            let made = built(config, row.clone()).unwrap();
            made.iter().map(|it| letters(&it[1]) + &letters(&it[2])).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("best_worst", false), "ac");
        assert_eq!(of("neighbours", false), "ab bc");
        assert_eq!(of("all", false), "ac ab bc");
        assert_eq!(of("best_with_others", true), "bc ba");
    }

    #[test]
    fn scores_need_a_margin() {
        let config =
            json!({"scored": {"answers": "all", "scores": "scores", "min_margin": 0.5}, "pairs": "all"});
        let row = json!({"prompt": "q", "all": ["bad", "good", "fair"], "scores": [1.0, 2.0, 1.8]});
        let made = built(config.clone(), row).unwrap();
        assert_eq!(made.iter().map(|it| &*it[2]).collect::<Vec<_>>(), ["assistant: bad", "assistant: bad"]);
        let row = json!({"prompt": "q", "all": ["a", "b"], "scores": [1.0, 1.1]});
        assert_eq!(built(config, row).unwrap_err(), "none of 2 answers is better than another by the margin");
        let config = json!({"scored": {"answers": "all", "scores": "loss", "lower_is_better": true}});
        let row = json!({"prompt": "q", "all": [{"text": "bad", "loss": 3}, {"text": "good", "loss": 1}]});
        assert_eq!(built(config, row).unwrap(), [expected()]);
    }

    #[test]
    fn bad_rows_are_refused_with_a_reason() {
        let reason = |row| built(json!({}), row).unwrap_err();
        assert_eq!(
            reason(json!({"prompt": "q", "chosen": "a", "rejected": "a"})),
            "both answers are the same"
        );
        assert_eq!(
            reason(json!({"chosen": "a", "rejected": "b"})),
            "there is no prompt, and the answers share none"
        );
        assert_eq!(
            reason(json!({"prompt": "q", "chosen": "a", "rejected": ""})),
            "column `rejected`: is empty"
        );
        assert!(reason(json!({"prompt": "q", "chosen": "a"})).contains("no column `rejected`"));
        let config = json!({"ranked": {"answers": "all"}});
        assert!(
            built(config, json!({"prompt": "q", "all": "a"})).unwrap_err().contains("no list but a text")
        );
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| built(config, json!({})).unwrap_err();
        let scored = json!({"answers": "a", "scores": "b"});
        assert_eq!(key(json!({"ranked": {"answers": "a"}, "scored": scored})), "scored");
        assert_eq!(
            key(json!({"scored": {"answers": "a", "scores": "b", "min_margin": -1}})),
            "scored.min_margin"
        );
        assert_eq!(key(json!({"max_pairs": 0})), "max_pairs");
        assert_eq!(key(json!({"roles": {"x": "y"}})), "roles.x");
    }
}
