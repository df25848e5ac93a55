//! What the files of a model hold each weight as: their heads are read, no value is.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_engine::checkpoint::gguf::{self, GgufFile};
use fthost_engine::checkpoint::safetensors::TensorFiles;
use fthost_engine::estimate::Held;
use fthost_engine::quant::bitsandbytes;

use crate::error::Result;

/// Llama's linears as llama.cpp names them, by Hugging Face's.
const GGUF_LINEARS: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// By Hugging Face's names; what is missing is floats that are read into memory.
///
/// # Errors
/// Files that can't be read, or are damaged.
pub(crate) fn held(folder: &Path) -> Result<BTreeMap<String, Held>> {
    if folder.join(gguf::WEIGHTS).is_file() {
        return in_blocks(&GgufFile::open(&folder.join(gguf::WEIGHTS))?);
    }
    let files = TensorFiles::open_model(folder)?;
    let bytes_of = |name: &str| files.bytes(name).map(|it| it.0.len() as u64);
    let all = files.list();
    let packed = |name: &str| -> Result<u64> {
        let parts = all
            .iter()
            .filter(|it| it.0.strip_prefix(name).is_some_and(|it| it.is_empty() || it.starts_with('.')));
        Ok(parts.map(|it| bytes_of(&it.0)).sum::<fthost_engine::Result<u64>>()?)
    };
    let as_held = |(name, _, stored): (String, Vec<usize>, String)| {
        let held = match stored.as_str() {
            "F32" => Held::F32,
            "BF16" => Held::Bf16,
            "F16" => Held::Floats,
            _ => Held::Packed(packed(&name)?),
        };
        Ok((name, held))
    };
    bitsandbytes::list(&files)?.into_iter().map(as_held).collect()
}

/// What each weight is held as, by its name.
pub(super) fn stored(held: &BTreeMap<String, Held>) -> impl Fn(&str) -> Held + '_ {
    |name| held.get(name).copied().unwrap_or(Held::Floats)
}

/// Linears whose values are in ggml's blocks; the rows of queries and keys are put in another order, in memory of their own.
fn in_blocks(file: &GgufFile) -> Result<BTreeMap<String, Held>> {
    let mut found = BTreeMap::new();
    for tensor in file.tensors() {
        let named = tensor.name.strip_prefix("blk.").and_then(|it| it.strip_suffix(".weight"));
        let Some((layer, last)) = named.and_then(|it| it.split_once('.')) else { continue };
        let (Some(linear), Some(blocks)) =
            (GGUF_LINEARS.iter().find(|it| it.1 == last), file.blocks(tensor)?)
        else {
            continue;
        };
        let bytes = blocks.bytes() as u64;
        let is_reordered = ["attn_q", "attn_k"].contains(&last);
        let held = if is_reordered { Held::Packed(bytes) } else { Held::Blocks(bytes) };
        found.insert(format!("model.layers.{layer}.{}.weight", linear.0), held);
    }
    Ok(found)
}
