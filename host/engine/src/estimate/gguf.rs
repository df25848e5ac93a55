//! The shape of a GGUF file's model, from its metadata: enough to estimate with, not to compute with.

use fthost_kernels::Activation;

use crate::checkpoint::gguf::GgufFile;
use crate::models::DecoderConfig;
use crate::models::decoder::{Biases, LLAMA_NAMES, LayerConfig, Mlp, NormKind, QkNorm};
use crate::nn::{Rope, RopeScaling};

/// That of a file that [`crate::checkpoint::gguf::check`] knows: a Llama, the one architecture that is known of GGUF. What
/// decides no memory (norms' epsilon, scores' factor, rotary scaling) is left at something. `None` where a size is missing.
pub fn gguf_shape(file: &GgufFile) -> Option<DecoderConfig> {
    let size = |key: &str| file.whole(&format!("llama.{key}")).and_then(|it| usize::try_from(it).ok());
    let (hidden_size, heads) = (size("embedding_length")?, size("attention.head_count")?);
    let biased = |name: &str| file.tensor(&format!("blk.0.{name}.bias")).is_some();
    let (of_attention, context) = (biased("attn_output"), size("context_length")?);
    let head_dim = size("attention.key_length").unwrap_or(hidden_size / heads.max(1));
    let rope = Rope {
        theta: 10_000.0,
        head_dim: size("rope.dimension_count").unwrap_or(head_dim),
        max_position_embeddings: context,
        scaling: RopeScaling::Default,
    };
    Some(DecoderConfig {
        vocab_size: *file.tensor("token_embd.weight")?.shape.first()?,
        hidden_size,
        intermediate_size: size("feed_forward_length")?,
        num_attention_heads: heads,
        num_key_value_heads: size("attention.head_count_kv").unwrap_or(heads),
        head_dim,
        max_position_embeddings: context,
        tie_word_embeddings: file.tensor("output.weight").is_none(),
        initializer_range: 0.02,
        norm: NormKind::Rms,
        norm_eps: 1e-5,
        qk_norm: QkNorm::Off,
        biases: Biases { qkv: of_attention, output: of_attention, mlp: biased("ffn_down") },
        mlp: Mlp::Gated(Activation::Silu),
        mixture: None,
        attention_scale: 1.0,
        attn_logit_softcapping: None,
        final_logit_softcapping: None,
        embedding_scale: None,
        ropes: vec![rope],
        layers: vec![LayerConfig { rope: Some(0), ..LayerConfig::default() }; size("block_count")?],
        names: &LLAMA_NAMES,
    })
}
