//! What a decoder's blocks compute, whatever family it is of: a family's own file says it in these words.

use fthost_kernels::Activation;

use crate::nn::{Rope, RopeScaling};

/// A decoder-only transformer as its `config.json` and its family say.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Heads of keys and values.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens of a sequence that the model was made for, before rotary scaling.
    pub max_position_embeddings: usize,
    /// The head shares the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of freshly drawn weights.
    pub initializer_range: f64,
    /// Every norm of the trunk; those of queries and keys where there are any.
    pub norm: NormKind,
    /// Added to the mean square, or to the variance.
    pub norm_eps: f64,
    /// What queries and keys are normalised over, before they are rotated.
    pub qk_norm: QkNorm,
    /// Which linears have a bias.
    pub biases: Biases,
    /// Between the linears of the feed-forward layer.
    pub mlp: Mlp,
    /// Experts in place of the feed-forward layer, in the layers that mix.
    pub mixture: Option<MixtureConfig>,
    /// Factor of the attention's scores.
    pub attention_scale: f64,
    /// Bound of the attention's scores: `cap tanh(score / cap)`.
    pub attn_logit_softcapping: Option<f64>,
    /// Bound of the logits.
    pub final_logit_softcapping: Option<f64>,
    /// Factor of the embedding.
    pub embedding_scale: Option<f64>,
    /// Rotary embeddings, of which each layer takes one.
    pub ropes: Vec<Rope>,
    /// From input to output.
    pub layers: Vec<LayerConfig>,
    /// Names of weights.
    pub names: &'static Names,
}

/// What may differ from block to block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerConfig {
    /// Tokens that a token sees, itself among them; all before it where `None`.
    pub window: Option<usize>,
    /// Position in [`DecoderConfig::ropes`]; positions are not rotated where `None`.
    pub rope: Option<usize>,
    /// Whether [`DecoderConfig::mixture`] stands in place of the feed-forward layer.
    pub mixes: bool,
}

/// A mixture of experts; names as in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixtureConfig {
    /// Experts of a layer.
    pub num_experts: usize,
    /// Experts that a token is sent to.
    pub num_experts_per_tok: usize,
    /// Width of an expert.
    pub intermediate_size: usize,
    /// Whether the shares of a token's experts are made to sum to 1.
    pub norm_topk_prob: bool,
}

/// A norm's formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// By the root mean square, times the weight.
    Rms,
    /// By the root mean square, times one plus the weight, as Gemma's.
    RmsPlusOne,
    /// By mean and variance, with weight and bias.
    Layer,
}

/// Norms of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    Off,
    /// Each head on its own.
    Heads,
    /// All heads of a token together.
    Whole,
}

/// Which linears have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    /// Those of queries, keys and values.
    pub qkv: bool,
    /// That behind the attention.
    pub output: bool,
    /// Those of the feed-forward layer.
    pub mlp: bool,
}

/// A feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// `down(act(gate(x)) * up(x))`.
    Gated(Activation),
    /// `down(gelu(up(x)))`.
    Gelu,
}

/// What a family calls its weights. A block has the norms that have a name.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    /// The class with a language model head.
    pub causal_lm: &'static str,
    /// The class with a scalar head, for reward models.
    pub classifier: &'static str,
    /// `[V, D]`.
    pub embedding: &'static str,
    /// `[max_position_embeddings, D]`, where positions are learned.
    pub positions: Option<&'static str>,
    /// The blocks' list: a block is `<blocks>.<index>`.
    pub blocks: &'static str,
    /// After the last block, without `.weight`.
    pub final_norm: &'static str,
    /// `[V, D]`, unless tied.
    pub head: &'static str,
    /// Before the attention.
    pub attention_norm: Option<&'static str>,
    /// Queries, keys and values: three linears, or one of all.
    pub qkv: &'static [&'static str],
    /// Norms of queries and keys.
    pub qk_norms: [&'static str; 2],
    /// Behind the attention.
    pub output: &'static str,
    /// On what the attention adds to the stream.
    pub post_attention_norm: Option<&'static str>,
    /// Before the feed-forward layer.
    pub mlp_norm: Option<&'static str>,
    /// Gate and up: two linears, or one of both; or up alone.
    pub up: &'static [&'static str],
    /// To the stream's width.
    pub down: &'static str,
    /// In place of the feed-forward layer, where it mixes.
    pub experts: Option<ExpertNames>,
    /// On what the feed-forward layer adds to the stream.
    pub post_mlp_norm: Option<&'static str>,
    /// Linear weights are stored `[in, out]`.
    pub transposed: bool,
}

