//! SmolLM2-135M-Instruct against transformers: where `FTHOST_TEST_MODEL` names its folder.

use std::path::PathBuf;

use fthost_data::encode::encode_prompt;
use fthost_data::{Message, Prompt, Role, Tokenizer};
use fthost_engine::Device;
use fthost_engine::checkpoint::load_model;
use fthost_engine::generate::{GenerateConfig, generate};
use serde_json::Value;

use super::ids;
use crate::models::stored_ids;
use crate::support::{Golden, assert_close, golden, whole};

/// The model's folder, or a line that says that a test did not run.
fn folder(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FTHOST_TEST_MODEL").map(PathBuf::from);
    if folder.is_none() {
        println!("SKIPPED {test}: FTHOST_TEST_MODEL names no folder with SmolLM2-135M-Instruct");
    }
    folder
}

/// Oracle: transformers 5.23 in f32, `tests/golden/generate/smollm2.py`. Logits are of order 10; 1e-4 is what the two
/// sides' orders of addition leave of f32 after 30 blocks.
#[test]
fn smollm2_logits_match_transformers() {
    let Some(folder) = folder("smollm2_logits_match_transformers") else { return };
    let model = load_model(&folder, &Device::flex()).unwrap();
    let path = golden("smollm2/logits.safetensors");
    let expected = Golden::open(&path);
    let batch = whole(&stored_ids(&path, "input_ids"));
    let (columns, argmax) = (stored_ids(&path, "columns"), stored_ids(&path, "argmax"));
    let vocab = model.config.vocab_size;
    let logits = model.logits(model.hidden(&batch)).try_into_vec_as::<f32>().unwrap();
    let rows: Vec<&[f32]> = logits.chunks(vocab).collect();
    let log_sum_exp = |row: &&[f32]| row.iter().map(|it| f64::from(*it).exp()).sum::<f64>().ln() as f32;
    let chosen: Vec<f32> =
        rows.iter().flat_map(|row| columns.iter().map(|column| row[*column as usize])).collect();
    let top: Vec<f32> = rows.iter().zip(&argmax).map(|(row, id)| row[*id as usize]).collect();
    let highest: Vec<f32> =
        rows.iter().map(|row| row.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
    assert_close("logits", &chosen, &expected.values("logits"), 1e-4);
    assert_close("logit of the argmax", &top, &expected.values("max"), 1e-4);
    assert_close("highest logit", &highest, &expected.values("max"), 1e-4);
    let sums: Vec<f32> = rows.iter().map(log_sum_exp).collect();
    assert_close("logsumexp", &sums, &expected.values("logsumexp"), 1e-4);
}

/// Oracle: as above; the generator refuses near ties. The whole way: template, tokens, answer, text.
#[test]
fn smollm2_greedy_answers_match_transformers() {
    let Some(folder) = folder("smollm2_greedy_answers_match_transformers") else { return };
    let model = load_model(&folder, &Device::flex()).unwrap();
    let tokenizer = Tokenizer::load(&folder).unwrap();
    let text = std::fs::read_to_string(golden("smollm2/greedy.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let column = |name: &str| ids(&cases.iter().map(|it| it[name].clone()).collect());
    let (prompts, expected) = (column("input_ids"), column("token_ids"));
    for (case, prompt) in cases.iter().zip(&prompts) {
        let message = Message::new(Role::User, case["prompt"].as_str().unwrap());
        let encoded = encode_prompt(&Prompt::Messages(vec![message]), &tokenizer).unwrap();
        assert_eq!(&encoded, prompt, "{}", case["prompt"]);
    }
    let config = GenerateConfig { max_new_tokens: expected[0].len(), ..GenerateConfig::default() };
    let got = generate(&model, &tokenizer, &prompts, &config, 3).unwrap();
    for ((got, expected), case) in got.iter().zip(&expected).zip(&cases) {
        assert_eq!(&got[0].token_ids, expected, "{}", case["prompt"]);
        assert_eq!(got[0].text, case["text"].as_str().unwrap());
    }
}
