//! (IA)^3, virtual tokens and modules that are trained whole: against PEFT 0.21, `tests/golden/generate/adapters.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use fthost_data::Batch;
use fthost_engine::adapters::merge::save_merged;
use fthost_engine::adapters::peft::{load_adapter, save_adapter};
use fthost_engine::adapters::virtual_tokens::PromptTuningInit;
use fthost_engine::adapters::{
    AdapterConfig, Ia3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, TargetModules,
    attach_prefix, attach_prompt,
};
use fthost_engine::checkpoint::{LoadConfig, load_model, load_model_as};
use fthost_engine::models::{CausalLm, DecoderConfig, Parameter};
use fthost_engine::nn::DecodeWeights;
use fthost_engine::quant::QuantConfig;
use fthost_engine::train::{ActivationCheckpointing, Gradients};
use fthost_engine::{Device, EngineError};

use super::{input_ids, logits, peft_agrees};
use crate::generate::letters;
use crate::support::{Golden, assert_close, golden, sequence, tiny_model, whole};

/// Every case, with what its base lies below.
fn cases(kind: &str) -> Vec<(PathBuf, PathBuf)> {
    let folder = golden("adapters").join(kind);
    let folders = std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path());
    // In the order of names.
    let folders: BTreeSet<PathBuf> = folders.collect();
    let base = |folder: &PathBuf| {
        let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        golden(config["base_model_name_or_path"].as_str().unwrap())
    };
    folders.into_iter().map(|it| (it.clone(), base(&it))).collect()
}

/// As PEFT names what the gradients are of, `prompt_embeddings` put together from its blocks.
fn gradients(
    model: &mut CausalLm,
    batch: &Batch,
    checkpointing: ActivationCheckpointing,
) -> Vec<(String, Vec<f32>)> {
    let mut gradients = Gradients::default();
    gradients.add(model, batch, checkpointing);
    let tokens = gradients.supervised_tokens as f32;
    let mut values = gradients.sums.values().into_iter();
    let (mut found, mut of_blocks) = (Vec::new(), Vec::new());
    model.visit_trained(&mut |name, parameter| {
        let gradient = values.next().unwrap().div_scalar(tokens);
        if name.ends_with(".prefix") {
            let [rows, width] = parameter.dims()[..] else { unreachable!("a matrix") };
            of_blocks.push(gradient.reshape([rows, width]));
            return;
        }
        let name =
            if name == "prompt_embeddings" { name.to_string() } else { format!("base_model.model.{name}") };
        found.push((name, gradient.try_into_vec_as::<f32>().unwrap()));
    });
    assert!(values.next().is_none());
    if !of_blocks.is_empty() {
        let all = Tensor::cat(of_blocks, 1).try_into_vec_as::<f32>().unwrap();
        found.push(("prompt_embeddings".to_string(), all));
    }
    found
}

/// Logits, the gradient of everything that is trained and of nothing else, and the same of what is saved here and loaded again.
fn matches_peft(kind: &str) {
    let cases = cases(kind);
    assert!(cases.len() >= 4, "{kind}");
    for (folder, base) in cases {
        let case = folder.display().to_string();
        let path = folder.join("golden.safetensors");
        let (expected, ids) = (Golden::open(&path), input_ids(&path));
        let load = || load_model(&base, &Device::flex()).unwrap();
        let mut model = load();
        let config = load_adapter(&mut model, &folder).unwrap();
        assert_close(&case, &logits(&model, &ids), &expected.values("logits"), 1e-4);
        for checkpointing in [ActivationCheckpointing::Off, ActivationCheckpointing::Block] {
            let wanted = expected.names().filter(|it| it.starts_with("grad.")).count();
            // What a projection is learned by is not what is saved of it: `a_projected_prefix_matches_peft`.
            if !case.ends_with("projected") {
                let found = gradients(&mut model, &whole(&ids), checkpointing);
                assert_eq!(found.len(), wanted, "{case}");
                for (name, got) in found {
                    assert_close(
                        &format!("{case}: {name}"),
                        &got,
                        &expected.values(&format!("grad.{name}")),
                        1e-4,
                    );
                }
            }
        }
        let decoding = model.for_decoding(DecodeWeights::F32);
        assert_close(&case, &logits(&decoding, &ids), &expected.values("logits"), 1e-4);
        let out = tempfile::tempdir().unwrap();
        save_adapter(&mut model, &config, "base", out.path()).unwrap();
        let mut again = load();
        load_adapter(&mut again, out.path()).unwrap();
        assert_eq!(logits(&again, &ids), logits(&model, &ids), "{case}");
        let merged = tempfile::tempdir().unwrap();
        match save_merged(&mut model, &base, merged.path()) {
            Ok(()) => {
                let merged = load_model(merged.path(), &Device::flex()).unwrap();
                assert_close(&case, &logits(&merged, &ids), &expected.values("logits"), 1e-4);
            }
            Err(error) => assert!(matches!(error, EngineError::NotMerged { .. }), "{error}"),
        }
    }
}