/// What a family calls the weights of a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertNames {
    /// The router.
    pub router: &'static str,
    /// The experts' list: an expert is `<list>.<index>`.
    pub list: &'static str,
    /// An expert's gate and up.
    pub up: [&'static str; 2],
    /// To the stream's width.
    pub down: &'static str,
}

/// Llama's names, which most families share.
pub const LLAMA_NAMES: Names = Names {
    causal_lm: "LlamaForCausalLM",
    classifier: "LlamaForSequenceClassification",
    embedding: "model.embed_tokens.weight",
    positions: None,
    blocks: "model.layers",
    final_norm: "model.norm",
    head: "lm_head.weight",
    attention_norm: Some("input_layernorm"),
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    qk_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    output: "self_attn.o_proj",
    post_attention_norm: None,
    mlp_norm: Some("post_attention_layernorm"),
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    experts: None,
    post_mlp_norm: None,
    transposed: false,
};

impl Names {
    /// Whether the matrix `name` is stored `[in, out]`: a linear of a block, where the family does so.
    pub fn is_transposed(&self, name: &str) -> bool {
        self.transposed && name.starts_with(self.blocks) && name.ends_with(".weight")
    }
}

impl DecoderConfig {
    /// Blocks.
    pub fn num_hidden_layers(&self) -> usize {
        self.layers.len()
    }

    /// Tokens of a sequence at most: `max_position_embeddings`, times the factor where rotary scaling stretches it.
    ///
    /// `linear` and `dynamic` leave `max_position_embeddings` at what the model was first trained on; the others do not.
    pub fn context_length(&self) -> usize {
        let factor = self.ropes.iter().map(|it| match it.scaling {
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => factor,
            _ => 1.0,
        });
        (self.max_position_embeddings as f64 * factor.fold(1.0, f64::max)) as usize
    }

    /// The length above which all positions of a sequence are rotated otherwise than up to it, where there is one.
    pub fn rope_changes_after(&self) -> Option<usize> {
        self.ropes.iter().find_map(|it| match it.scaling {
            RopeScaling::Longrope { original_max_position_embeddings, .. } => {
                Some(original_max_position_embeddings)
            }
            _ => None,
        })
    }

    /// Widths of queries, keys and values.
    pub fn qkv_widths(&self) -> [usize; 3] {
        let keys = self.num_key_value_heads * self.head_dim;
        [self.num_attention_heads * self.head_dim, keys, keys]
    }

    /// What of the configuration is impossible, with its key.
    pub fn problems(&self) -> Vec<String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers()),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let mut problems: Vec<String> =
            sizes.iter().filter(|it| it.1 == 0).map(|it| format!("`{}` must be > 0", it.0)).collect();
        if !problems.is_empty() {
            return problems;
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            problems.push(format!(
                "`num_attention_heads` must be a multiple of `num_key_value_heads`, got {} and {}",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            problems.push(format!("`head_dim` must be even and > 0, got {}", self.head_dim));
        }
        if let Some(mixture) = self.mixture {
            let (all, some) = (mixture.num_experts, mixture.num_experts_per_tok);
            if some == 0 || some > all {
                problems.push(format!("`num_experts_per_tok` must be from 1 to {all}, got {some}"));
            }
            if mixture.intermediate_size == 0 {
                problems.push("`moe_intermediate_size` must be > 0".to_string());
            }
        }
        if self.layers.iter().any(|it| it.window == Some(0)) {
            problems.push("`sliding_window` must be > 0, got 0".to_string());
        }
        for (key, cap) in [
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
        ] {
            problems.extend(cap.filter(|it| *it <= 0.0).map(|it| format!("`{key}` must be > 0, got {it}")));
        }
        problems
    }
}
