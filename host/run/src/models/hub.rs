//! Models from the hub, kept where Hugging Face's own programs keep them.
//!
//! `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean there
//! (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>).

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;

use crate::error::{Result, RunError};

/// What is fetched beside the weights, where the model has it.
const COMPANIONS: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// How long the hub may take for its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where models are fetched from and kept.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The hub's address.
    pub endpoint: String,
    /// Where fetched models are kept.
    pub cache: PathBuf,
    /// Who asks, where it matters.
    pub token: Option<String>,
    /// Nothing is asked; only what is kept is used.
    pub offline: bool,
}

impl Hub {
    /// As the environment says.
    pub fn from_env() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|it| !it.trim().is_empty());
        let path = |name: &str| text(name).map(PathBuf::from);
        let caches = path("XDG_CACHE_HOME").or_else(|| std::env::home_dir().map(|it| it.join(".cache")));
        let home =
            path("HF_HOME").unwrap_or_else(|| caches.unwrap_or_else(std::env::temp_dir).join("huggingface"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file).ok());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        let cache = path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub"));
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            // The crate makes links relative to an absolute cache.
            cache: std::path::absolute(&cache).unwrap_or(cache),
            token: token.map(|it| it.trim().to_string()).filter(|it| !it.is_empty()),
            offline: text("HF_HUB_OFFLINE")
                .is_some_and(|it| ["1", "true", "yes", "on"].contains(&it.to_lowercase().as_str())),
        }
    }

    /// The folder of `repo` at `revision` (`main` if absent): configuration, tokenizer and weights, what is missing of
    /// them fetched; `observe` is told each file before it is.
    ///
    /// A hub that can't be reached is no error where the model was fetched before.
    ///
    /// # Errors
    /// No such model or revision, no access to it, no safetensors in it, no answer; each with what to do.
    pub fn fetch(
        &self,
        repo: &str,
        revision: Option<&str>,
        observe: &mut dyn FnMut(&str),
    ) -> Result<PathBuf> {
        let asked = Asked { hub: self, repo, revision: revision.unwrap_or("main") };
        let sound = |it: &str| {
            !it.is_empty()
                && !it.starts_with('.')
                && it.bytes().all(|it| it.is_ascii_alphanumeric() || b"._-".contains(&it))
        };
        if !(repo.split('/').count() <= 2 && repo.split('/').all(sound)) {
            return Err(asked.refused("that is no model's name", "a name is `owner/model`"));
        }
        let kept = asked.kept();
        if let Some(folder) = kept.as_ref().filter(|_| self.offline || is_commit(asked.revision)) {
            return Ok(folder.clone());
        }
        if self.offline {
            let reason = format!("`HF_HUB_OFFLINE` is set and `{}` does not hold it", self.cache.display());
            return Err(asked.refused(&reason, "fetch it once with `fthost model pull`, the variable unset"));
        }
        let api = self.api().map_err(|error| asked.failed(&error))?;
        match asked.info(&api) {
            Ok(info) => asked.download(&api, &info, observe),
            Err(Unanswered::Refused(error)) => Err(error),
            Err(Unanswered::Unreachable(error)) => kept.ok_or(error),
        }
    }

    fn api(&self) -> std::result::Result<Api, ApiError> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(std::io::stderr().is_terminal())
            .build()
    }
}

/// What no answer means: the hub said no, or said nothing.
enum Unanswered {
    Refused(RunError),
    Unreachable(RunError),
}

struct Asked<'a> {
    hub: &'a Hub,
    repo: &'a str,
    revision: &'a str,
}