/// Oracle: PEFT 0.21; f32 on both sides, so 1e-4 as for the base.
#[test]
fn modules_that_are_trained_whole_match_peft() {
    matches_peft("modules_to_save");
}

/// As above.
#[test]
fn ia3_matches_peft() {
    matches_peft("ia3");
}

/// As above.
#[test]
fn prompt_tuning_matches_peft() {
    matches_peft("prompt_tuning");
}

/// As above.
#[test]
fn prefix_tuning_matches_peft() {
    matches_peft("prefix_tuning");
}

/// What PEFT trains of a projected prefix: the network that makes keys and values, its last layer a part a block here.
#[test]
fn a_projected_prefix_matches_peft() {
    let path = golden("adapters/prefix_tuning/projected/golden.safetensors");
    let (expected, ids) = (Golden::open(&path), input_ids(&path));
    let mut model = load_model(&golden("llama/gqa_tied"), &Device::flex()).unwrap();
    let config = PrefixTuningConfig {
        num_virtual_tokens: 5,
        prefix_projection: true,
        encoder_hidden_size: Some(24),
        ..PrefixTuningConfig::default()
    };
    attach_prefix(&mut model, &config, 1).unwrap();
    let last = |name: &str| {
        name.contains("transform.2").then(|| if name.ends_with("bias") { "bias" } else { "weight" })
    };
    let (device, mut done) = (model.device(), BTreeMap::new());
    model.visit_trained(&mut |name, parameter| {
        let of = match last(name) {
            Some(kind) => format!("weight.prompt_encoder.transform.2.{kind}"),
            None => name.replace("prefix_projection", "weight.prompt_encoder"),
        };
        let (all, length): (_, usize) = (expected.values(&of), parameter.length());
        let begin = done.entry(of).and_modify(|it| *it += length).or_insert(0);
        let values = TensorData::new(all[*begin..][..length].to_vec(), parameter.dims());
        match parameter {
            Parameter::Vector(tensor) => *tensor = Tensor::from_data(values, &device),
            Parameter::Matrix(tensor) => *tensor = Tensor::from_data(values, &device),
            Parameter::Packed(_) => unreachable!("nothing is packed"),
        }
    });
    assert_eq!(done.len(), expected.names().filter(|it| it.starts_with("weight.")).count());
    assert_close("logits", &logits(&model, &ids), &expected.values("logits"), 1e-4);
    for checkpointing in [ActivationCheckpointing::Off, ActivationCheckpointing::Block] {
        let mut found: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for (name, gradient) in gradients(&mut model, &whole(&ids), checkpointing) {
            let of = match last(&name) {
                Some(kind) => format!("grad.prompt_encoder.transform.2.{kind}"),
                None => name.replace("base_model.model.prefix_projection", "grad.prompt_encoder"),
            };
            found.entry(of).or_default().extend(gradient);
        }
        assert_eq!(found.len(), expected.names().filter(|it| it.starts_with("grad.")).count());
        for (name, got) in found {
            assert_close(&name, &got, &expected.values(&name), 1e-4);
        }
    }
    let (out, mut again) =
        (tempfile::tempdir().unwrap(), load_model(&golden("llama/gqa_tied"), &Device::flex()).unwrap());
    save_adapter(&mut model, &AdapterConfig::PrefixTuning(config), "base", out.path()).unwrap();
    load_adapter(&mut again, out.path()).unwrap();
    assert_eq!(logits(&again, &ids), logits(&model, &ids));
}

