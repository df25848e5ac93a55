//! Every weight of a model by both of its names: Hugging Face's, which a family's [`Names`] have, and llama.cpp's, which
//! are the same for all families. What the converter of llama.cpp changes of a weight stands here, too.

use crate::error::Result;
use crate::models::DecoderConfig;
use crate::models::decoder::{Mlp, Names, NormKind, QkNorm};

/// One weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Hugging Face's name.
    pub name: String,
    /// llama.cpp's.
    pub source: String,
    /// As the model has it: a linear is `[out, in]`.
    pub shape: Vec<usize>,
    /// Of a mixture: which expert of how many stand in one tensor.
    pub expert: Option<[usize; 2]>,
    /// What a file holds in its place.
    pub change: Change,
}

/// What `convert_hf_to_gguf.py` changes of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// llama.cpp rotates neighbouring pairs for some architectures, Hugging Face the two halves of a head: rows of queries
    /// and keys are reordered (`LlamaModel.permute`).
    Reordered {
        /// Heads of the weight.
        heads: usize,
        /// Rows of all heads.
        rows: usize,
    },
    /// Gemma's norms multiply by one plus the weight: the sum is stored.
    PlusOne,
}

impl Slot {
    /// Its tensor's shape in a file, that of all experts together.
    pub fn stored_shape(&self) -> Vec<usize> {
        self.expert.iter().map(|it| it[1]).chain(self.shape.iter().copied()).collect()
    }
}

/// Gives every weight of a model to `visit`, in the model's order, until it fails. `reordered` says whether the architecture
/// rotates neighbouring pairs.
///
/// # Errors
/// Those of `visit`.
pub(super) fn each(
    config: &DecoderConfig,
    reordered: bool,
    visit: &mut dyn FnMut(Slot) -> Result<()>,
) -> Result<()> {
    let (names, hidden) = (config.names, config.hidden_size);
    let mut slots = Slots { config, reordered, visit };
    let table = [config.vocab_size, hidden];
    slots.plain(names.embedding.to_string(), "token_embd.weight".to_string(), &table)?;
    if let Some(positions) = names.positions {
        let shape = [config.max_position_embeddings, hidden];
        slots.plain(positions.to_string(), "position_embd.weight".to_string(), &shape)?;
    }
    for layer in 0..config.num_hidden_layers() {
        slots.block(layer)?;
    }
    slots.norm(names.final_norm, "output_norm", hidden)?;
    if !config.tie_word_embeddings {
        slots.plain(names.head.to_string(), "output.weight".to_string(), &table)?;
    }
    Ok(())
}

struct Slots<'a> {
    config: &'a DecoderConfig,
    reordered: bool,
    visit: &'a mut dyn FnMut(Slot) -> Result<()>,
}

