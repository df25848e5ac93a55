//! Prompt tuning (<https://arxiv.org/abs/2104.08691>) and prefix tuning (<https://arxiv.org/abs/2101.00190>), as PEFT has
//! them. See [`crate::models::virtual_tokens`].

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::config::check;
use crate::checkpoint::init::normal;
use crate::error::Result;
use crate::models::causal_lm::ids_tensor;
use crate::models::{CausalLm, DecoderConfig, Prefix, PrefixEncoder, Trained};
use crate::nn::precision::cast;

/// What virtual tokens begin as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptTuningInit {
    /// The embeddings of tokens drawn from the vocabulary.
    #[default]
    SampleVocab,
    /// A standard normal, which is PEFT's default and far from where words are.
    Random,
    /// The embeddings of a text's tokens, again and again until there are enough.
    Text,
}

/// `[adapter.prompt_tuning]` of a run file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptTuningConfig {
    /// Tokens before every sequence.
    pub num_virtual_tokens: usize,
    /// What they begin as.
    #[serde(rename = "prompt_tuning_init")]
    pub init: PromptTuningInit,
    /// The text that they begin as.
    #[serde(rename = "prompt_tuning_init_text", skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Default for PromptTuningConfig {
    fn default() -> Self {
        Self { num_virtual_tokens: 20, init: PromptTuningInit::default(), text: None }
    }
}

impl PromptTuningConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = of_number(self.num_virtual_tokens);
        let is_text = self.init == PromptTuningInit::Text;
        if is_text && self.text.as_ref().is_none_or(|it| it.trim().is_empty()) {
            problems.push("`prompt_tuning_init` = \"text\" needs a `prompt_tuning_init_text`".to_string());
        }
        if !is_text && self.text.is_some() {
            problems
                .push("`prompt_tuning_init_text` goes with `prompt_tuning_init` = \"text\" only".to_string());
        }
        problems
    }
}

/// What keys and values begin as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixInit {
    /// A standard normal, as in PEFT.
    #[default]
    Random,
    /// Zeros: keys that every query finds as fitting as any, values that say nothing.
    Zero,
}

/// `[adapter.prefix_tuning]` of a run file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrefixTuningConfig {
    /// Keys and values before those of every sequence.
    pub num_virtual_tokens: usize,
    /// What they begin as; of a projection, its last layer.
    pub init_weights: PrefixInit,
    /// Whether a small network makes them of an embedding a virtual token, and is trained in their place.
    pub prefix_projection: bool,
    /// Width of the network between its two layers; by default that of a block's keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_hidden_size: Option<usize>,
}

impl Default for PrefixTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            init_weights: PrefixInit::default(),
            prefix_projection: false,
            encoder_hidden_size: None,
        }
    }
}

impl PrefixTuningConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = of_number(self.num_virtual_tokens);
        if self.encoder_hidden_size == Some(0) {
            problems.push("`encoder_hidden_size` must be > 0, got `0`".to_string());
        }
        if self.encoder_hidden_size.is_some() && !self.prefix_projection {
            problems.push("`encoder_hidden_size` goes with `prefix_projection` = true only".to_string());
        }
        problems
    }

    /// Width of the network between its layers in a model of `config`.
    pub(crate) fn encoder_width(&self, config: &DecoderConfig) -> usize {
        self.encoder_hidden_size.unwrap_or(prefix_width(config) / 2)
    }
}

fn of_number(num_virtual_tokens: usize) -> Vec<String> {
    let zero = num_virtual_tokens == 0;
    zero.then(|| "`num_virtual_tokens` must be > 0, got `0`".to_string()).into_iter().collect()
}

/// Whether a model of `config` has room for so many virtual tokens, beside the `problems` of their own configuration.
///
/// # Errors
/// Those problems; no room; embeddings where text that is long enough rotates them otherwise: they are computed once, for
/// texts of all lengths.
pub(crate) fn check_place(
    kind: &str,
    config: &DecoderConfig,
    mut problems: Vec<String>,
    num_virtual_tokens: usize,
) -> Result<()> {
    let room = config.context_length();
    if num_virtual_tokens >= room {
        problems.push(format!(
            "`num_virtual_tokens` = {num_virtual_tokens} leaves no room in a context of {room} tokens"
        ));
    }
    if let (Some(length), "prompt_tuning") = (config.rope_changes_after(), kind) {
        problems.push(format!(
            "embeddings before a text are not known where positions are rotated otherwise after {length} tokens \
             (`longrope`): `adapter.prefix_tuning` is"
        ));
    }
    check(kind, problems)
}

