//! LoRA against PEFT, and adapters on disk.

mod combine;
mod init;
mod kinds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_data::Tokenizer;
use fthost_engine::adapters::init::LoraInit;
use fthost_engine::adapters::merge::{merge_adapter, save_merged};
use fthost_engine::adapters::peft::{load_adapter, save_adapter};
use fthost_engine::adapters::{AdapterConfig, LoraConfig, TargetModules, attach_lora};
use fthost_engine::checkpoint::load_model;
use fthost_engine::checkpoint::write::write_f32;
use fthost_engine::models::CausalLm;
use fthost_engine::nn::DecodeWeights;
use fthost_engine::train::{ActivationCheckpointing, Gradients};
use fthost_engine::{Device, EngineError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::models::input_ids;
use crate::support::{Golden, assert_close, golden, tiny_model, whole};

fn logits(model: &CausalLm, ids: &[u32]) -> Vec<f32> {
    model.logits(model.hidden(&whole(ids))).try_into_vec_as::<f32>().unwrap()
}

/// What is known to be of LoRA.
fn lora(config: &AdapterConfig) -> &LoraConfig {
    let AdapterConfig::Lora(config) = config else { panic!("{config:?} is no LoRA") };
    config
}

fn adapted() -> (CausalLm, AdapterConfig) {
    let mut model = tiny_model();
    let config = load_adapter(&mut model, &golden("lora")).unwrap();
    (model, config)
}

/// The gradients of an adapter's weights, of the mean loss over one sequence, within 1e-4 of PEFT's.
fn assert_gradients(model: &mut CausalLm, ids: &[u32], expected: &Golden) {
    for checkpointing in [ActivationCheckpointing::Off, ActivationCheckpointing::Block] {
        let mut gradients = Gradients::default();
        gradients.add(model, &whole(ids), checkpointing);
        let tokens = gradients.supervised_tokens as f32;
        let mut values = gradients.sums.values().into_iter();
        model.visit_trained(&mut |name, _| {
            let got = values.next().unwrap().div_scalar(tokens).try_into_vec_as::<f32>().unwrap();
            assert_close(name, &got, &expected.values(&format!("grad.base_model.model.{name}")), 1e-4);
        });
        assert!(values.next().is_none());
    }
}

/// Oracle: PEFT 0.21 (rsLoRA), `tests/golden/generate/llama.py`; f32 on both sides, so 1e-4 as for the base.
#[test]
fn logits_and_gradients_match_peft() {
    let path = golden("lora/golden.safetensors");
    let (expected, ids) = (Golden::open(&path), input_ids(&path));
    let (mut model, config) = adapted();
    assert!(lora(&config).use_rslora && lora(&config).rank == 4);
    assert_close("logits", &logits(&model, &ids), &expected.values("logits"), 1e-4);
    assert_gradients(&mut model, &ids, &expected);
}

/// Oracle: PEFT 0.21 with DoRA, `tests/golden/generate/dora.py`; norms are found another way here, of rows of 32 to 64
/// weights, so 1e-4 as for the base. Merged, and as it decodes, the model says the same.
#[test]
fn dora_matches_peft() {
    for case in ["gqa_tied", "bias_untied"] {
        let folder = golden("dora").join(case);
        let path = folder.join("golden.safetensors");
        let (expected, ids) = (Golden::open(&path), input_ids(&path));
        let mut model = load_model(&golden("llama").join(case), &Device::flex()).unwrap();
        let config = load_adapter(&mut model, &folder).unwrap();
        assert!(lora(&config).use_dora);
        assert_close(case, &logits(&model, &ids), &expected.values("logits"), 1e-4);
        assert_gradients(&mut model, &ids, &expected);
        let decoding = model.for_decoding(DecodeWeights::F32);
        assert_close("decoding", &logits(&decoding, &ids), &expected.values("logits"), 1e-4);
        let out = tempfile::tempdir().unwrap();
        save_adapter(&mut model, &config, case, out.path()).unwrap();
        let mut again = load_model(&golden("llama").join(case), &Device::flex()).unwrap();
        load_adapter(&mut again, out.path()).unwrap();
        assert_eq!(logits(&again, &ids), logits(&model, &ids), "{case}");
        merge_adapter(&mut model).unwrap();
        assert_close("merged", &logits(&model, &ids), &expected.values("logits"), 1e-4);
    }
}

/// A fresh adapter has the rows' own lengths.
#[test]
fn a_fresh_dora_changes_nothing() {
    let ids: Vec<u32> = (3..20).collect();
    let mut model = tiny_model();
    attach_lora(&mut model, &LoraConfig { use_dora: true, ..LoraConfig::default() }, 1).unwrap();
    assert_close("fresh", &logits(&model, &ids), &logits(&tiny_model(), &ids), 1e-5);
    let mut mixture = load_model(&golden("families/mixtral"), &Device::flex()).unwrap();
    let config = LoraConfig { use_dora: true, ..LoraConfig::default() };
    let error = attach_lora(&mut mixture, &config, 1).unwrap_err().to_string();
    assert!(
        error.contains("`use_dora` is not known on experts of a mixture: `model.layers.0.block_sparse"),
        "{error}"
    );
    let config = LoraConfig { dropout: 0.1, ..config };
    assert_eq!(config.problems(), ["`use_dora` is known with `dropout` = 0 only, got `0.1`"]);
}

/// Folding `b a` into the weight reorders sums of 48 terms: 1e-4 on logits of order 10.
#[test]
fn merged_equals_adapter() {
    let ids: Vec<u32> = (3..20).collect();
    let (mut model, _) = adapted();
    let before = logits(&model, &ids);
    merge_adapter(&mut model).unwrap();
    assert!(!model.has_adapter());
    assert_close("merged", &logits(&model, &ids), &before, 1e-4);
}

#[test]
fn a_merged_folder_loads_with_the_same_logits() {
    let ids: Vec<u32> = (3..20).collect();
    let (mut model, _) = adapted();
    let folder = tempfile::tempdir().unwrap();
    save_merged(&mut model, &golden("llama/gqa_tied"), folder.path()).unwrap();
    let loaded = load_model(folder.path(), &Device::flex()).unwrap();
    assert_eq!(logits(&loaded, &ids), logits(&model, &ids));
}

#[test]
fn a_saved_adapter_loads_with_the_same_bits() {
    let ids: Vec<u32> = (3..20).collect();
    let (mut model, config) = adapted();
    let folder = tempfile::tempdir().unwrap();
    save_adapter(&mut model, &config, "gqa_tied", folder.path()).unwrap();
    let mut loaded = tiny_model();
    load_adapter(&mut loaded, folder.path()).unwrap();
    assert_eq!(logits(&loaded, &ids), logits(&model, &ids));
}

/// PEFT's logits on each base with its adapter against ours of the model.
fn peft_agrees(python: &str, all: &[(&CausalLm, &Path, &Path)], ids: &[u32]) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(python);
    command.arg(golden("generate/check_peft.py"));
    for (index, (model, base, adapter)) in all.iter().enumerate() {
        let path = folder.path().join(format!("{index}.safetensors"));
        let tensors = [
            ("input_ids".to_string(), vec![ids.len()], ids.iter().map(|it| *it as f32).collect()),
            ("logits".to_string(), vec![ids.len(), model.config.vocab_size], logits(model, ids)),
        ];
        write_f32(&path, &tensors).unwrap();
        command.args([base, adapter, path.as_path()]);
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(output.status.success(), "{}", said.concat());
    eprint!("{}", said[0]);
}

/// The other direction needs PEFT itself: `FTHOST_TEST_PYTHON` names a Python with torch, transformers and peft.
#[test]
fn a_saved_adapter_loads_in_peft_with_equal_logits() {
    let Ok(python) = std::env::var("FTHOST_TEST_PYTHON") else {
        eprintln!("SKIPPED a_saved_adapter_loads_in_peft_with_equal_logits: FTHOST_TEST_PYTHON is not set");
        return;
    };
    let of_peft = [
        ("llama/gqa_tied", "lora"),
        ("llama/gqa_tied", "dora/gqa_tied"),
        ("llama/bias_untied", "dora/bias_untied"),
        ("llama/bias_untied", "init/pissa"),
        ("llama/bias_untied", "init/olora"),
        ("families/phi3", "families/phi3_lora"),
        ("families/gpt2", "families/gpt2_lora"),
        ("families/qwen3_moe", "families/qwen3_moe_lora"),
        ("families/mixtral", "families/mixtral_lora"),
    ];
    let mut all: Vec<(CausalLm, PathBuf, AdapterConfig)> = Vec::new();
    for (base, adapter) in of_peft {
        let mut model = load_model(&golden(base), &Device::flex()).unwrap();
        let config = load_adapter(&mut model, &golden(adapter)).unwrap();
        all.push((model, golden(base), config));
    }
    // Begun here, and moved away from where they begin.
    for (init_lora_weights, use_rslora) in [LoraInit::Pissa, LoraInit::Olora].into_iter().zip([true, false]) {
        let base = golden("llama/bias_untied");
        let mut model = load_model(&base, &Device::flex()).unwrap();
        let config = LoraConfig { rank: 4, use_rslora, init_lora_weights, ..LoraConfig::default() };
        attach_lora(&mut model, &config, 1).unwrap();
        for linear in model.blocks.iter_mut().flat_map(|it| it.linears_mut()) {
            let Some(lora) = &mut linear.1.lora else { continue };
            lora.b = lora.b.clone().mul_scalar(1.3);
        }
        all.push((model, base, config.into()));
    }
    let saved = all.iter_mut().map(|(model, _, config)| {
        let folder = tempfile::tempdir().unwrap();
        save_adapter(model, config, "base", folder.path()).unwrap();
        folder
    });
    let saved: Vec<_> = saved.collect();
    let each =
        all.iter().zip(&saved).map(|((model, base, _), folder)| (model, base.as_path(), folder.path()));
    peft_agrees(&python, &each.collect::<Vec<_>>(), &(3..20).collect::<Vec<_>>());
}

/// An adapter that a whole run made, on a real model: `FTHOST_TEST_ADAPTER` is the quickstart's `adapter` folder,
/// `FTHOST_TEST_MODEL` the model's.
#[test]
fn the_quickstarts_adapter_loads_in_peft_with_equal_logits() {
    let names = ["FTHOST_TEST_PYTHON", "FTHOST_TEST_MODEL", "FTHOST_TEST_ADAPTER"];
    let [Ok(python), Ok(base), Ok(adapter)] = names.map(std::env::var) else {
        eprintln!(
            "SKIPPED the_quickstarts_adapter_loads_in_peft_with_equal_logits: {} are not all set",
            names.join(", ")
        );
        return;
    };
    let (base, adapter) = (Path::new(&base), Path::new(&adapter));
    let mut model = load_model(base, &Device::flex()).unwrap();
    load_adapter(&mut model, adapter).unwrap();
    let text = "<|im_start|>user\nText: Ada is a 36-year-old engineer from London.\nJSON:<|im_end|>\n";
    let ids = Tokenizer::load(base).unwrap().encode(text).unwrap().ids;
    peft_agrees(&python, &[(&model, base, adapter)], &ids);
}

#[test]
fn a_fresh_adapter_changes_nothing_and_is_the_same_for_the_same_seed() {
    let ids: Vec<u32> = (3..20).collect();
    let fresh = |seed| {
        let mut model = tiny_model();
        attach_lora(&mut model, &LoraConfig::default(), seed).unwrap();
        let a = model.blocks[0].qkv[0].1.lora.as_ref().unwrap().a.clone().try_into_vec_as::<f32>().unwrap();
        (logits(&model, &ids), a)
    };
    let (first, second, other) = (fresh(1), fresh(1), fresh(2));
    assert_close("B is zero", &first.0, &logits(&tiny_model(), &ids), 1e-6);
    assert_eq!(first.1, second.1);
    assert_ne!(first.1, other.1);
    // PEFT's kaiming_uniform(a = sqrt 5) is uniform in ±1/sqrt(in); in = 32.
    assert!(first.1.iter().all(|it| it.abs() <= 32f32.powf(-0.5)));
}

#[test]
fn a_target_that_matches_nothing_lists_the_linears() {
    let config =
        LoraConfig { target_modules: TargetModules::Names(vec!["query".into()]), ..LoraConfig::default() };
    let error = attach_lora(&mut tiny_model(), &config, 0).unwrap_err();
    assert!(matches!(&error, EngineError::NoTarget { linears, .. } if linears.len() == 7), "{error}");
}

#[test]
fn options_that_change_the_numbers_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(golden("lora").join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("adapter_config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let refused = |key: &str| {
        let (off, on) = (format!("\"{key}\": false"), format!("\"{key}\": true"));
        std::fs::write(&path, config.replace(&off, &on)).unwrap();
        load_adapter(&mut tiny_model(), folder.path()).unwrap_err().to_string()
    };
    let error = refused("use_qalora");
    assert!(error.contains("`use_qalora` = true is not supported here"), "{error}");
    let error = refused("use_dora");
    assert!(error.contains("q_proj.lora_magnitude_vector` is missing from"), "{error}");
}

#[test]
fn ranks_and_alphas_go_by_pattern() {
    let config = LoraConfig {
        rank_pattern: BTreeMap::from([("self_attn.q_proj".into(), 2), (r"layers\.1\.mlp\..*".into(), 3)]),
        alpha_pattern: BTreeMap::from([("q_proj".into(), 5.0)]),
        ..LoraConfig::default()
    };
    let mut model = tiny_model();
    attach_lora(&mut model, &config, 1).unwrap();
    let shares = |layer: usize| -> Vec<(usize, f64)> {
        let linears = model.blocks[layer].linears().map(|it| it.1.lora.as_ref().unwrap());
        linears.map(|it| (it.a.dims()[0], it.scaling)).collect()
    };
    let (whole, q) = ((8, 2.0), (2, 2.5));
    assert_eq!(shares(0), [q, whole, whole, whole, whole, whole, whole]);
    let narrow = (3, 16.0 / 3.0);
    assert_eq!(shares(1), [q, whole, whole, whole, narrow, narrow, narrow]);
    let out = tempfile::tempdir().unwrap();
    save_adapter(&mut model, &config.clone().into(), "base", out.path()).unwrap();
    let loaded = load_adapter(&mut tiny_model(), out.path()).unwrap();
    assert_eq!(lora(&loaded).rank_pattern, config.rank_pattern);

    let both = BTreeMap::from([("q_proj".into(), 2), ("self_attn.*".into(), 3)]);
    let config = LoraConfig { rank_pattern: both, ..LoraConfig::default() };
    let error = attach_lora(&mut tiny_model(), &config, 1).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"invalid adapter.lora: `rank_pattern`: `q_proj` and `self_attn.*` both match `model.layers.0.self_attn.q_proj`");
    let zero = LoraConfig { rank_pattern: BTreeMap::from([("q_proj".into(), 0)]), ..LoraConfig::default() };
    assert_eq!(zero.problems(), ["`rank_pattern` of `q_proj` must be > 0, got `0`"]);
}