/// The other direction needs PEFT itself: `FTHOST_TEST_PYTHON` names a Python with torch, transformers and peft.
#[test]
fn adapters_of_every_kind_load_in_peft_with_equal_logits() {
    let Ok(python) = std::env::var("FTHOST_TEST_PYTHON") else {
        eprintln!(
            "SKIPPED adapters_of_every_kind_load_in_peft_with_equal_logits: FTHOST_TEST_PYTHON is not set"
        );
        return;
    };
    let all = ["modules_to_save", "ia3", "prompt_tuning", "prefix_tuning"].into_iter().flat_map(cases);
    let all = all.map(|(folder, base)| {
        let mut model = load_model(&base, &Device::flex()).unwrap();
        let config = load_adapter(&mut model, &folder).unwrap();
        let out = tempfile::tempdir().unwrap();
        save_adapter(&mut model, &config, "base", out.path()).unwrap();
        (model, base, out)
    });
    let all: Vec<_> = all.collect();
    let all: Vec<_> = all.iter().map(|it| (&it.0, it.1.as_path(), it.2.path())).collect();
    peft_agrees(&python, &all, &(3..20).collect::<Vec<_>>());
}

fn ia3() -> AdapterConfig {
    AdapterConfig::Ia3(Ia3Config::default())
}

fn fresh(adapter: &AdapterConfig, model: &mut CausalLm, seed: u64) {
    adapter.attach(model, seed, &letters()).unwrap();
}

/// Ones change nothing; what is drawn is drawn from the seed, and words are begun as what they are.
#[test]
fn a_fresh_adapter_is_what_its_seed_makes_it() {
    let ids: Vec<u32> = (3..20).collect();
    let of = |adapter: &AdapterConfig, seed: u64| {
        let mut model = tiny_model();
        fresh(adapter, &mut model, seed);
        logits(&model, &ids)
    };
    assert_eq!(of(&ia3(), 1), logits(&tiny_model(), &ids));
    let prompt = AdapterConfig::PromptTuning(PromptTuningConfig::default());
    let prefix = AdapterConfig::PrefixTuning(PrefixTuningConfig::default());
    let projected = PrefixTuningConfig { prefix_projection: true, ..PrefixTuningConfig::default() };
    for adapter in [prompt, prefix, AdapterConfig::PrefixTuning(projected)] {
        assert_eq!(of(&adapter, 1), of(&adapter, 1));
        assert_ne!(of(&adapter, 1), of(&adapter, 2));
    }
}

/// Virtual tokens that begin as a text are that text: logits behind them are those behind its words.
#[test]
fn virtual_tokens_of_a_text_are_the_text() {
    let words = [40, 7, 7, 21];
    for case in ["llama/gqa_tied", "families/gemma2", "families/gpt2", "families/mistral"] {
        let load = || load_model(&golden(case), &Device::flex()).unwrap();
        let mut model = load();
        let config = PromptTuningConfig {
            num_virtual_tokens: words.len(),
            init: PromptTuningInit::Text,
            text: Some("abba".into()),
        };
        attach_prompt(&mut model, &config, 1, Some(words.to_vec())).unwrap();
        let ids: Vec<u32> = (3..15).collect();
        let behind = logits(&load(), &[&words[..], &ids].concat());
        let behind = &behind[words.len() * model.config.vocab_size..];
        assert_close(case, &logits(&model, &ids), behind, 1e-5);
    }
}