/// Puts fresh embeddings before every sequence; `text` is that of the configuration as token ids.
///
/// # Errors
/// Impossible values.
pub fn attach_prompt(
    model: &mut CausalLm,
    config: &PromptTuningConfig,
    seed: u64,
    text: Option<Vec<u32>>,
) -> Result<()> {
    check_place("prompt_tuning", &model.config, config.problems(), config.num_virtual_tokens)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (count, width) = (config.num_virtual_tokens, model.config.hidden_size);
    let words: Vec<u32> = match (config.init, text) {
        (PromptTuningInit::Text, Some(ids)) => ids.into_iter().cycle().take(count).collect(),
        (PromptTuningInit::SampleVocab, _) => {
            let vocabulary = model.config.vocab_size as u32;
            (0..count).map(|_| rng.random_range(0..vocabulary)).collect()
        }
        (PromptTuningInit::Random | PromptTuningInit::Text, _) => {
            let drawn = TensorData::new(normal(count * width, 1.0, &mut rng), [count, width]);
            place_prompt(model, Tensor::from_data(drawn, &model.device()));
            return Ok(());
        }
    };
    let device = model.device();
    let words = cast(model.embed_tokens.clone().select(0, ids_tensor(&words, &device)), DType::F32);
    // As they go into the blocks.
    let scaled = model.config.embedding_scale.iter().fold(words, |words, scale| words.mul_scalar(*scale));
    place_prompt(model, scaled);
    Ok(())
}

/// Puts the embeddings, `[n, D]`, before every sequence.
pub(crate) fn place_prompt(model: &mut CausalLm, prompt: Tensor<2>) {
    model.prompt = Some(Box::new(prompt));
    model.trained = Trained::Adapter([].into());
}

/// Puts fresh keys and values before those of every sequence, or a fresh network that makes them: embeddings from a standard
/// normal and linears as PyTorch begins them, as in PEFT.
///
/// # Errors
/// Impossible values.
pub fn attach_prefix(model: &mut CausalLm, config: &PrefixTuningConfig, seed: u64) -> Result<()> {
    check_place("prefix_tuning", &model.config, config.problems(), config.num_virtual_tokens)?;
    let (count, width) = (config.num_virtual_tokens, prefix_width(&model.config));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let device = model.device();
    let hidden = config.encoder_width(&model.config);
    let encoder = config.prefix_projection.then(|| {
        let embedding = normal(count * width / 2, 1.0, &mut rng);
        let embedding = Tensor::from_data(TensorData::new(embedding, [count, width / 2]), &device);
        let (weight, bias) = fresh_linear([hidden, width / 2], &mut rng, &device);
        PrefixEncoder { embedding, weight, bias }
    });
    let prefixes = (0..model.blocks.len()).map(|_| match (config.init_weights, config.prefix_projection) {
        (PrefixInit::Zero, false) => Prefix::Plain(Tensor::zeros([count, width], &device)),
        (PrefixInit::Random, false) => {
            let drawn = TensorData::new(normal(count * width, 1.0, &mut rng), [count, width]);
            Prefix::Plain(Tensor::from_data(drawn, &device))
        }
        (PrefixInit::Zero, true) => Prefix::Projected {
            weight: Tensor::zeros([width, hidden], &device),
            bias: Tensor::zeros([width], &device),
        },
        (PrefixInit::Random, true) => {
            let (weight, bias) = fresh_linear([width, hidden], &mut rng, &device);
            Prefix::Projected { weight, bias }
        }
    });
    let prefixes = prefixes.collect();
    place_prefixes(model, prefixes, encoder);
    Ok(())
}

/// Weight, `[out, in]`, and bias as `torch.nn.Linear` begins: uniform within the root of one over its inputs.
fn fresh_linear([out, width]: [usize; 2], rng: &mut ChaCha8Rng, device: &Device) -> (Tensor<2>, Tensor<1>) {
    let bound = (width as f32).sqrt().recip();
    let mut drawn = |count: usize| (0..count).map(|_| rng.random_range(-bound..bound)).collect::<Vec<_>>();
    let weight = TensorData::new(drawn(out * width), [out, width]);
    let bias = TensorData::new(drawn(out), [out]);
    (Tensor::from_data(weight, device), Tensor::from_data(bias, device))
}

/// Numbers of a virtual token's keys and values in one block.
pub(crate) fn prefix_width(config: &DecoderConfig) -> usize {
    2 * config.num_key_value_heads * config.head_dim
}

/// Puts a prefix a block before the keys and values of every sequence, with what they are made of if they are.
pub(crate) fn place_prefixes(model: &mut CausalLm, prefixes: Vec<Prefix>, encoder: Option<PrefixEncoder>) {
    model.prefix_encoder = encoder.map(Box::new);
    for (block, prefix) in model.blocks.iter_mut().zip(prefixes) {
        block.prefix = Some(Box::new(prefix));
    }
    model.trained = Trained::Adapter([].into());
}
