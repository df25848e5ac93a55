//! Packed weights in a model: against bitsandbytes and transformers (`tests/golden/generate/quant.py`), and against the same
//! model with its packed values dense.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{DType, Tensor, TensorData};
use fthost_engine::adapters::merge::save_merged;
use fthost_engine::adapters::{LoraConfig, attach_lora};
use fthost_engine::checkpoint::{LoadConfig, SaveConfig, load_model, load_model_as, save_model};
use fthost_engine::models::CausalLm;
use fthost_engine::nn::FloatDtype;
use fthost_engine::quant::{FourBitOptions, QuantConfig};
use fthost_engine::train::{ActivationCheckpointing, TrainState};
use fthost_engine::{Device, EngineError};
use fthost_kernels::{Packed, Weight};

use crate::support::{Golden, assert_close, golden, whole};
use crate::train::support::{batches, gradients};

fn nf4() -> QuantConfig {
    let skip_modules = vec!["model.layers.0.mlp.down_proj".to_string()];
    QuantConfig::Nf4(FourBitOptions { skip_modules, ..Default::default() })
}

fn fp4() -> QuantConfig {
    QuantConfig::Fp4(FourBitOptions { double_quant: false, ..Default::default() })
}

fn packed_as(folder: &Path, quant: QuantConfig) -> CausalLm {
    let load = LoadConfig { quant: Some(quant), ..Default::default() };
    load_model_as(folder, &Device::flex(), &load).unwrap()
}

/// The packed weights by their paths.
fn packed(model: &CausalLm) -> Vec<(String, Arc<Packed>)> {
    let linears = model.blocks.iter().enumerate();
    let linears = linears.flat_map(|(layer, block)| block.linears().map(move |it| (layer, it)));
    let found = linears.filter_map(|(layer, (name, linear))| match &linear.weight {
        Weight::Packed(it) => Some((format!("{}.{name}", model.block_path(layer)), Arc::clone(it))),
        Weight::Dense(_) => None,
    });
    found.collect()
}

/// The model whose weights are the packed ones' values.
fn dense(model: &CausalLm) -> CausalLm {
    let mut model = model.clone();
    for (_, linear) in model.blocks.iter_mut().flat_map(|it| it.linears_mut()) {
        linear.weight = linear.weight.to_dense(&Device::flex()).into();
    }
    model
}

/// A file that transformers wrote is read as it is; what `[quant]` makes of the f32 model is the same, bit for bit; logits
/// are transformers' within 1e-5 of values of order 1.
#[test]
fn models_are_packed_as_transformers_packs_them_and_give_its_logits() {
    for (case, quant) in [("nf4", nf4()), ("fp4", fp4()), ("int8", QuantConfig::Int8(Default::default()))] {
        let folder = golden("quant").join(case);
        let read = load_model(&folder, &Device::flex()).unwrap();
        let made = packed_as(&golden("quant/model"), quant);
        let (of_read, of_made) = (packed(&read), packed(&made));
        assert_eq!(of_read.len(), if case == "nf4" { 13 } else { 14 });
        assert!(of_read == of_made, "{case}");
        if case == "int8" {
            // Its method rounds what goes in, too: transformers' logits are others.
            continue;
        }
        let numbers = Golden::open(&folder.join("golden.safetensors"));
        let ids: Vec<u32> = numbers.values("input_ids").iter().map(|it| *it as u32).collect();
        let logits = read.logits(read.hidden(&whole(&ids))).try_into_vec_as::<f32>().unwrap();
        assert_close(case, &logits, &numbers.values("logits"), 1e-5);
    }
}

/// What is written is what was read: the same tensors as in transformers' own file, and the same model again.
#[test]
fn packed_models_are_written_as_transformers_writes_them() {
    for case in ["nf4", "fp4", "int8"] {
        let (folder, out) = (golden("quant").join(case), tempfile::tempdir().unwrap());
        let mut model = load_model(&folder, &Device::flex()).unwrap();
        let save = SaveConfig { keep_packed: true, ..Default::default() };
        save_model(&mut model, &folder, out.path(), &save).unwrap();
        let tensors = |folder: &Path| {
            let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut found: Vec<_> = (file.iter())
                .map(|(name, it)| (name.to_string(), it.dtype(), it.shape().to_vec(), it.data().to_vec()))
                .collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            found
        };
        assert_eq!(tensors(out.path()).len(), tensors(&folder).len(), "{case}");
        for (got, expected) in tensors(out.path()).into_iter().zip(tensors(&folder)) {
            if got.0.contains("quant_state") {
                let json = |it: &[u8]| serde_json::from_slice::<serde_json::Value>(it).unwrap();
                assert_eq!(json(&got.3), json(&expected.3), "{}", got.0);
            } else {
                assert!(got == expected, "{} is {:?} {:?}", got.0, got.1, got.2);
            }
        }
        assert!(packed(&load_model(out.path(), &Device::flex()).unwrap()) == packed(&model), "{case}");
    }
}

