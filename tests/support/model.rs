//! A tiny random model, for the tests of the program and of `fthost-run`.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

const VOCAB: usize = 420;
const HIDDEN: usize = 16;
const WIDE: usize = 24;

/// A one-block Llama with weights from a fixed recurrence, and the golden tokenizer.
pub fn write_model(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": WIDE, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "rope_theta": 10000.0,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"eos_token": "</s>"}"#).unwrap();
    std::fs::copy(golden_tokenizer(), folder.join("tokenizer.json")).unwrap();
    let mut shapes =
        vec![("model.embed_tokens".to_string(), vec![VOCAB, HIDDEN]), ("model.norm".into(), vec![HIDDEN])];
    for (name, shape) in [
        ("input_layernorm", vec![HIDDEN]),
        ("post_attention_layernorm", vec![HIDDEN]),
        ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
        ("self_attn.k_proj", vec![HIDDEN / 2, HIDDEN]),
        ("self_attn.v_proj", vec![HIDDEN / 2, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
        ("mlp.gate_proj", vec![WIDE, HIDDEN]),
        ("mlp.up_proj", vec![WIDE, HIDDEN]),
        ("mlp.down_proj", vec![HIDDEN, WIDE]),
    ] {
        shapes.push((format!("model.layers.0.{name}"), shape));
    }
    let mut state = 1u32;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = (0..shape.iter().product::<usize>()).flat_map(|_| draw().to_le_bytes()).collect();
            (format!("{name}.weight"), shape, values)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, values)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), values).unwrap())
    });
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The repository is the nearest folder above the crate under test that holds goldens.
fn golden_tokenizer() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let inside = |it: &Path| it.join("tests/golden/chat_template/tokenizer.json");
    let found = crates.ancestors().map(inside).find(|it| it.exists());
    found.expect("the goldens of chat templates are there")
}

/// Rows of a sum each, of several lengths, as JSON lines.
pub fn sums(count: usize) -> String {
    let row = |i: usize| {
        let terms = vec!["1"; i % 5 + 1].join(" + ");
        let prompt = format!("What is {i} + {terms}?");
        json!({"prompt": prompt, "completion": format!(" It is {}.", i + i % 5 + 1)}).to_string()
    };
    (0..count).map(row).collect::<Vec<_>>().join("\n")
}
