//! Examples as tokens, with the labels that say what is learned.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use crate::batch::{BAD, GOOD, IGNORED, Sequence};
use crate::chat_template::Rendered;
use crate::error::{DataError, Result};
use crate::record::{Columns, Completion, Content, Example, Message, Origin, Prompt};
use crate::tokenizer::Tokenizer;

/// An example as tokens: assistant turns with their end of turn, or the completion with the end of text, supervised.
///
/// A sequence longer than `max_length` loses its end.
///
/// # Errors
/// [`DataError::BadRow`] for a conversation without a chat template, a shape that supervised fine-tuning does not
/// learn from, and a row without a supervised token.
pub fn encode(example: &Example, tokenizer: &Tokenizer, max_length: usize) -> Result<Sequence> {
    encode_content(&example.content, &example.origin, tokenizer, max_length)
}

/// A preference pair as tokens: prompt and chosen answer, then prompt and rejected answer, each as [`encode`] makes it.
///
/// # Errors
/// [`DataError::BadRow`] as [`encode`]; for an example that is no pair, for equal answers and for an empty one.
pub fn encode_pair(example: &Example, tokenizer: &Tokenizer, max_length: usize) -> Result<Sequence> {
    let bad = |reason: &str| DataError::BadRow { origin: example.origin.clone(), reason: reason.to_string() };
    let Content::Preference(pair) = &example.content else {
        return Err(bad(NO_PAIR));
    };
    if pair.chosen == pair.rejected {
        return Err(bad("`chosen` and `rejected` are equal: nothing is preferred"));
    }
    for (name, answer) in [("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
        if answer.is_empty() {
            return Err(bad(&format!("`{name}` is empty")));
        }
    }
    let encoded = |content: &Content| encode_content(content, &example.origin, tokenizer, max_length);
    let [chosen, rejected] = &example.content.sequences()[..] else { unreachable!("a pair is two") };
    let (mut both, rejected) = (encoded(chosen)?, encoded(rejected)?);
    both.cut = both.input_ids.len();
    both.input_ids.extend(rejected.input_ids);
    both.labels.extend(rejected.labels);
    Ok(both)
}

/// A judged completion as tokens: a prompt and its answer as [`encode`] makes them, good or bad by the column `label`. A
/// preference pair is taken apart into a good and a bad one, as by TRL's `unpair_preference_dataset`.
///
/// # Errors
/// [`DataError::BadRow`] as [`encode`] and [`encode_pair`]; for an example of another shape, and for a `label` that is
/// missing or neither true nor false.
pub fn encode_judged(example: &Example, tokenizer: &Tokenizer, max_length: usize) -> Result<Vec<Sequence>> {
    let bad = |reason: String| DataError::BadRow { origin: example.origin.clone(), reason };
    match &example.content {
        Content::Preference(_) => {
            let pair = encode_pair(example, tokenizer, max_length)?;
            let one = |tokens: Range<usize>, judgement: f32| Sequence {
                input_ids: pair.input_ids[tokens.clone()].to_vec(),
                labels: pair.labels[tokens].to_vec(),
                cut: 0,
                judgement,
                origin: Arc::clone(&pair.origin),
            };
            Ok(vec![one(0..pair.cut, GOOD), one(pair.cut..pair.input_ids.len(), BAD)])
        }
        Content::PromptCompletion { completion, .. } => {
            let judgement = if label(&example.columns).map_err(bad)? { GOOD } else { BAD };
            if completion.is_empty() {
                return Err(bad("`completion` is empty".into()));
            }
            Ok(vec![Sequence { judgement, ..encode(example, tokenizer, max_length)? }])
        }
        _ => Err(bad(NOT_JUDGED.into())),
    }
}

/// The column `label`: whether a completion is as it should be.
///
/// # Errors
/// What is wrong with it.
pub fn label(columns: &Columns) -> std::result::Result<bool, String> {
    match columns.get("label") {
        Some(Value::Bool(good)) => Ok(*good),
        None | Some(Value::Null) => {
            Err("it has no `label`: whether its completion is good, `true` or `false`".to_string())
        }
        Some(other) => Err(format!("`label` must be true or false, got `{other}`")),
    }
}

fn encode_content(
    content: &Content,
    origin: &Origin,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<Sequence> {
    let bad = |reason: String| DataError::BadRow { origin: origin.clone(), reason };
    if let Content::Prompt(_) = content {
        return Err(bad(NO_ANSWER.into()));
    }
    let rendered = render(content, tokenizer).map_err(|error| bad(error.to_string()))?;
    let encoded = tokenizer.encode(&rendered.text)?;
    let supervised = |start: usize, end: usize| {
        start < end && rendered.supervised.iter().any(|span| span.start <= start && end <= span.end)
    };
    let labels = encoded
        .ids
        .iter()
        .zip(&encoded.offsets)
        .map(|(&id, &(start, end))| if supervised(start, end) { i64::from(id) } else { IGNORED });
    let mut sequence = Sequence {
        labels: labels.collect(),
        input_ids: encoded.ids,
        cut: 0,
        judgement: 0.0,
        origin: Arc::new(origin.clone()),
    };
    sequence.input_ids.truncate(max_length);
    sequence.labels.truncate(max_length);
    if sequence.supervised_tokens() == 0 {
        return Err(bad(format!(
            "no supervised token within max_length = {max_length}: nothing would be learned"
        )));
    }
    Ok(sequence)
}

/// A prompt as the tokens generation continues.
///
/// # Errors
/// A conversation without a chat template, or one the template refuses.
pub fn encode_prompt(prompt: &Prompt, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    Ok(tokenizer.encode(&prompt_text(prompt, tokenizer)?)?.ids)
}

fn prompt_text(prompt: &Prompt, tokenizer: &Tokenizer) -> Result<String> {
    match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Messages(messages) => template(tokenizer)?.render(messages, true),
    }
}

/// Why a row is no example for an objective over pairs.
pub const NO_PAIR: &str = "it is no preference pair: `prompt`, `chosen` and `rejected`";

/// Why a row is no example for supervised fine-tuning.
pub const NO_ANSWER: &str = "a row without one answer can't be learned by `[objective.sft]`";

/// Why a row is no example for an objective over completions that are judged alone.
pub const NOT_JUDGED: &str =
    "it is no judged completion: `prompt`, `completion` and `label`, or a pair of `chosen` and `rejected`";

/// The text of an example and what of it is supervised.
///
/// # Errors
/// As [`encode`].
pub fn render(content: &Content, tokenizer: &Tokenizer) -> Result<Rendered> {
    let end = tokenizer.eos_token.as_deref().unwrap_or_default();
    match content {
        Content::Messages(messages) => template(tokenizer)?.render_supervised(messages),
        Content::Text(text) => {
            let text = format!("{text}{end}");
            Ok(Rendered { supervised: std::iter::once(0..text.len()).collect(), text })
        }
        Content::PromptCompletion {
            prompt: Prompt::Text(prompt),
            completion: Completion::Text(completion),
        } => {
            let text = format!("{prompt}{completion}{end}");
            Ok(Rendered { supervised: std::iter::once(prompt.len()..text.len()).collect(), text })
        }
        Content::PromptCompletion {
            prompt: Prompt::Messages(prompt),
            completion: Completion::Messages(completion),
        } => {
            let asked = template(tokenizer)?.render(prompt, true)?.len();
            let whole: Vec<Message> = prompt.iter().chain(completion).cloned().collect();
            let mut rendered = template(tokenizer)?.render_supervised(&whole)?;
            rendered.supervised.retain(|span| span.start >= asked);
            Ok(rendered)
        }
        Content::PromptCompletion { .. } => Err(DataError::ChatTemplate(
            "prompt and completion must both be text or both conversations".into(),
        )),
        Content::Prompt(prompt) => {
            Ok(Rendered { text: prompt_text(prompt, tokenizer)?, supervised: Vec::new() })
        }
        Content::Preference(_) => Err(DataError::ChatTemplate(NO_ANSWER.into())),
    }
}

fn template(tokenizer: &Tokenizer) -> Result<&crate::chat_template::ChatTemplate> {
    tokenizer.chat_template.as_ref().ok_or_else(|| {
        DataError::ChatTemplate("the model has none; use text prompts, or give `chat_template.jinja`".into())
    })
}