/// Dense again, in several files: the values of the packed weights, and a configuration that says nothing of packing.
#[test]
fn a_packed_model_is_written_dense_where_that_is_asked_for() {
    let (folder, out) = (golden("quant/nf4"), tempfile::tempdir().unwrap());
    let mut model = load_model(&folder, &Device::flex()).unwrap();
    let save = SaveConfig { max_shard_bytes: Some(100_000), ..Default::default() };
    save_model(&mut model, &folder, out.path(), &save).unwrap();
    let index = std::fs::read_to_string(out.path().join("model.safetensors.index.json")).unwrap();
    assert!(index.contains("-of-00005.safetensors"), "{index}");
    let again = load_model(out.path(), &Device::flex()).unwrap();
    assert!(packed(&again).is_empty());
    let weights = |model: &CausalLm| {
        let (mut model, mut found) = (model.clone(), Vec::new());
        model.visit_base(&mut |name, parameter| found.push((name.to_string(), parameter.to_f32())));
        found
    };
    assert!(weights(&again) == weights(&model));
}

/// Gradients of an adapter, against those on the dense values: the same products in tiles, 1e-5 of the largest of a
/// parameter. Also with DoRA, whose norms are of the packed weight.
#[test]
fn adapters_learn_on_packed_weights_as_on_their_values() {
    let kinds = [QuantConfig::Nf4(Default::default()), QuantConfig::Int8(Default::default())];
    for (quant, use_dora) in kinds.into_iter().flat_map(|it| [(it.clone(), false), (it, true)]) {
        let mut model = packed_as(&golden("train/model"), quant);
        assert!(!packed(&model).is_empty());
        let config = LoraConfig { rank: 4, use_dora, ..LoraConfig::default() };
        attach_lora(&mut model, &config, 3).unwrap();
        for (_, linear) in model.blocks.iter_mut().flat_map(|it| it.linears_mut()) {
            // Not the zeros that a fresh adapter begins with.
            let lora = linear.lora.as_mut().unwrap();
            let values = (0..lora.b.shape().num_elements()).map(|it| (it * 7919 % 101) as f32 / 500.0 - 0.1);
            let data = TensorData::new(values.collect(), lora.b.dims());
            lora.b = Tensor::from_data(data, &Device::flex());
        }
        let state = |model: CausalLm| TrainState::new(model, Some(config.clone().into()));
        let (packed, dense) = (state(model.clone()), state(dense(&model)));
        for checkpointing in [ActivationCheckpointing::Off, ActivationCheckpointing::Block] {
            let of = |state: &TrainState| gradients(state, &batches(1), checkpointing).1;
            for (index, (got, expected)) in of(&packed).iter().zip(of(&dense)).enumerate() {
                let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                assert!(largest > 0.0);
                assert_close(&format!("gradient {index}"), got, &expected, 1e-5 * largest);
            }
        }
    }
}

/// Of embedding, head and linears stored in bf16, one forward pass is that of the same values in f32.
#[test]
fn frozen_matrices_in_bf16_are_those_values() {
    let load = LoadConfig { dtype: FloatDtype::Bf16, ..Default::default() };
    let narrow = load_model_as(&golden("quant/model"), &Device::flex(), &load).unwrap();
    let mut wide = dense(&narrow);
    let widen = |it: &Tensor<2>| it.clone().cast(DType::F32);
    (wide.embed_tokens, wide.lm_head) = (widen(&narrow.embed_tokens), narrow.lm_head.as_ref().map(widen));
    assert_eq!(narrow.embed_tokens.dtype(), DType::BF16);
    let logits = |model: &CausalLm| {
        let hidden = model.hidden(&whole(&[1, 5, 60, 2, 2, 33]));
        model.logits(hidden).try_into_vec_as::<f32>().unwrap()
    };
    assert_close("logits", &logits(&narrow), &logits(&wide), 1e-5);
}