/// Rows side by side, and rows that go on from a prompt they share, give the sum of what each gives alone.
#[test]
fn virtual_tokens_are_shared_by_the_sequences_of_a_batch() {
    let rows: [&[u32]; 3] = [&[5, 6, 7, 8, 9, 10], &[5, 6, 7, 8, 11], &[40, 41, 42]];
    for (kind, case) in [("prompt_tuning", "llama"), ("prefix_tuning", "llama"), ("prefix_tuning", "mistral")]
    {
        let folder = golden("adapters").join(kind).join(case);
        let (_, base) = cases(kind).into_iter().find(|it| it.0 == folder).unwrap();
        let mut model = load_model(&base, &Device::flex()).unwrap();
        load_adapter(&mut model, &folder).unwrap();
        let alone: Vec<f32> = rows.iter().flat_map(|it| logits(&model, it)).collect();
        let row = |it: &&[u32]| sequence(it.to_vec(), vec![-100; it.len()], 1);
        let together = Batch::new(rows.iter().map(row).collect::<Vec<_>>());
        let states = model.logits(model.hidden(&together)).try_into_vec_as::<f32>().unwrap();
        assert_close(case, &states, &alone, 1e-4);
        // As preference pairs share them: a prompt of four tokens, and two that go on from it.
        let shared = Batch {
            input_ids: vec![5, 6, 7, 8, 9, 10, 11],
            labels: vec![-100; 7],
            position_ids: vec![0, 1, 2, 3, 4, 5, 4],
            cu_seqlens: vec![0, 4, 6, 7],
            parents: vec![None, Some(0), Some(0)],
            ..Default::default()
        };
        let states = model.logits(model.hidden(&shared)).try_into_vec_as::<f32>().unwrap();
        let vocab = model.config.vocab_size;
        assert_close(case, &states[..6 * vocab], &logits(&model, rows[0]), 1e-4);
        assert_close(case, &states[6 * vocab..], &logits(&model, rows[1])[4 * vocab..], 1e-4);
    }
}