impl Slots<'_> {
    fn plain(&mut self, name: String, source: String, shape: &[usize]) -> Result<()> {
        (self.visit)(Slot { name, source, shape: shape.to_vec(), expert: None, change: Change::None })
    }

    fn norm(&mut self, name: &str, source: &str, width: usize) -> Result<()> {
        let change = if self.config.norm == NormKind::RmsPlusOne { Change::PlusOne } else { Change::None };
        let weight = (format!("{name}.weight"), format!("{source}.weight"));
        (self.visit)(Slot { name: weight.0, source: weight.1, shape: vec![width], expert: None, change })?;
        if self.config.norm == NormKind::Layer {
            self.plain(format!("{name}.bias"), format!("{source}.bias"), &[width])?;
        }
        Ok(())
    }

    /// A linear of `[out, in]`, of which `heads` may be reordered.
    fn linear(
        &mut self,
        [name, source]: [&str; 2],
        shape: [usize; 2],
        bias: bool,
        heads: Option<usize>,
    ) -> Result<()> {
        let change = heads
            .filter(|_| self.reordered)
            .map_or(Change::None, |heads| Change::Reordered { heads, rows: shape[0] });
        for (part, shape) in [("weight", &shape[..]), ("bias", &shape[..1])] {
            if part == "weight" || bias {
                let (name, source) = (format!("{name}.{part}"), format!("{source}.{part}"));
                (self.visit)(Slot { name, source, shape: shape.to_vec(), expert: None, change })?;
            }
        }
        Ok(())
    }

    fn block(&mut self, layer: usize) -> Result<()> {
        let (config, names) = (self.config, self.config.names);
        let (to, from) = (format!("{}.{layer}", names.blocks), format!("blk.{layer}"));
        let path = |name: &str, source: &str| [format!("{to}.{name}"), format!("{from}.{source}")];
        let (hidden, biases) = (config.hidden_size, config.biases);
        for (name, source) in norms(names) {
            if let Some(name) = name {
                let [name, source] = path(name, source);
                self.norm(&name, &source, hidden)?;
            }
        }
        let [queries, keys, values] = config.qkv_widths();
        let heads = [config.num_attention_heads, config.num_key_value_heads];
        let qk_widths = match config.qk_norm {
            QkNorm::Off => None,
            QkNorm::Heads => Some([config.head_dim; 2]),
            QkNorm::Whole => Some([queries, keys]),
        };
        for (index, width) in qk_widths.into_iter().flatten().enumerate() {
            let [name, source] = path(names.qk_norms[index], ["attn_q_norm", "attn_k_norm"][index]);
            self.norm(&name, &source, width)?;
        }
        let each =
            [("attn_q", queries, Some(heads[0])), ("attn_k", keys, Some(heads[1])), ("attn_v", values, None)];
        let whole = [("attn_qkv", queries + keys + values, None)];
        let linears = if names.qkv.len() == each.len() { &each[..] } else { &whole[..] };
        for (name, (source, width, heads)) in names.qkv.iter().zip(linears) {
            let [name, source] = path(name, source);
            self.linear([&name, &source], [*width, hidden], biases.qkv, *heads)?;
        }
        let [name, source] = path(names.output, "attn_output");
        self.linear([&name, &source], [hidden, queries], biases.output, None)?;
        self.feed_forward(layer, &to, &from)
    }

    fn feed_forward(&mut self, layer: usize, to: &str, from: &str) -> Result<()> {
        let (config, names) = (self.config, self.config.names);
        let (hidden, wide, bias) = (config.hidden_size, config.intermediate_size, config.biases.mlp);
        if config.layers[layer].mixes {
            return self.mixture(to, from);
        }
        let gates = if matches!(config.mlp, Mlp::Gated(_)) { 2 } else { 1 };
        let ups: &[&str] = if names.up.len() == 2 { &["ffn_gate", "ffn_up"] } else { &["ffn_up"] };
        for (name, source) in names.up.iter().zip(ups) {
            let (name, source) = (format!("{to}.{name}"), format!("{from}.{source}"));
            self.linear([&name, &source], [gates * wide / names.up.len(), hidden], bias, None)?;
        }
        let (name, source) = (format!("{to}.{}", names.down), format!("{from}.ffn_down"));
        self.linear([&name, &source], [hidden, wide], bias, None)
    }

    /// A router, and the experts' linears, each kind of all experts in one tensor.
    fn mixture(&mut self, to: &str, from: &str) -> Result<()> {
        let (Some(mixture), Some(names)) = (self.config.mixture, self.config.names.experts) else {
            return Ok(());
        };
        let (hidden, width, count) =
            (self.config.hidden_size, mixture.intermediate_size, mixture.num_experts);
        let router = format!("{to}.{}.weight", names.router);
        self.plain(router, format!("{from}.ffn_gate_inp.weight"), &[count, hidden])?;
        for index in 0..count {
            for (name, source, shape) in [
                (names.up[0], "ffn_gate_exps", [width, hidden]),
                (names.up[1], "ffn_up_exps", [width, hidden]),
                (names.down, "ffn_down_exps", [hidden, width]),
            ] {
                (self.visit)(Slot {
                    name: format!("{to}.{}.{index}.{name}.weight", names.list),
                    source: format!("{from}.{source}.weight"),
                    shape: shape.to_vec(),
                    expert: Some([index, count]),
                    change: Change::None,
                })?;
            }
        }
        Ok(())
    }
}

/// Norms of the stream in a block, with llama.cpp's names.
fn norms(names: &Names) -> [(Option<&'static str>, &'static str); 4] {
    [
        (names.attention_norm, "attn_norm"),
        (names.mlp_norm, "ffn_norm"),
        (names.post_attention_norm, "post_attention_norm"),
        (names.post_mlp_norm, "post_ffw_norm"),
    ]
}
