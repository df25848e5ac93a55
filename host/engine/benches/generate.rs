//! Times generation and prints one line of JSON.
//!
//! `cargo bench -p fthost-engine --bench generate -- MODEL_FOLDER [--batch 1] [--prompt 32] [--new-tokens 64]
//! [--repeat 3] [--weights f32|bf16|int8] [--sample]`
//!
//! Greedy, or sampled at temperature 1 from all tokens, as a rollout is. Prompts are random tokens and nothing ends a completion early. Time includes reading the prompts; the first call
//! warms up and is not counted.

use std::path::PathBuf;
use std::time::Instant;

use fthost_data::Tokenizer;
use fthost_engine::Device;
use fthost_engine::checkpoint::load_model;
use fthost_engine::generate::{GenerateConfig, generate};
use fthost_engine::nn::DecodeWeights;
use fthost_engine::train::memory::peak_rss_bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[global_allocator]
static ALLOCATOR: fthost_engine::allocator::KeepPages = fthost_engine::allocator::KeepPages;

struct Arguments {
    model: PathBuf,
    batch: usize,
    prompt: usize,
    new_tokens: usize,
    repeat: usize,
    weights: DecodeWeights,
    sample: bool,
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut found = Arguments {
        model: PathBuf::new(),
        batch: 1,
        prompt: 32,
        new_tokens: 64,
        repeat: 3,
        weights: DecodeWeights::F32,
        sample: false,
    };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let number = |value: Option<String>| {
            let value = value.and_then(|it| it.parse().ok()).filter(|it| *it > 0);
            value.ok_or_else(|| format!("`{argument}` needs a number > 0"))
        };
        match argument.as_str() {
            // cargo passes this to every benchmark.
            "--bench" => {}
            "--sample" => found.sample = true,
            "--batch" => found.batch = number(given.next())?,
            "--prompt" => found.prompt = number(given.next())?,
            "--new-tokens" => found.new_tokens = number(given.next())?,
            "--weights" => {
                let value = given.next().unwrap_or_default();
                found.weights =
                    serde_json::from_value(serde_json::json!(value)).map_err(|it| it.to_string())?;
            }
            "--repeat" => found.repeat = number(given.next())?,
            _ if argument.starts_with('-') => return Err(format!("`{argument}` is not known")),
            _ => found.model = PathBuf::from(argument),
        }
    }
    Ok((!found.model.as_os_str().is_empty()).then_some(found))
}

/// Decoding is no part of what is measured, so any tokenizer serves; a model folder need not have one.
fn no_words() -> Result<Tokenizer, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string())?;
    Ok(Tokenizer::load(folder.path())?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(arguments) = arguments()? else {
        eprintln!("SKIPPED generate: no model folder given");
        return Ok(());
    };
    let model = load_model(&arguments.model, &Device::flex())?.for_decoding(arguments.weights);
    let tokenizer = no_words()?;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let vocab = model.config.vocab_size as u32;
    let prompts: Vec<Vec<u32>> = (0..arguments.batch)
        .map(|_| (0..arguments.prompt).map(|_| rng.random_range(0..vocab)).collect())
        .collect();
    let temperature = if arguments.sample { 1.0 } else { 0.0 };
    let max_new_tokens = arguments.new_tokens;
    let config = GenerateConfig { max_new_tokens, temperature, ..GenerateConfig::default() };
    let mut seconds = Vec::new();
    for _ in 0..=arguments.repeat {
        let begin = Instant::now();
        generate(&model, &tokenizer, &prompts, &config, arguments.batch)?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let mut counted = seconds[1..].to_vec();
    counted.sort_by(f64::total_cmp);
    let median = counted[counted.len() / 2];
    let report = serde_json::json!({
        "bench": "generate",
        "weights": arguments.weights,
        "sample": arguments.sample,
        "batch": arguments.batch,
        "prompt": arguments.prompt,
        "new_tokens": arguments.new_tokens,
        "tokens_per_second": (arguments.batch * arguments.new_tokens) as f64 / median,
        "seconds": seconds,
        "peak_rss_bytes": peak_rss_bytes(),
    });
    println!("{report}");
    Ok(())
}
