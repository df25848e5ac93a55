//! The constraints: what is asked for, and the answer that keeps it.

use serde_json::{Map, Value};

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Constraint {
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
    /// The answer, then a given sentence.
    Closing,
    /// Each sentence a point of a list.
    Bullets,
    /// Each sentence a point of a numbered list.
    Numbered,
    /// Each sentence on a line of its own.
    OwnLines,
    /// The answer in `<answer>`.
    Tagged,
    /// The answer in a JSON object under the key `answer`.
    JsonAnswer,
    /// The question again, then the answer.
    RepeatQuestion,
}

/// In which a constraint is stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    English,
    /// Chinese, simplified.
    Chinese,
}

/// A constraint, its wording and the answer that keeps it.
pub struct Stated {
    /// Its name.
    pub operation: &'static str,
    /// How it is asked for.
    pub wording: String,
    /// What keeps it.
    pub answer: String,
}

impl Constraint {
    /// Every constraint.
    pub const ALL: [Self; 13] = [
        Self::OnlyKeys,
        Self::SortedKeys,
        Self::Lowercase,
        Self::Uppercase,
        Self::Quoted,
        Self::Opening,
        Self::Closing,
        Self::Bullets,
        Self::Numbered,
        Self::OwnLines,
        Self::Tagged,
        Self::JsonAnswer,
        Self::RepeatQuestion,
    ];

    /// The constraint on `answer` to `asked`; `None` where it does not fit or would change nothing. `draw(n)` is in `0..n`.
    pub fn state(
        self,
        asked: &str,
        answer: &str,
        language: Language,
        draw: &mut dyn FnMut(u64) -> u64,
    ) -> Option<Stated> {
        // Text constraints would break JSON.
        let stated = match object(answer) {
            Some(object) => self.of_json(object, language, draw),
            None => self.of_case(answer, language, draw).or_else(|| self.of_style(asked, answer, language)),
        };
        stated.filter(|it| it.answer != answer)
    }

    fn of_json(
        self,
        object: Map<String, Value>,
        language: Language,
        draw: &mut dyn FnMut(u64) -> u64,
    ) -> Option<Stated> {
        match self {
            Self::OnlyKeys => {
                let chosen = some_keys(&object, draw)?;
                let names = chosen.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let wording = match language {
                    Language::English => format!("Give only these keys: {names}."),
                    Language::Chinese => format!("只给出这些键：{names}。"),
                };
                Some(Stated { operation: "constraint:only-keys", wording, answer: line(&chosen) })
            }
            Self::SortedKeys => {
                let mut entries: Vec<_> = object.into_iter().collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                let wording = language.of("Put the keys in alphabetical order.", "请按字母顺序排列各个键。");
                let answer = line(&entries.into_iter().collect());
                Some(Stated { operation: "constraint:sorted-keys", wording, answer })
            }
            _ => None,
        }
    }

    fn of_case(self, answer: &str, language: Language, draw: &mut dyn FnMut(u64) -> u64) -> Option<Stated> {
        let (operation, wording, answer) = match self {
            Self::Lowercase => (
                "constraint:lowercase",
                language.of("Answer in lower case only.", "只用小写字母回答。"),
                answer.to_lowercase(),
            ),
            Self::Uppercase => (
                "constraint:uppercase",
                language.of("Answer in upper case only.", "只用大写字母回答。"),
                answer.to_uppercase(),
            ),
            Self::Quoted => (
                "constraint:quoted",
                language.of("Put your whole answer between double quotes.", "请把整个回答放在双引号中。"),
                format!("\"{answer}\""),
            ),
            Self::Opening => {
                let (words, space): ([&str; 3], &str) = match language {
                    Language::English => (["Answer:", "Result:", "Reply:"], " "),
                    Language::Chinese => (["答：", "结果：", "回复："], ""),
                };
                let word = words[draw(words.len() as u64) as usize];
                let wording = match language {
                    Language::English => format!("Begin with \"{word}\"."),
                    Language::Chinese => format!("请以“{word}”开头。"),
                };
                ("constraint:opening", wording, format!("{word}{space}{answer}"))
            }
            Self::Closing => {
                let (words, space): ([&str; 3], &str) = match language {
                    Language::English => (["That is all.", "I hope this helps.", "End of answer."], " "),
                    Language::Chinese => (["以上。", "希望对你有帮助。", "回答完毕。"], ""),
                };
                let word = words[draw(words.len() as u64) as usize];
                let wording = match language {
                    Language::English => format!("End with exactly this sentence: \"{word}\""),
                    Language::Chinese => format!("请以这句话结尾：“{word}”"),
                };
                ("constraint:closing", wording, format!("{}{space}{word}", answer.trim_end()))
            }
            _ => return None,
        };
        Some(Stated { operation, wording, answer })
    }

    fn of_style(self, asked: &str, answer: &str, language: Language) -> Option<Stated> {
        let all: Vec<&str> =
            text_tools::sentences(answer).into_iter().map(str::trim).filter(|it| !it.is_empty()).collect();
        // One sentence is no list, and a list is one already.
        let listed = |mark: &dyn Fn(usize) -> String| {
            let several = all.len() > 1 && !answer.trim().contains('\n');
            let lines = all.iter().enumerate().map(|(at, it)| format!("{}{it}", mark(at + 1)));
            several.then(|| lines.collect::<Vec<_>>().join("\n"))
        };
        let (operation, wording, answer) = match self {
            Self::Bullets => (
                "constraint:bullets",
                language.of(
                    "Answer as a list: each sentence on a line that begins with \"- \".",
                    "请用列表回答：每句话一行，以“- ”开头。",
                ),
                listed(&|_| "- ".into())?,
            ),
            Self::Numbered => (
                "constraint:numbered",
                language.of(
                    "Answer as a numbered list, one sentence a point: 1. 2. 3.",
                    "请用编号列表回答，每句话一点：1. 2. 3.",
                ),
                listed(&|at| format!("{at}. "))?,
            ),
            Self::OwnLines => (
                "constraint:own-lines",
                language.of("Put every sentence on a line of its own.", "请让每句话单独成行。"),
                listed(&|_| String::new())?,
            ),
            Self::Tagged => (
                "constraint:tagged",
                language.of(
                    "Put your answer between <answer> and </answer>.",
                    "请把回答放在 <answer> 和 </answer> 之间。",
                ),
                format!("<answer>{answer}</answer>"),
            ),
            Self::JsonAnswer => (
                "constraint:json-answer",
                language.of(
                    "Reply with one JSON object whose only key is \"answer\".",
                    "请只回复一个 JSON 对象，唯一的键是 \"answer\"。",
                ),
                format!("{{\"answer\": {}}}", Value::from(answer)),
            ),
            Self::RepeatQuestion => (
                "constraint:repeat-question",
                language.of(
                    "First repeat the question word for word, then answer on a new line.",
                    "请先逐字重复问题，然后另起一行回答。",
                ),
                format!("{}\n{answer}", asked.trim()),
            ),
            _ => return None,
        };
        Some(Stated { operation, wording, answer })
    }
}

impl Language {
    fn of(self, english: &str, chinese: &str) -> String {
        match self {
            Self::English => english.into(),
            Self::Chinese => chinese.into(),
        }
    }
}

/// The object that a text is.
pub fn object(text: &str) -> Option<Map<String, Value>> {
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
