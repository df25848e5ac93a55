//! Every family against transformers: logits, gradients, decoding from the cache, adapters, and files.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_engine::Device;
use fthost_engine::adapters::merge::save_merged;
use fthost_engine::adapters::peft::{load_adapter, save_adapter};
use fthost_engine::checkpoint::load_model;
use fthost_engine::checkpoint::safetensors::TensorFiles;
use fthost_engine::generate::{GenerateConfig, generate};
use fthost_engine::models::{CausalLm, DecoderConfig, Parameter};
use fthost_engine::train::{ActivationCheckpointing, Gradients};

use super::input_ids;
use crate::generate::letters;
use crate::support::{Golden, assert_close, golden, whole};

/// Cases of `tests/golden/generate/families.py`; `true` where it wrote gradients of every weight.
const CASES: [(&str, bool); 19] = [
    ("mistral", true),
    ("mistral_full", false),
    ("qwen2", true),
    ("qwen2_window", false),
    ("qwen3", true),
    ("qwen3_untied", false),
    ("gemma", true),
    ("gemma2", true),
    ("gemma3", true),
    ("phi3", true),
    ("phi3_long", true),
    ("phi3_short", false),
    ("llama_long", false),
    ("llama_yarn", true),
    ("olmo2", true),
    ("smollm3", true),
    ("gpt2", true),
    ("qwen3_moe", true),
    ("mixtral", true),
];

/// Those with an adapter.
const ADAPTED: [&str; 4] = ["phi3", "gpt2", "qwen3_moe", "mixtral"];

fn load(case: &str) -> CausalLm {
    load_model(&golden("families").join(case), &Device::flex()).unwrap()
}

fn logits(model: &CausalLm, ids: &[u32]) -> Vec<f32> {
    model.logits(model.hidden(&whole(ids))).try_into_vec_as::<f32>().unwrap()
}

/// Values of a matrix the other way round.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|it| values[it..].iter().step_by(columns).copied()).collect()
}

/// Oracle: transformers 5.24 in f32, `tests/golden/generate/families.py`. Logits are of order 1 to 10; both sides round in
/// f32 over sums of at most 128 terms, so 1e-4 absolute.
#[test]
fn logits_match_transformers() {
    for (case, _) in CASES {
        let path = golden("families").join(case).join("golden.safetensors");
        let got = logits(&load(case), &input_ids(&path));
        assert_close(case, &got, &Golden::open(&path).values("logits"), 1e-4);
    }
}

/// Oracle: torch autograd of the mean loss, as above. Gradients are of order 1, so 1e-4.
#[test]
fn loss_and_gradients_match_torch() {
    for (case, _) in CASES.into_iter().filter(|it| it.1) {
        let path = golden("families").join(case).join("golden.safetensors");
        let (expected, batch) = (Golden::open(&path), whole(&input_ids(&path)));
        for checkpointing in [ActivationCheckpointing::Off, ActivationCheckpointing::Block] {
            let mut model = load(case);
            let mut gradients = Gradients::default();
            gradients.add(&model, &batch, checkpointing);
            let tokens = gradients.supervised_tokens as f32;
            let loss = gradients.loss_sum as f32 / tokens;
            assert_close(&format!("{case}: loss"), &[loss], &expected.values("loss"), 1e-5);
            let names = model.config.names;
            let mut values = gradients.sums.values().into_iter();
            model.visit_base(&mut |name, parameter| {
                let got = values.next().unwrap().div_scalar(tokens).try_into_vec_as::<f32>().unwrap();
                let got = match (&parameter, names.is_transposed(name)) {
                    (Parameter::Matrix(weight), true) => transposed(&got, weight.dims()[1]),
                    _ => got,
                };
                let expected = expected.values(&format!("grad.{name}"));
                assert_close(&format!("{case}: {name}"), &got, &expected, 1e-4);
            });
            assert!(values.next().is_none(), "{case}");
        }
    }
}

/// What transformers 4 wrote of a model says the same as what 5 writes.
#[test]
fn older_configurations_are_read_alike() {
    for (case, _) in CASES {
        let folder = golden("families").join(case);
        let read = |name: &str| DecoderConfig::read(&folder.join(name)).unwrap();
        assert_eq!(read("config_v4.json"), read("config.json"), "{case}");
    }
}

