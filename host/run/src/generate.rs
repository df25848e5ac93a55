//! Answers of a model, with or without an adapter, to prompts from the command line or from a file.

use std::path::{Path, PathBuf};

use fthost_data::encode::encode_prompt;
use fthost_data::{Content, DataError, Message, Origin, Prompt, Role, Tokenizer, rows, source};
use fthost_engine::EngineError;
use fthost_engine::checkpoint::load_model;
use fthost_engine::device::{self, DeviceKind};
pub use fthost_engine::generate::{Completion, GenerateConfig};
pub use fthost_engine::nn::DecodeWeights;

use crate::adapter_base::load_adapters;
use crate::error::{Result, RunError};
use crate::models::combine::Weighted;

/// What is asked of which model.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// A folder in Hugging Face's layout.
    pub model: PathBuf,
    /// PEFT folders, each times its weight.
    pub adapters: Vec<Weighted>,
    /// What is answered.
    pub prompts: PromptSource,
    /// Opens every conversation that has no system message of its own.
    pub system: Option<String>,
    /// How answers are sampled.
    pub config: GenerateConfig,
    /// Completions that grow at one time.
    pub max_batch: usize,
    /// What the model's weights are read as.
    pub weights: DecodeWeights,
    /// Where to compute.
    pub device: DeviceKind,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptSource {
    /// Each is what a person says; as it stands, where `raw`.
    Texts {
        /// The texts.
        texts: Vec<String>,
        /// No chat template.
        raw: bool,
    },
    /// Rows of a shape that is known without a plugin. Text is continued as it stands, as training has it; a
    /// conversation is rendered up to its last answer.
    File(PathBuf),
}

/// What a model answered to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What was asked, a given system message included.
    pub prompt: Prompt,
    /// `completions_per_prompt` of them.
    pub completions: Vec<Completion>,
}

/// Answers every prompt, in order.
///
/// # Errors
/// Impossible values of the configuration; prompts that can't be read, rendered or continued, by file and line or by
/// position; a model or an adapter that can't be loaded.
pub fn run(request: &GenerateRequest) -> Result<Vec<Answer>> {
    let problems = request.config.problems();
    if !problems.is_empty() {
        return Err(EngineError::Invalid { what: "generation settings".into(), problems }.into());
    }
    let tokenizer = Tokenizer::load(&request.model)?;
    let (prompts, origins) = read_prompts(request)?;
    let token_ids = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| {
            encode_prompt(prompt, &tokenizer).map_err(|error| at_row(error, &origins, index))
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let mut model = load_model(&request.model, &device::open(request.device)?)?;
    load_adapters(&mut model, &request.adapters, &request.model)?;
    let model = model.for_decoding(request.weights);
    let answered =
        fthost_engine::generate::generate(&model, &tokenizer, &token_ids, &request.config, request.max_batch);
    let answered = answered.map_err(|error| match error {
        EngineError::Prompt { index, reason } if !origins.is_empty() => {
            RunError::Data(DataError::BadRow { origin: origins[index].clone(), reason })
        }
        other => other.into(),
    })?;
    let answers = prompts.into_iter().zip(answered);
    Ok(answers.map(|(prompt, completions)| Answer { prompt, completions }).collect())
}

fn at_row(error: DataError, origins: &[Origin], index: usize) -> DataError {
    match origins.get(index) {
        Some(origin) => DataError::BadRow { origin: origin.clone(), reason: error.to_string() },
        None => error,
    }
}

/// Prompts, and the rows they are from where they are from a file.
fn read_prompts(request: &GenerateRequest) -> Result<(Vec<Prompt>, Vec<Origin>)> {
    let (mut prompts, origins) = match &request.prompts {
        PromptSource::Texts { texts, raw: true } => {
            (texts.iter().cloned().map(Prompt::Text).collect(), Vec::new())
        }
        PromptSource::Texts { texts, raw: false } => {
            let said = |text: &String| Prompt::Messages(vec![Message::new(Role::User, text.clone())]);
            (texts.iter().map(said).collect(), Vec::new())
        }
        PromptSource::File(path) => read_file(path)?,
    };
    if let Some(system) = &request.system {
        for prompt in &mut prompts {
            if let Prompt::Messages(messages) = prompt
                && messages.first().is_none_or(|it| it.role != Role::System)
            {
                messages.insert(0, Message::new(Role::System, system.clone()));
            }
        }
    }
    Ok((prompts, origins))
}

fn read_file(path: &Path) -> Result<(Vec<Prompt>, Vec<Origin>)> {
    let (mut prompts, mut origins) = (Vec::new(), Vec::new());
    for row in source::read_rows(path)? {
        let example = rows::example(row?)?;
        let prompt = match example.content {
            Content::Prompt(prompt) | Content::PromptCompletion { prompt, .. } => prompt,
            Content::Preference(pair) => pair.prompt,
            Content::Text(text) => Prompt::Text(text),
            Content::Messages(messages) => Prompt::Messages(without_last_answer(messages)),
        };
        prompts.push(prompt);
        origins.push(example.origin);
    }
    if prompts.is_empty() {
        return Err(DataError::Damaged { path: path.to_path_buf(), reason: "it holds no row".into() }.into());
    }
    Ok((prompts, origins))
}

/// What stands before the answers that end a conversation.
fn without_last_answer(mut messages: Vec<Message>) -> Vec<Message> {
    while messages.last().is_some_and(|it| it.role == Role::Assistant) {
        messages.pop();
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(prompts: PromptSource, system: Option<&str>) -> GenerateRequest {
        GenerateRequest {
            model: "model".into(),
            adapters: Vec::new(),
            prompts,
            system: system.map(str::to_string),
            config: GenerateConfig::default(),
            weights: DecodeWeights::default(),
            max_batch: 8,
            device: DeviceKind::Cpu,
        }
    }

    fn shown(request: &GenerateRequest) -> Vec<String> {
        let (prompts, _) = read_prompts(request).unwrap();
        prompts.iter().map(|it| serde_json::to_string(it).unwrap()).collect()
    }

    #[test]
    fn texts_are_a_persons_turns_unless_they_are_raw() {
        let texts = |raw| PromptSource::Texts { texts: vec!["Hi".into()], raw };
        assert_eq!(shown(&request(texts(true), Some("Be brief."))), ["\"Hi\""]);
        insta::assert_snapshot!(
            shown(&request(texts(false), Some("Be brief.")))[0],
            @r#"[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]"#
        );
    }

    #[test]
    fn rows_are_asked_up_to_their_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let rows = [
            r#"{"prompt": "1 + 1 =", "completion": " 2"}"#,
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},
                {"role": "assistant", "content": "a"}]}"#,
            r#"{"prompt": [{"role": "user", "content": "u"}], "answer": "a"}"#,
        ];
        std::fs::write(&path, rows.map(|it| it.replace('\n', " ")).join("\n")).unwrap();
        insta::assert_snapshot!(shown(&request(PromptSource::File(path), Some("x"))).join("\n"), @r#"
        "1 + 1 ="
        [{"role":"system","content":"s"},{"role":"user","content":"u"}]
        [{"role":"system","content":"x"},{"role":"user","content":"u"}]
        "#);
    }
}
