//! What attention allocates, counted by the allocator: a program of its own, because the count is global.

#[path = "../../../tests/support/counting.rs"]
mod counting;

use burn::tensor::{Device, Distribution, Tensor};
use fthost_kernels::{AttentionConfig, qkv_attention};

use counting::{Counting, live, restart_peak};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HEAD_DIM: usize = 64;

/// Bytes at the peak of forward and backward of one head and `tokens` tokens, beside the input and the tables.
fn peak(tokens: usize, window: Option<usize>) -> isize {
    let random = |shape| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex());
    let qkv = random([tokens, 3 * HEAD_DIM]).autodiff().require_grad();
    let table = || random([tokens, HEAD_DIM / 2]).autodiff();
    let tables = Some((table(), table()));
    let (cu_seqlens, parents) = ([0, tokens].into(), [].into());
    let config = AttentionConfig { cu_seqlens, parents, scale: 0.125, window, softcap: None };
    let before = live();
    restart_peak();
    let graph = qkv_attention(qkv, tables, 1, 1, &config).sum().backward();
    drop(graph);
    counting::peak() - before
}

/// An `N x N` matrix of 4096 tokens would be 64 MiB, and four times the tokens would cost sixteen times the bytes.
#[test]
fn memory_grows_with_tokens_and_not_with_their_square() {
    // Thread pool and matrix product keep what they allocate at first.
    peak(1024, None);
    for window in [None, Some(512)] {
        let (short, long) = (peak(1024, window), peak(4096, window));
        assert!(long < 24 << 20, "{long} bytes");
        assert!(long < 5 * short, "{short} bytes of 1024 tokens, {long} of 4096");
    }
}
