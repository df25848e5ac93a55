//! Adapters that begin as a part of the weight: against PEFT 0.21, `tests/golden/generate/init.py`.

use fthost_engine::Device;
use fthost_engine::adapters::init::LoraInit;
use fthost_engine::adapters::merge::merge_adapter;
use fthost_engine::adapters::peft::{load_adapter, save_adapter};
use fthost_engine::adapters::{LoraConfig, attach_lora};
use fthost_engine::checkpoint::{LoadConfig, load_model, load_model_as};
use fthost_engine::models::CausalLm;
use fthost_engine::quant::QuantConfig;

use super::{assert_gradients, input_ids, logits, lora};
use crate::support::{Golden, assert_close, golden};

const METHODS: [(&str, LoraInit); 2] = [("pissa", LoraInit::Pissa), ("olora", LoraInit::Olora)];

fn base() -> CausalLm {
    load_model(&golden("llama/bias_untied"), &Device::flex()).unwrap()
}

/// What is taken off a weight does not depend on the signs of its vectors. PEFT finds it in f32: 5e-5 of values of order 1.
#[test]
fn what_an_adapter_begins_with_is_pefts() {
    for (name, _) in METHODS {
        let expected = Golden::open(&golden("init").join(name).join("golden.safetensors"));
        let mut model = base();
        let config = load_adapter(&mut model, &golden("init").join(name)).unwrap();
        assert_eq!(lora(&config).init_lora_weights.name(), name);
        let mut count = 0;
        for (layer, block) in model.blocks.iter().enumerate() {
            for (path, linear) in block.linears() {
                let Some(lora) = &linear.lora else { continue };
                let origin = lora.origin.as_ref().unwrap();
                let found = origin.negative_b.clone().matmul(origin.a.clone()).mul_scalar(-lora.scaling);
                let path = format!("{}.{path}.origin", model.block_path(layer));
                assert_close(&path, &found.try_into_vec_as::<f32>().unwrap(), &expected.values(&path), 5e-5);
                count += 1;
            }
        }
        assert_eq!(count, 4 * model.blocks.len());
    }
}

/// A folder that PEFT saved without conversion: logits, gradients of A and B, and the same as it decodes, merged, and saved by
/// us as a plain adapter of twice the rank.
#[test]
fn adapters_that_begin_as_a_part_of_the_weight_match_peft() {
    for (name, _) in METHODS {
        let folder = golden("init").join(name);
        let path = folder.join("golden.safetensors");
        let (expected, ids) = (Golden::open(&path), input_ids(&path));
        let mut model = base();
        let config = load_adapter(&mut model, &folder).unwrap();
        assert_close(name, &logits(&model, &ids), &expected.values("logits"), 1e-4);
        assert_gradients(&mut model, &ids, &expected);
        let out = tempfile::tempdir().unwrap();
        save_adapter(&mut model, &config, "bias_untied", out.path()).unwrap();
        let mut again = base();
        let plain = load_adapter(&mut again, out.path()).unwrap();
        assert_eq!(
            (lora(&plain).init_lora_weights, lora(&plain).rank),
            (LoraInit::Default, 2 * lora(&config).rank)
        );
        assert_close("saved", &logits(&again, &ids), &expected.values("logits"), 1e-4);
        merge_adapter(&mut model).unwrap();
        assert_close("merged", &logits(&model, &ids), &expected.values("logits"), 1e-4);
    }
}

/// Also on packed weights, and the weights stay what they are: the model without its adapter is the base.
#[test]
fn a_fresh_adapter_of_the_weight_changes_nothing() {
    let ids: Vec<u32> = (3..20).collect();
    let quant = Some(QuantConfig::Nf4(Default::default()));
    for quant in [None, quant] {
        let load = LoadConfig { quant, ..Default::default() };
        let base = load_model_as(&golden("llama/bias_untied"), &Device::flex(), &load).unwrap();
        for (name, init_lora_weights) in METHODS {
            for use_rslora in [false, true] {
                let mut model = base.clone();
                let config = LoraConfig { rank: 4, use_rslora, init_lora_weights, ..LoraConfig::default() };
                attach_lora(&mut model, &config, 1).unwrap();
                let b = &model.blocks[0].qkv[0].1.lora.as_ref().unwrap().b;
                assert!(b.clone().abs().max().into_scalar::<f32>() > 1e-3, "{name} is not zero");
                assert_close(name, &logits(&model, &ids), &logits(&base, &ids), 2e-5);
                model.blocks.iter_mut().flat_map(|it| it.linears_mut()).for_each(|it| it.1.lora = None);
                assert_eq!(logits(&model, &ids), logits(&base, &ids));
            }
        }
    }
}

#[test]
fn what_does_not_go_with_it_is_refused() {
    let config = LoraConfig { init_lora_weights: LoraInit::Pissa, ..LoraConfig::default() };
    let mixed = LoraConfig { dropout: 0.1, use_dora: true, ..config.clone() };
    insta::assert_snapshot!(mixed.problems().join("\n"), @r#"
    `use_dora` is known with `dropout` = 0 only, got `0.1`
    `init_lora_weights` = "pissa" is known with `dropout` = 0 only, got `0.1`
    `init_lora_weights` = "pissa" is not known with `use_dora`
    "#);
    let refused = |config: &LoraConfig, folder: &str| {
        let mut model = load_model(&golden(folder), &Device::flex()).unwrap();
        attach_lora(&mut model, config, 1).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refused(&config, "families/mixtral"), @"invalid adapter.lora: `init_lora_weights` is not known on experts of a mixture: `model.layers.0.block_sparse_moe.gate`");
    let wide = LoraConfig { rank: 33, ..config };
    insta::assert_snapshot!(refused(&wide, "llama/bias_untied"), @"invalid adapter.lora: `rank` = 33 is more than `model.layers.0.self_attn.q_proj`, 64 by 32, has for pissa");
}

/// A is drawn with a deviation of `1 / rank`: 128 values of it, within a fifth.
#[test]
fn gaussian_is_as_wide_as_pefts() {
    let mut model = base();
    let config = LoraConfig { rank: 4, init_lora_weights: LoraInit::Gaussian, ..LoraConfig::default() };
    attach_lora(&mut model, &config, 1).unwrap();
    let a = model.blocks[0].qkv[0].1.lora.as_ref().unwrap().a.clone();
    let deviation = a.clone().square().mean().sqrt().into_scalar::<f32>();
    assert!((deviation / 0.25 - 1.0).abs() < 0.2, "{deviation}, of {:?}", a.dims());
}
