//! Causal attention with grouped queries over sequences that lie end to end.
//!
//! Scores exist for one sequence at a time: nothing is computed, or masked out, between two sequences.

use burn::tensor::{Bool, Tensor, activation};

/// Causal attention inside each sequence.
///
/// # Shapes
/// - `q`: `[T, heads, head_dim]`; `k`, `v`: `[T, kv_heads, head_dim]`, `heads` a multiple of `kv_heads`
/// - `cu_seqlens`: start of each sequence and, last, `T`
/// - result: `[T, heads, head_dim]`
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, cu_seqlens: &[usize], scale: f64) -> Tensor<3> {
    attention_reference(q, k, v, cu_seqlens, scale)
}

/// [`attention`] in plain tensor operations.
pub fn attention_reference(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    cu_seqlens: &[usize],
    scale: f64,
) -> Tensor<3> {
    let outputs = cu_seqlens
        .windows(2)
        .filter(|bounds| bounds[1] > bounds[0])
        .map(|bounds| {
            let (start, length) = (bounds[0], bounds[1] - bounds[0]);
            let part = |it: &Tensor<3>| it.clone().narrow(0, start, length);
            one_sequence(part(&q), part(&k), part(&v), scale)
        })
        .collect();
    Tensor::cat(outputs, 0)
}

/// Causal attention of one sequence, `[len, heads, head_dim]`.
fn one_sequence(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, scale: f64) -> Tensor<3> {
    let [length, heads, head_dim] = q.dims();
    let kv_heads = k.dims()[1];
    let group = heads / kv_heads;
    // Query heads of one group share a key head: they stand on an axis of their own, `[kv, group, len, head_dim]`.
    let q = q.reshape([length, kv_heads, group, head_dim]).permute([1, 2, 0, 3]);
    let shared = |it: Tensor<3>| {
        it.permute([1, 0, 2]).unsqueeze_dim::<4>(1).expand([kv_heads, group, length, head_dim])
    };
    let scores = q.mul_scalar(scale).matmul(shared(k).swap_dims(2, 3));
    // `tril_mask` is true where a value would be dropped from the lower triangle: the future.
    let future = Tensor::<2, Bool>::tril_mask([length, length], 0, &scores.device());
    let scores = scores.mask_fill(future.unsqueeze::<4>(), f32::NEG_INFINITY);
    let mixed = activation::softmax(scores, 3).matmul(shared(v));
    mixed.permute([2, 0, 1, 3]).reshape([length, heads, head_dim])
}
