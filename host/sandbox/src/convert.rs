//! Between the plain records of `fthost-data` and the contract's.

use fthost_data::{
    Candidate, Columns, Completion, Content, Detail, Direction, EvalSample, Finish, Group, Message, Metric,
    Outcome, PreferencePair, Prompt, Role, Sampling, Score,
};
use serde_json::Value;

use crate::wit::imports::fthost::plugin::generate;
use crate::wit::types as wit;

pub(crate) fn columns_to(columns: &Columns) -> String {
    serde_json::to_string(columns).expect("JSON values serialise")
}

/// # Errors
/// Text that is no JSON object.
pub(crate) fn columns_from(text: &str) -> Result<Columns, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(columns)) => Ok(columns),
        Ok(_) => Err("`columns` must be one JSON object".into()),
        Err(error) => Err(format!("`columns` must be one JSON object: {error}")),
    }
}

fn message_to(message: &Message) -> wit::Message {
    let role = match message.role {
        Role::System => wit::Role::System,
        Role::User => wit::Role::User,
        Role::Assistant => wit::Role::Assistant,
        Role::Tool => wit::Role::Tool,
    };
    wit::Message { role, content: message.content.clone() }
}

fn message_from(message: wit::Message) -> Message {
    let role = match message.role {
        wit::Role::System => Role::System,
        wit::Role::User => Role::User,
        wit::Role::Assistant => Role::Assistant,
        wit::Role::Tool => Role::Tool,
    };
    Message { role, content: message.content }
}

fn messages_to(messages: &[Message]) -> Vec<wit::Message> {
    messages.iter().map(message_to).collect()
}

fn messages_from(messages: Vec<wit::Message>) -> Vec<Message> {
    messages.into_iter().map(message_from).collect()
}

pub(crate) fn prompt_to(prompt: &Prompt) -> wit::Prompt {
    match prompt {
        Prompt::Text(text) => wit::Prompt::Text(text.clone()),
        Prompt::Messages(messages) => wit::Prompt::Messages(messages_to(messages)),
    }
}

pub(crate) fn prompt_from(prompt: wit::Prompt) -> Prompt {
    match prompt {
        wit::Prompt::Text(text) => Prompt::Text(text),
        wit::Prompt::Messages(messages) => Prompt::Messages(messages_from(messages)),
    }
}

fn answer_to(completion: &Completion) -> wit::Answer {
    match completion {
        Completion::Text(text) => wit::Answer::Text(text.clone()),
        Completion::Messages(messages) => wit::Answer::Messages(messages_to(messages)),
    }
}

fn answer_from(answer: wit::Answer) -> Completion {
    match answer {
        wit::Answer::Text(text) => Completion::Text(text),
        wit::Answer::Messages(messages) => Completion::Messages(messages_from(messages)),
    }
}

pub(crate) fn content_to(content: &Content) -> wit::Content {
    match content {
        Content::Messages(messages) => wit::Content::Messages(messages_to(messages)),
        Content::PromptCompletion { prompt, completion } => {
            let (prompt, completion) = (prompt_to(prompt), answer_to(completion));
            wit::Content::PromptCompletion(wit::PromptCompletion { prompt, completion })
        }
        Content::Preference(pair) => wit::Content::Preference(wit::PreferencePair {
            prompt: prompt_to(&pair.prompt),
            chosen: answer_to(&pair.chosen),
            rejected: answer_to(&pair.rejected),
        }),
        Content::Text(text) => wit::Content::Text(text.clone()),
        Content::Prompt(prompt) => wit::Content::Prompt(prompt_to(prompt)),
    }
}

pub(crate) fn content_from(content: wit::Content) -> Content {
    match content {
        wit::Content::Messages(messages) => Content::Messages(messages_from(messages)),
        wit::Content::PromptCompletion(pair) => Content::PromptCompletion {
            prompt: prompt_from(pair.prompt),
            completion: answer_from(pair.completion),
        },
        wit::Content::Preference(pair) => Content::Preference(PreferencePair {
            prompt: prompt_from(pair.prompt),
            chosen: answer_from(pair.chosen),
            rejected: answer_from(pair.rejected),
        }),
        wit::Content::Text(text) => Content::Text(text),
        wit::Content::Prompt(prompt) => Content::Prompt(prompt_from(prompt)),
    }
}

pub(crate) fn candidate_to(candidate: &Candidate) -> wit::Candidate {
    let finish = match candidate.finish {
        Finish::Stop => wit::Finish::Stop,
        Finish::Length => wit::Finish::Length,
    };
    wit::Candidate { text: candidate.text.clone(), token_count: candidate.token_count, finish }
}

pub(crate) fn group_to(group: &Group) -> wit::Group {
    wit::Group {
        id: group.id,
        step: group.step,
        prompt: prompt_to(&group.prompt),
        completions: group.completions.iter().map(candidate_to).collect(),
        columns: columns_to(&group.columns),
    }
}

pub(crate) fn sample_to(sample: &EvalSample) -> wit::Sample {
    wit::Sample {
        id: sample.id,
        prompt: prompt_to(&sample.prompt),
        completion: candidate_to(&sample.completion),
        reference: sample.reference.clone(),
        columns: columns_to(&sample.columns),
    }
}

pub(crate) fn outcome_from(outcome: wit::Outcome) -> Outcome {
    use fthost_data::Failure;
    match outcome {
        wit::Outcome::Ok(score) => {
            let not_finite = score.components.iter().find(|it| !it.1.is_finite());
            if !score.value.is_finite() {
                let message = format!("a score is {}", score.value);
                return Outcome::Failed(Failure::Contract { message });
            }
            if let Some((name, value)) = not_finite {
                let message = format!("the score's component `{name}` is {value}");
                return Outcome::Failed(Failure::Contract { message });
            }
            Outcome::Ok(Score { value: score.value, components: score.components })
        }
        wit::Outcome::Abstain(reason) => Outcome::Abstain { reason },
        wit::Outcome::Error(message) => Outcome::Failed(Failure::Plugin { message }),
    }
}

pub(crate) fn detail_from(detail: wit::Detail) -> Detail {
    Detail { id: detail.id, values: detail.values, note: detail.note }
}

/// # Errors
/// A figure that is not finite.
pub(crate) fn metric_from(metric: wit::Metric) -> Result<Metric, String> {
    let bounds = metric.confidence.unwrap_or((0.0, 0.0));
    if !(metric.value.is_finite() && bounds.0.is_finite() && bounds.1.is_finite()) {
        return Err(format!("metric `{}` is not finite", metric.name));
    }
    Ok(Metric {
        name: metric.name,
        value: metric.value,
        direction: match metric.direction {
            wit::Direction::HigherIsBetter => Direction::HigherIsBetter,
            wit::Direction::LowerIsBetter => Direction::LowerIsBetter,
        },
        confidence: metric.confidence,
        count: metric.count,
    })
}

pub(crate) fn sampling_from(sampling: generate::Sampling) -> Sampling {
    Sampling {
        max_new_tokens: sampling.max_new_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        completions_per_prompt: sampling.completions_per_prompt,
        stop: sampling.stop,
        seed: sampling.seed,
    }
}
