//! `[judges.<name>]`: models beside the run's own that plugins may ask, behind an HTTP endpoint or in a folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fthost_data::{Candidate, Finish, HostModel, Message, Prompt, Role, Sampling, TextLogprob, Tokenizer};
use fthost_engine::checkpoint::load_model;
use fthost_engine::device::{self, DeviceKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Result, RunError};
use crate::host_model::EngineModel;

/// `[judges]`, by name.
pub type Judges = BTreeMap<String, JudgeConfig>;

/// `[judges.<name>.<kind>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum JudgeConfig {
    /// A server that speaks OpenAI's chat completions.
    Endpoint(Endpoint),
    /// A model in Hugging Face's layout.
    Folder {
        /// Where it is.
        path: PathBuf,
    },
}

/// `[judges.<name>.endpoint]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Address up to and with the version, as in `https://api.example.org/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Environment variable that holds the key; no key is sent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// Seconds until an answer is given up.
    #[serde(default = "default_timeout")]
    pub timeout_s: u64,
}

fn default_timeout() -> u64 {
    60
}

impl JudgeConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let Self::Endpoint(endpoint) = self else { return Vec::new() };
        let mut problems = Vec::new();
        if !(endpoint.url.starts_with("https://") || endpoint.url.starts_with("http://")) {
            problems
                .push(format!("`endpoint.url` must begin with https:// or http://, got `{}`", endpoint.url));
        }
        if endpoint.timeout_s == 0 {
            problems.push("`endpoint.timeout_s` must be > 0, got `0`".into());
        }
        problems
    }

    /// The judge, ready to be asked; `batch_size` sequences of a model in a folder grow at one time.
    ///
    /// # Errors
    /// A key that is not in the environment, a model that can't be loaded.
    fn open(&self, name: &str, device: DeviceKind, batch_size: usize) -> Result<Opened> {
        match self {
            Self::Endpoint(endpoint) => Ok(Opened::Endpoint(EndpointModel::new(name, endpoint)?)),
            Self::Folder { path } => {
                let model = load_model(path, &device::open(device)?)?;
                Ok(Opened::Folder(Box::new(EngineModel::new(model, Tokenizer::load(path)?, batch_size))))
            }
        }
    }
}

/// A judge that can be asked. Clones share weights and connections.
#[derive(Clone)]
enum Opened {
    Endpoint(EndpointModel),
    Folder(Box<EngineModel>),
}

/// Judges that were opened, each once a run: a model in a folder is not loaded for every evaluation.
#[derive(Clone, Default)]
pub struct OpenJudges(Arc<Mutex<BTreeMap<String, Opened>>>);

impl OpenJudges {
    /// The judge `name` as `config` says it, opened now or before; `batch_size` sequences of a model in a folder grow at
    /// one time.
    ///
    /// # Errors
    /// A key that is not in the environment, a model that can't be loaded.
    pub fn open(
        &self,
        name: &str,
        config: &JudgeConfig,
        device: DeviceKind,
        batch_size: usize,
    ) -> Result<Box<dyn HostModel>> {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let judge = match opened.get(name) {
            Some(judge) => judge.clone(),
            None => {
                let judge = config.open(name, device, batch_size)?;
                opened.insert(name.to_string(), judge.clone());
                judge
            }
        };
        Ok(match judge {
            Opened::Endpoint(model) => Box::new(model),
            Opened::Folder(model) => model,
        })
    }
}

/// A model behind an endpoint.
#[derive(Clone)]
struct EndpointModel {
    name: String,
    endpoint: Endpoint,
    key: Option<String>,
    agent: ureq::Agent,
}

