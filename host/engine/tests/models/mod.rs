//! Logits and gradients of the Llama family, and of [`families`], against transformers.

mod families;
mod files;

use std::path::Path;

use fthost_engine::Device;
use fthost_engine::checkpoint::load_model;
use fthost_engine::train::{ActivationCheckpointing, Gradients};

use crate::support::{Golden, assert_close, golden, whole};

/// The golden's `input_ids`.
pub fn input_ids(path: &Path) -> Vec<u32> {
    stored_ids(path, "input_ids")
}

/// Ids of a golden, stored as integers.
pub fn stored_ids(path: &Path, name: &str) -> Vec<u32> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data();
    data.as_chunks::<4>().0.iter().map(|it| u32::from_le_bytes(*it)).collect()
}

/// Oracle: transformers 5.23 in f32, `tests/golden/generate/llama.py`. Logits are of order 10; both sides round in
/// f32 over sums of at most 48 terms, so 1e-4 absolute.
#[test]
fn logits_match_transformers() {
    for case in ["gqa_tied", "bias_untied", "rope_linear", "rope_dynamic", "rope_llama3"] {
        let folder = golden("llama").join(case);
        let model = load_model(&folder, &Device::flex()).unwrap();
        let path = folder.join("golden.safetensors");
        let batch = whole(&input_ids(&path));
        let logits = model.logits(model.hidden(&batch)).try_into_vec_as::<f32>().unwrap();
        assert_close(case, &logits, &Golden::open(&path).values("logits"), 1e-4);
    }
}

/// Oracle: torch autograd of the mean loss, as above. Gradients are of order 1, so 1e-4.
#[test]
fn loss_and_gradients_match_torch() {
    let path = golden("llama/gqa_tied/golden.safetensors");
    let (expected, batch) = (Golden::open(&path), whole(&input_ids(&path)));
    for checkpointing in [ActivationCheckpointing::Off, ActivationCheckpointing::Block] {
        let mut model = crate::support::tiny_model();
        let mut gradients = Gradients::default();
        gradients.add(&model, &batch, checkpointing);
        let tokens = gradients.supervised_tokens as f32;
        assert_close("loss", &[gradients.loss_sum as f32 / tokens], &expected.values("loss"), 1e-5);
        let mut values = gradients.sums.values().into_iter();
        model.visit_base(&mut |name, _| {
            let got = values.next().unwrap().div_scalar(tokens).try_into_vec_as::<f32>().unwrap();
            assert_close(name, &got, &expected.values(&format!("grad.{name}")), 1e-4);
        });
    }
}

/// What a file lacks, or has in another shape, is said by name.
#[test]
fn a_weight_of_another_shape_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("llama/gqa_tied").join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("\"intermediate_size\": 48", "\"intermediate_size\": 50")).unwrap();
    let error = load_model(folder.path(), &Device::flex()).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"`model.layers.0.mlp.gate_proj.weight` has shape [48, 32], the configuration asks for [50, 32]");
    std::fs::write(&path, config.replace("LlamaForCausalLM", "MambaForCausalLM")).unwrap();
    let error = load_model(folder.path(), &Device::flex()).unwrap_err().to_string();
    assert!(
        error.contains("architecture `MambaForCausalLM` is not known here (known: LlamaForCausalLM, Mistral"),
        "{error}"
    );
    std::fs::write(&path, config.replace("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"")).unwrap();
    let error = load_model(folder.path(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("`hidden_act` = \"gelu\" is not known here"), "{error}");
}