/// A folder like `from` with some keys of its configuration replaced.
fn with_config(from: &str, keys: serde_json::Value) -> tempfile::TempDir {
    let (folder, from) = (tempfile::tempdir().unwrap(), golden(from));
    std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let text = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["quantization_config"] = keys;
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

fn refused(folder: &Path, load: &LoadConfig) -> String {
    let error = load_model_as(folder, &Device::flex(), load).unwrap_err();
    let text = error.to_string();
    match error {
        EngineError::Invalid { problems, .. } => problems.join("\n"),
        _ => text,
    }
}

#[test]
fn packings_that_do_not_fit_are_refused() {
    let silent = LoadConfig::default();
    let gptq = with_config("quant/model", serde_json::json!({ "quant_method": "gptq" }));
    insta::assert_snapshot!(refused(gptq.path(), &silent), @r#"`quantization_config.quant_method` = "gptq" is not known here (known: "bitsandbytes")"#);
    let asked = LoadConfig { quant: Some(fp4()), ..Default::default() };
    insta::assert_snapshot!(refused(&golden("quant/nf4"), &asked), @"its weights are stored as nf4 already, and `quant.fp4` is asked for");
    let to_train = LoadConfig { to_train: true, ..Default::default() };
    insta::assert_snapshot!(refused(&golden("quant/nf4"), &to_train), @"its weights are stored as nf4, which is frozen: train an adapter on them");
}

/// Every tensor of a packed weight, gone or of another length: an error that names the weight, and no panic.
#[test]
fn damaged_packed_weights_are_refused_by_name() {
    damage("quant/nf4", "model.layers.1.self_attn.q_proj.weight", 6);
    damage("quant/int8", "model.layers.1.self_attn.q_proj.", 2);
}

fn damage(from: &str, weight: &str, count: usize) {
    let from = golden(from);
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let parts: Vec<String> = file
        .names()
        .iter()
        .filter(|it| it.starts_with(weight) && !it.ends_with("weight_format"))
        .map(ToString::to_string)
        .collect();
    assert_eq!(parts.len(), count);
    for part in &parts {
        for keep in [None, Some(0), Some(1)] {
            let tensors =
                file.iter().filter(|(name, _)| keep.is_some() || *name != part).map(|(name, it)| {
                    let (dtype, mut shape, mut data) = (it.dtype(), it.shape().to_vec(), it.data());
                    if let Some(keep) = keep.filter(|_| name == part) {
                        // The nested factors are one already.
                        let keep = if shape[0] == 1 { 0 } else { keep };
                        shape = vec![keep];
                        data = &data[..keep * dtype.bitsize() / 8];
                    }
                    (name.to_string(), safetensors::tensor::TensorView::new(dtype, shape, data).unwrap())
                });
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(from.join("config.json"), folder.path().join("config.json")).unwrap();
            let out = folder.path().join("model.safetensors");
            safetensors::serialize_to_file(tensors.collect::<Vec<_>>(), None, &out).unwrap();
            let error = load_model(folder.path(), &Device::flex()).map(drop).unwrap_err().to_string();
            assert!(error.contains(weight), "{part}, {keep:?}: {error}");
        }
    }
}

/// Merged and saved, an adapter on packed weights is one on their values.
#[test]
fn merging_widens_packed_weights() {
    let folder = golden("quant/nf4");
    let mut model = load_model(&folder, &Device::flex()).unwrap();
    attach_lora(&mut model, &LoraConfig { rank: 4, ..LoraConfig::default() }, 3).unwrap();
    for (_, linear) in model.blocks.iter_mut().flat_map(|it| it.linears_mut()) {
        let lora = linear.lora.as_mut().unwrap();
        // Any values but zeros: rows of A, or their beginnings.
        let [out, rank] = lora.b.dims();
        let width = lora.a.dims()[1];
        lora.b = lora
            .a
            .clone()
            .reshape([rank * width])
            .repeat_dim(0, out.div_ceil(width))
            .narrow(0, 0, out * rank)
            .reshape([out, rank]);
    }
    let batch = whole(&(3..20).collect::<Vec<_>>());
    let logits = |model: &CausalLm| model.logits(model.hidden(&batch)).try_into_vec_as::<f32>().unwrap();
    let adapted = logits(&model);
    let base = logits(&load_model(&folder, &Device::flex()).unwrap());
    assert!(adapted.iter().zip(&base).any(|(a, b)| (a - b).abs() > 1e-2), "the adapter adds something");
    let out = tempfile::tempdir().unwrap();
    save_merged(&mut model, &folder, out.path()).unwrap();
    let again = load_model(out.path(), &Device::flex()).unwrap();
    assert!(packed(&again).is_empty());
    assert_close("merged", &logits(&again), &adapted, 1e-4);
}