/// Phi 3's scaling is longrope in files that call it otherwise, too.
#[test]
fn longrope_is_known_by_its_older_names() {
    let folder = golden("families/phi3_long");
    let text = std::fs::read_to_string(folder.join("config_v4.json")).unwrap();
    let expected = DecoderConfig::read(&folder.join("config_v4.json")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("config.json");
    for name in ["su", "yarn"] {
        assert_eq!(text.matches("\"longrope\"").count(), 1);
        std::fs::write(&path, text.replace("longrope", name)).unwrap();
        assert_eq!(DecoderConfig::read(&path).unwrap(), expected, "{name}");
    }
}

/// [`phi3_long`](CASES) changes its rotation within what is decoded. Greedy decoding, of prompts of several lengths in one cache, is what the whole sequence says at every position.
#[test]
fn decoding_from_the_cache_equals_the_whole_sequence() {
    let tokenizer = letters();
    let config = GenerateConfig { max_new_tokens: 12, ..GenerateConfig::default() };
    for (case, _) in CASES {
        let model = load(case);
        let vocab = model.config.vocab_size;
        let prompts: Vec<Vec<u32>> = [1, 4, 9].map(|length| (5..5 + length).collect()).to_vec();
        let completions = generate(&model, &tokenizer, &prompts, &config, 3).unwrap();
        for (prompt, completions) in prompts.iter().zip(completions) {
            let mut ids = prompt.clone();
            for (token, logp) in completions[0].token_ids.iter().zip(&completions[0].token_logps) {
                let all = logits(&model, &ids);
                let last = &all[all.len() - vocab..];
                let sum = last.iter().map(|it| f64::from(*it).exp()).sum::<f64>().ln() as f32;
                assert_close(case, &[last[*token as usize] - sum], &[*logp], 1e-4);
                ids.push(*token);
            }
        }
    }
}

/// A model that is written has the file's names, shapes and values.
#[test]
fn a_saved_model_is_the_one_that_was_loaded() {
    for (case, _) in CASES {
        let folder = golden("families").join(case);
        let out = tempfile::tempdir().unwrap();
        save_merged(&mut load(case), &folder, out.path()).unwrap();
        let tensors = |folder: &Path| -> BTreeMap<String, Vec<usize>> {
            let files = TensorFiles::open(folder, vec![folder.join("model.safetensors")]).unwrap();
            files.list().into_iter().map(|(name, shape, _)| (name, shape)).collect()
        };
        assert_eq!(tensors(out.path()), tensors(&folder), "{case}");
        let ids: Vec<u32> = (3..15).collect();
        let again = load_model(out.path(), &Device::flex()).unwrap();
        assert_eq!(logits(&again, &ids), logits(&load(case), &ids), "{case}");
    }
}

/// Gradients of a mixture's adapters as those of the pairs that PEFT has for all experts: gate and up share their `A`
/// there, whose gradient is thus the sum of both.
fn as_peft_has_them(
    mut got: BTreeMap<String, Vec<f32>>,
    model: &CausalLm,
    experts: usize,
) -> BTreeMap<String, Vec<f32>> {
    let names = model.config.names.experts.unwrap();
    for layer in 0..model.blocks.len() {
        let path = format!("model.layers.{layer}");
        for side in ["A", "B"] {
            let router = got.remove(&format!("{path}.{}.lora_{side}.weight", names.router)).unwrap();
            got.insert(format!("{path}.mlp.gate.lora_{side}.weight"), router);
        }
        for (place, linears) in [(".base_layer", &names.up[..]), ("", &[names.down][..])] {
            let mut of = |expert: usize, linear: &str, side: &str| {
                got.remove(&format!("{path}.{}.{expert}.{linear}.lora_{side}.weight", names.list)).unwrap()
            };
            let (mut a, mut columns) = (Vec::new(), Vec::new());
            for expert in 0..experts {
                let parts: Vec<Vec<f32>> = linears.iter().map(|it| of(expert, it, "A")).collect();
                a.extend((0..parts[0].len()).map(|it| parts.iter().map(|part| part[it]).sum::<f32>()));
                columns.push(linears.iter().flat_map(|it| of(expert, it, "B")).collect::<Vec<f32>>());
            }
            let rank = if linears.len() == 2 { 8 } else { 4 };
            let outputs = columns[0].len() / rank;
            let at = |out: usize, index: usize| columns.iter().map(move |it| it[out * rank + index]);
            let b = (0..outputs).flat_map(|out| (0..rank).flat_map(move |index| at(out, index))).collect();
            got.insert(format!("{path}.mlp.experts{place}.lora_A.weight"), a);
            got.insert(format!("{path}.mlp.experts{place}.lora_B.weight"), b);
        }
    }
    got
}

/// Oracle: PEFT 0.21, by the same generator: 1e-4, as for the base.
#[test]
fn adapters_match_peft() {
    for case in ADAPTED {
        let folder = golden("families").join(format!("{case}_lora"));
        let path = folder.join("golden.safetensors");
        let (expected, ids) = (Golden::open(&path), input_ids(&path));
        let mut model = load(case);
        let config = load_adapter(&mut model, &folder).unwrap();
        assert_close(case, &logits(&model, &ids), &expected.values("logits"), 1e-4);
        let mut gradients = Gradients::default();
        gradients.add(&model, &whole(&ids), ActivationCheckpointing::Off);
        let tokens = gradients.supervised_tokens as f32;
        let mut values = gradients.sums.values().into_iter();
        let mut got: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        model.visit_trained(&mut |name, _| {
            let gradient = values.next().unwrap().div_scalar(tokens);
            got.insert(name.to_string(), gradient.try_into_vec_as::<f32>().unwrap());
        });
        assert!(values.next().is_none(), "{case}");
        if let Some(mixture) = model.config.mixture {
            got = as_peft_has_them(got, &model, mixture.num_experts);
        }
        for (name, got) in got {
            let expected = expected.values(&format!("grad.base_model.model.{name}"));
            assert_close(&format!("{case}: {name}"), &got, &expected, 1e-4);
        }

        let out = tempfile::tempdir().unwrap();
        save_adapter(&mut model, &config, "base", out.path()).unwrap();
        let written = |folder: &Path| -> serde_json::Value {
            let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        for key in [
            "target_modules",
            "target_parameters",
            "rank_pattern",
            "alpha_pattern",
            "fan_in_fan_out",
            "r",
            "lora_alpha",
        ] {
            // PEFT writes null for no list.
            let said = |folder: &Path| Some(written(folder)[key].clone()).filter(|it| !it.is_null());
            assert_eq!(said(out.path()), said(&folder), "{case}: {key}");
        }
        let mut again = load(case);
        load_adapter(&mut again, out.path()).unwrap();
        assert_eq!(logits(&again, &ids), logits(&model, &ids), "{case}");
    }
}
