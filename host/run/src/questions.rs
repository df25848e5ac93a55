//! Held-out examples as questions to the model, and answers to them as evaluators see them.

use fthost_data::{
    Candidate, Columns, Completion, Content, EvalSample, Example, Origin, Prompt, Role, Tokenizer, encode,
};

use crate::error::Result;

/// A held-out example as a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub(crate) prompt: Prompt,
    pub(crate) prompt_ids: Vec<u32>,
    pub(crate) reference: Option<String>,
    pub(crate) columns: Columns,
    pub(crate) origin: Origin,
}

/// The prompt and the expected answer of an example; `None` for plain text and conversations without an answer.
pub(crate) fn question(example: &Example, tokenizer: &Tokenizer) -> Result<Option<Question>> {
    let (prompt, reference) = match &example.content {
        Content::PromptCompletion { prompt, completion } => (prompt.clone(), Some(answer_text(completion))),
        Content::Prompt(prompt) => (prompt.clone(), None),
        Content::Preference(pair) => (pair.prompt.clone(), Some(answer_text(&pair.chosen))),
        Content::Messages(messages) => match messages.split_last() {
            Some((last, before)) if last.role == Role::Assistant && !before.is_empty() => {
                (Prompt::Messages(before.to_vec()), Some(last.content.clone()))
            }
            _ => return Ok(None),
        },
        Content::Text(_) => return Ok(None),
    };
    let prompt_ids = encode::encode_prompt(&prompt, tokenizer)?;
    Ok(Some(Question {
        prompt,
        prompt_ids,
        reference,
        columns: example.columns.clone(),
        origin: example.origin.clone(),
    }))
}

fn answer_text(completion: &Completion) -> String {
    match completion {
        Completion::Text(text) => text.clone(),
        Completion::Messages(messages) => {
            messages.last().map_or_else(String::new, |message| message.content.clone())
        }
    }
}

/// A sample an answer; ids count answers, so that several to one question are told apart.
/// `step` of `steps` optimizer steps are done.
pub(crate) fn samples(
    (step, steps): (u64, u64),
    questions: &[Question],
    candidates: &[Vec<Candidate>],
) -> Vec<EvalSample> {
    let of_question = questions.iter().zip(candidates).flat_map(|(question, all)| {
        all.iter().map(move |completion| EvalSample {
            id: 0,
            step,
            steps,
            prompt: question.prompt.clone(),
            completion: completion.clone(),
            reference: question.reference.clone(),
            columns: question.columns.clone(),
        })
    });
    (0..).zip(of_question).map(|(id, sample)| EvalSample { id, ..sample }).collect()
}