impl EndpointModel {
    fn new(name: &str, endpoint: &Endpoint) -> Result<Self> {
        let key =
            match &endpoint.api_key_env {
                None => None,
                Some(variable) => Some(std::env::var(variable).map_err(|_| RunError::NoJudgeKey {
                    judge: name.to_string(),
                    variable: variable.clone(),
                })?),
            };
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(endpoint.timeout_s)))
            .http_status_as_error(false)
            .build()
            .into();
        Ok(Self { name: name.to_string(), endpoint: endpoint.clone(), key, agent })
    }

    fn post(&self, path: &str, body: &Value) -> std::result::Result<Value, String> {
        let url = format!("{}/{path}", self.endpoint.url.trim_end_matches('/'));
        let told = |reason: String| format!("judge `{}` at {url}: {reason}", self.name);
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", &format!("Bearer {key}"));
        }
        let mut response = request.send(body.to_string()).map_err(|error| told(error.to_string()))?;
        let text = response.body_mut().read_to_string().map_err(|error| told(error.to_string()))?;
        if !response.status().is_success() {
            let shown: String = text.chars().take(300).collect();
            return Err(told(format!("{}: {shown}", response.status())));
        }
        serde_json::from_str(&text).map_err(|error| told(format!("an answer that is no JSON: {error}")))
    }

    fn completions(
        &self,
        prompt: &Prompt,
        sampling: &Sampling,
        index: u64,
    ) -> std::result::Result<Vec<Candidate>, String> {
        let messages = match prompt {
            Prompt::Text(text) => vec![Message::new(Role::User, text.clone())],
            Prompt::Messages(messages) => messages.clone(),
        };
        let mut body = json!({
            "model": self.endpoint.model, "messages": messages, "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature, "top_p": sampling.top_p, "n": sampling.completions_per_prompt,
            "seed": sampling.seed.wrapping_add(index) & (u64::MAX >> 1),
        });
        if !sampling.stop.is_empty() {
            body["stop"] = json!(sampling.stop);
        }
        let answer = self.post("chat/completions", &body)?;
        let choices = answer["choices"].as_array().cloned().unwrap_or_default();
        let wanted = sampling.completions_per_prompt as usize;
        if choices.len() != wanted {
            return Err(format!("judge `{}` gave {} answers for {wanted}", self.name, choices.len()));
        }
        let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap_or(0) / wanted.max(1) as u64;
        choices.iter().map(|it| self.candidate(it, tokens)).collect()
    }

    fn candidate(&self, choice: &Value, tokens: u64) -> std::result::Result<Candidate, String> {
        let text = choice["message"]["content"].as_str();
        let text = text.ok_or_else(|| format!("judge `{}` gave an answer without text", self.name))?;
        let finish = if choice["finish_reason"] == "length" { Finish::Length } else { Finish::Stop };
        Ok(Candidate { text: text.to_string(), token_count: tokens as u32, finish })
    }
}

impl HostModel for EndpointModel {
    fn generate(
        &mut self,
        prompts: &[Prompt],
        sampling: &Sampling,
    ) -> std::result::Result<Vec<Vec<Candidate>>, String> {
        (0..).zip(prompts).map(|(index, prompt)| self.completions(prompt, sampling, index)).collect()
    }

    fn logprobs(&mut self, _: &[(Prompt, String)]) -> std::result::Result<Vec<TextLogprob>, String> {
        Err(format!(
            "judge `{}` is an endpoint: it gives text, no log-probabilities of given text",
            self.name
        ))
    }

    fn embed(&mut self, texts: &[String]) -> std::result::Result<Vec<Vec<f32>>, String> {
        let answer = self.post("embeddings", &json!({"model": self.endpoint.model, "input": texts}))?;
        let vector = |it: &Value| -> Option<Vec<f32>> {
            let vector = it["embedding"].as_array()?.iter().map(|it| it.as_f64().map(|it| it as f32));
            let vector: Vec<f32> = vector.collect::<Option<_>>()?;
            let length = vector.iter().map(|it| it * it).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            Some(vector.into_iter().map(|it| it / length).collect())
        };
        let vectors: Option<Vec<_>> =
            answer["data"].as_array().and_then(|all| all.iter().map(vector).collect());
        vectors.filter(|it| it.len() == texts.len()).ok_or_else(|| {
            format!("judge `{}` gave no embedding for each of {} texts", self.name, texts.len())
        })
    }
}
