//! Forward passes without a graph: whole sequences end to end, or one token a row of the cache.

use std::ops::Range;

use burn::tensor::Tensor;
use fthost_kernels::attention;

use super::cache::KvCache;
use crate::models::llama::ids_tensor;
use crate::models::{BlockContext, CausalLm};
use crate::nn::precision::cast;

/// What the blocks share: `positions` of each sequence, end to end.
fn context(model: &CausalLm, positions: &[Range<usize>]) -> BlockContext {
    let (cos, sin) = model.rope.tables_by_sequence(positions, &model.device());
    let dtype = model.compute_dtype.into();
    let mut cu_seqlens = vec![0];
    cu_seqlens.extend(positions.iter().scan(0, |end, it| {
        *end += it.len();
        Some(*end)
    }));
    BlockContext { cos: cast(cos, dtype), sin: cast(sin, dtype), cu_seqlens: cu_seqlens.into() }
}

/// The blocks over whole sequences, end to end: what they leave, `[T, D]`, before the final norm.
///
/// `keep(layer, bounds, keys, values)` is told the keys and values of a layer, `[T, kv_heads, head_dim]`.
pub(super) fn whole(
    model: &CausalLm,
    sequences: &[&[u32]],
    mut keep: impl FnMut(usize, &[usize], &Tensor<3>, &Tensor<3>),
) -> Tensor<2> {
    let positions: Vec<Range<usize>> = sequences.iter().map(|it| 0..it.len()).collect();
    let context = context(model, &positions);
    let mut x = model.embed(&sequences.concat());
    for (layer, block) in model.blocks.iter().enumerate() {
        let (q, k, v) = block.qkv(x.clone(), context.cos.clone(), context.sin.clone());
        keep(layer, &context.cu_seqlens, &k, &v);
        let mixed = attention(q, k, v, &block.attention_config(&context));
        x = block.finish(x, mixed.flatten(1, 2));
    }
    x
}

/// Reads prompts into the cache, each into all its rows: the logits after each prompt, `[prompts, V]`.
pub(super) fn prefill(
    model: &CausalLm,
    cache: &mut KvCache,
    prompts: &[&[u32]],
    rows: &[Vec<usize>],
) -> Tensor<2> {
    let x = whole(model, prompts, |layer, bounds, keys, values| {
        for (rows, bounds) in rows.iter().zip(bounds.windows(2)) {
            let part = |it: &Tensor<3>| it.clone().narrow(0, bounds[0], bounds[1] - bounds[0]);
            for row in rows {
                cache.write(layer, *row, part(keys), part(values));
            }
        }
    });
    let last = prompts.iter().scan(0, |end, it| {
        *end += it.len() as u32;
        Some(*end - 1)
    });
    let last = ids_tensor(&last.collect::<Vec<_>>(), &model.device());
    // Only what is asked for goes through the head, by far the largest product.
    model.logits(model.final_norm(x.select(0, last)))
}

/// One further token a row: the logits after it, `[rows, V]`.
pub(super) fn step(model: &CausalLm, cache: &mut KvCache, token_ids: &[u32]) -> Tensor<2> {
    cache.extend();
    let positions: Vec<Range<usize>> = cache.lengths().iter().map(|it| it - 1..*it).collect();
    let context = context(model, &positions);
    let bias = cache.bias();
    let mut x = model.embed(token_ids);
    for (layer, block) in model.blocks.iter().enumerate() {
        let (q, k, v) = block.qkv(x.clone(), context.cos.clone(), context.sin.clone());
        cache.append(layer, k, v);
        x = block.finish(x, cache.attend(layer, q, bias.as_ref()).flatten(1, 2));
    }
    model.logits(model.final_norm(x))
}