/// 1500 folders, each with a few bytes of its configuration or of the header of its weights changed, or cut short: every one is
/// loaded or refused.
#[test]
fn adapters_that_lie_are_loaded_or_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut refusals = 0;
    let of = [
        ("llama/gqa_tied", "lora"),
        ("llama/gqa_tied", "dora/gqa_tied"),
        ("families/mixtral", "families/mixtral_lora"),
        ("llama/gqa_tied", "adapters/ia3/with_module"),
        ("llama/gqa_tied", "adapters/prompt_tuning/llama"),
        ("llama/gqa_tied", "adapters/prefix_tuning/llama"),
    ];
    for (base, adapter) in of {
        let base = load_model(&golden(base), &Device::flex()).unwrap();
        let read = |name: &str| std::fs::read(golden(adapter).join(name)).unwrap();
        let (config, weights) = (read("adapter_config.json"), read("adapter_model.safetensors"));
        let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize + 8;
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..250 {
            let (mut config, mut weights) = (config.clone(), weights.clone());
            for _ in 0..rng.random_range(1..4) {
                let (bytes, until) = match rng.random_bool(0.5) {
                    true => (&mut config, usize::MAX),
                    false => (&mut weights, header),
                };
                let at = rng.random_range(0..bytes.len().min(until));
                bytes[at] = match rng.random_range(0..3) {
                    0 => rng.random(),
                    1 => b'0' + rng.random_range(0..10u8),
                    _ => bytes[at] ^ 1,
                };
            }
            if rng.random_range(0..8) == 0 {
                weights.truncate(rng.random_range(0..weights.len()));
            }
            std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
            std::fs::write(folder.path().join("adapter_model.safetensors"), weights).unwrap();
            refusals += usize::from(load_adapter(&mut base.clone(), folder.path()).is_err());
        }
    }
    assert!(refusals > 500, "{refusals} of 1500");
}