impl Asked<'_> {
    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repo.to_string(), RepoType::Model, revision.to_string())
    }

    /// What was fetched before, if it is whole.
    fn kept(&self) -> Option<PathBuf> {
        let repo = Cache::new(self.hub.cache.clone()).repo(self.at(self.revision));
        let config = repo.get("config.json");
        let commit = is_commit(self.revision).then(|| repo.pointer_path(self.revision));
        let folder = commit.or_else(|| Some(config?.parent()?.to_path_buf()))?;
        is_whole(&folder).then_some(folder)
    }

    fn info(&self, api: &Api) -> std::result::Result<RepoInfo, Unanswered> {
        let (sender, receiver) = channel();
        let repo = api.repo(self.at(self.revision));
        // Looking up a name or connecting can't be given a limit; a thread that is not waited for can.
        std::thread::spawn(move || sender.send(repo.info()));
        match receiver.recv_timeout(PATIENCE) {
            Ok(Ok(info)) if is_commit(&info.sha) => Ok(info),
            Ok(Ok(_)) => Err(Unanswered::Refused(
                self.refused("its answer names no commit", "see whether `HF_ENDPOINT` is a hub"),
            )),
            Ok(Err(error)) => match status(&error) {
                Some(code) if code < 500 => Err(Unanswered::Refused(self.failed(&error))),
                _ => Err(Unanswered::Unreachable(self.failed(&error))),
            },
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let reason = format!("there was no answer within {} s", PATIENCE.as_secs());
                Err(Unanswered::Unreachable(self.refused(&reason, UNREACHABLE)))
            }
        }
    }

    fn download(&self, api: &Api, info: &RepoInfo, observe: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        // By the commit, so that no file is of another one than the rest.
        let repo = api.repo(self.at(&info.sha));
        let has = |name: &str| info.siblings.iter().any(|it| it.rfilename == name);
        let mut get = |name: &str| -> Result<PathBuf> {
            let kept = Cache::new(self.hub.cache.clone()).repo(self.at(&info.sha)).get(name);
            if let Some(path) = kept {
                return Ok(path);
            }
            observe(name);
            repo.download(name).map_err(|error| self.failed(&error))
        };
        if !has("config.json") {
            return Err(self.refused("it has no `config.json`", "take a model in Hugging Face's layout"));
        }
        for name in COMPANIONS.into_iter().filter(|it| has(it)) {
            get(name)?;
        }
        let config = get("config.json")?;
        if has(INDEX) {
            let index = get(INDEX)?;
            let shards = shards(&index).ok_or_else(|| {
                self.refused(
                    &format!("`{INDEX}` names no files"),
                    "tell its author: the repository is damaged",
                )
            })?;
            shards.iter().try_for_each(|it| get(it).map(|_| ()))?;
        } else if has(WEIGHTS) {
            get(WEIGHTS)?;
        } else {
            let hint = "take a model that has `model.safetensors`, or convert a GGUF file with `fthost model convert`";
            return Err(self.refused("it has no weights as safetensors", hint));
        }
        let kept = Cache::new(self.hub.cache.clone()).repo(self.at(self.revision));
        kept.create_ref(&info.sha).map_err(RunError::output(&self.hub.cache))?;
        Ok(config.parent().expect("a file lies in a folder").to_path_buf())
    }

    fn refused(&self, reason: &str, hint: &str) -> RunError {
        let revision = match self.revision {
            "main" => String::new(),
            other => format!(" at `{other}`"),
        };
        RunError::Hub {
            model: format!("`{}`{revision}", self.repo),
            endpoint: self.hub.endpoint.clone(),
            reason: reason.to_string(),
            hint: hint.to_string(),
        }
    }

    fn failed(&self, error: &ApiError) -> RunError {
        let with_token = self.hub.token.is_some();
        match status(error) {
            Some(404) => self.refused("there is no such model or revision", "a name is `owner/model`"),
            Some(401 | 403) if with_token => self.refused(
                "the token gives no access to it",
                "accept the model's terms on its page, or use a token that may read it",
            ),
            Some(401 | 403) => self.refused(
                "it is private, asks for a login, or is not there",
                "set `HF_TOKEN` to a token that may read it",
            ),
            Some(code) => self.refused(&format!("the answer is status {code}"), "try again later"),
            None => self.refused(&error.to_string(), UNREACHABLE),
        }
    }
}

const UNREACHABLE: &str =
    "check the network, or set `HF_ENDPOINT`; a model's folder (`model.path`) needs no network";

/// The status of an answer that was one.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|it| it.is_ascii_hexdigit())
}

/// Whether configuration and every file of weights are there.
fn is_whole(folder: &Path) -> bool {
    let weights = match shards(&folder.join(INDEX)) {
        Some(shards) => shards.iter().all(|it| folder.join(it).exists()),
        None => folder.join(WEIGHTS).exists(),
    };
    weights && folder.join("config.json").exists()
}

/// The files that an index names, each a plain name.
fn shards(index: &Path) -> Option<Vec<String>> {
    let index: Value = serde_json::from_slice(&std::fs::read(index).ok()?).ok()?;
    let names = index["weight_map"].as_object()?.values().map(|it| it.as_str().map(str::to_string));
    let mut names = names.collect::<Option<Vec<String>>>()?;
    names.sort();
    names.dedup();
    let plain = |it: &String| it.ends_with(".safetensors") && !it.contains(['/', '\\']);
    (!names.is_empty() && names.iter().all(plain)).then_some(names)
}