/// Modules that are packed, that nobody has, and that have an adapter themselves.
#[test]
fn modules_that_cant_be_trained_whole_are_refused_by_name() {
    let refused = |modules: &[&str], quant: Option<QuantConfig>| {
        let load = LoadConfig { quant, ..Default::default() };
        let mut model = load_model_as(&golden("llama/gqa_tied"), &Device::flex(), &load).unwrap();
        let config = LoraConfig {
            modules_to_save: modules.iter().map(ToString::to_string).collect(),
            target_modules: TargetModules::Names(vec!["q_proj".into()]),
            ..LoraConfig::default()
        };
        AdapterConfig::Lora(config).attach(&mut model, 1, &letters()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refused(&["embed", "lm_haed"], None), @"invalid adapter.lora: `modules_to_save`: no module's path ends in `embed`; `modules_to_save`: no module's path ends in `lm_haed`");
    insta::assert_snapshot!(refused(&["layers.0.self_attn"], None), @"invalid adapter.lora: `modules_to_save` and `target_modules` both name `model.layers.0.self_attn.q_proj`");
    insta::assert_snapshot!(refused(&["up_proj"], Some(QuantConfig::Nf4(Default::default()))), @"invalid adapter.lora: `modules_to_save`: `model.layers.0.mlp.up_proj.weight` is packed, and what is packed is frozen; `modules_to_save`: `model.layers.1.mlp.up_proj.weight` is packed, and what is packed is frozen");
    insta::assert_snapshot!(
        Ia3Config {
            target_modules: Some(TargetModules::Names(vec!["q_proj".into()])),
            feedforward_modules: Some(TargetModules::Names(vec!["down_proj".into()])),
            ..Ia3Config::default()
        }.problems().join("; "), @"`feedforward_modules` has `down_proj`, which is not in `target_modules`");
    let config = |it: serde_json::Value| {
        serde_json::from_value::<PromptTuningConfig>(it).unwrap().problems().join("; ")
    };
    insta::assert_snapshot!(config(serde_json::json!({"num_virtual_tokens": 0, "prompt_tuning_init": "text"})), @r#"`num_virtual_tokens` must be > 0, got `0`; `prompt_tuning_init` = "text" needs a `prompt_tuning_init_text`"#);
    insta::assert_snapshot!(config(serde_json::json!({"prompt_tuning_init_text": "a"})), @r#"`prompt_tuning_init_text` goes with `prompt_tuning_init` = "text" only"#);
}

/// What is taken where one of two keys is left out is loaded again, and is PEFT's to load.
#[test]
fn ia3_of_half_a_configuration_is_loaded_again() {
    let names = |it: &[&str]| Some(TargetModules::Names(it.iter().map(ToString::to_string).collect()));
    let on_inputs = |target_modules: Option<TargetModules>, base: &str| {
        let config = Ia3Config { target_modules, ..Ia3Config::default() };
        let load = || load_model(&golden(base), &Device::flex()).unwrap();
        let (mut model, adapter) = (load(), AdapterConfig::Ia3(config));
        fresh(&adapter, &mut model, 1);
        let out = tempfile::tempdir().unwrap();
        save_adapter(&mut model, &adapter, "base", out.path()).unwrap();
        load_adapter(&mut load(), out.path()).unwrap();
        let linears = model.blocks[0].linears().filter_map(|it| it.1.ia3.as_ref());
        linears.map(|it| it.is_feedforward).collect::<Vec<_>>()
    };
    assert_eq!(on_inputs(None, "llama/gqa_tied"), [false, false, true]);
    assert_eq!(on_inputs(names(&["k_proj", "v_proj"]), "llama/gqa_tied"), [false, false]);
    assert_eq!(on_inputs(names(&["q_proj", "down_proj"]), "llama/gqa_tied"), [false, true]);
    assert_eq!(on_inputs(names(&["attn.c_proj", "mlp.c_proj"]), "families/gpt2"), [false, true]);
    let before = Ia3Config { feedforward_modules: names(&["up_proj"]), ..Ia3Config::default() };
    let error = AdapterConfig::Ia3(before).attach(&mut tiny_model(), 1, &letters()).unwrap_err();
    insta::assert_snapshot!(error, @"invalid adapter.ia3: `feedforward_modules` has `up_proj`, which is not in `target_modules`");
}

/// Where there is no room for virtual tokens, where they would be rotated in two ways, and experts that PEFT holds together.
#[test]
fn what_a_model_can_not_have_is_refused_by_name() {
    let refused = |adapter: AdapterConfig, base: &str| {
        let mut model = load_model(&golden(base), &Device::flex()).unwrap();
        adapter.attach(&mut model, 1, &letters()).unwrap_err().to_string()
    };
    let prompt = |num_virtual_tokens| {
        AdapterConfig::PromptTuning(PromptTuningConfig { num_virtual_tokens, ..Default::default() })
    };
    insta::assert_snapshot!(refused(prompt(64), "llama/gqa_tied"), @"invalid adapter.prompt_tuning: `num_virtual_tokens` = 64 leaves no room in a context of 64 tokens");
    insta::assert_snapshot!(refused(prompt(2), "families/phi3_long"), @"invalid adapter.prompt_tuning: embeddings before a text are not known where positions are rotated otherwise after 8 tokens (`longrope`): `adapter.prefix_tuning` is");
    let modules_to_save = vec!["experts.0.w1".to_string()];
    let target_modules = TargetModules::Names(vec!["q_proj".into()]);
    let lora = LoraConfig { modules_to_save, target_modules, ..LoraConfig::default() };
    insta::assert_snapshot!(refused(AdapterConfig::Lora(lora), "families/mixtral"), @"invalid adapter.lora: `modules_to_save`: `model.layers.0.block_sparse_moe.experts.0.w1.weight` is of a mixture of experts, which is not known; `modules_to_save`: `model.layers.1.block_sparse_moe.experts.0.w1.weight` is of a mixture of experts, which is not known");
}

/// A base that is tied says it is not where one of both was trained by itself; one that stays tied says it is.
#[test]
fn a_merged_folder_says_whether_its_head_is_tied() {
    for (case, is_tied) in
        [("both_of_tied", false), ("head_of_tied", false), ("embedding_of_tied", false), ("kept_tied", true)]
    {
        let mut model = tiny_model();
        load_adapter(&mut model, &golden("adapters/modules_to_save").join(case)).unwrap();
        let out = tempfile::tempdir().unwrap();
        save_merged(&mut model, &golden("llama/gqa_tied"), out.path()).unwrap();
        let written = DecoderConfig::read(&out.path().join("config.json")).unwrap();
        assert_eq!(written.tie_word_embeddings, is_tied, "{case}");
    }
}
