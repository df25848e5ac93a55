use burn::tensor::{Device, Tensor};

use super::*;
use crate::check::{compare, random};

/// Heads, heads of keys, head_dim, bounds, window.
type Case = (usize, usize, usize, &'static [usize], Option<usize>);

const CASES: [Case; 9] = [
    (1, 1, 2, &[0, 1], None),
    (2, 2, 16, &[0, 5, 5, 6, 40], None),
    (3, 1, 10, &[0, 33, 70, 71], None),
    (9, 3, 64, &[0, 17, 118], None),
    (3, 1, 32, &[0, 300], None),
    (2, 2, 24, &[0, 300, 365], Some(17)),
    (3, 1, 16, &[0, 300, 310], Some(280)),
    (4, 2, 16, &[0, 3, 67], Some(1)),
    (2, 1, 256, &[0, 0, 130], Some(1000)),
];

fn config(bounds: &[usize], head_dim: usize, window: Option<usize>) -> AttentionConfig {
    AttentionConfig { parents: [].into(), ..config_of(bounds, &[], head_dim, window) }
}

fn config_of(
    bounds: &[usize],
    parents: &[Option<usize>],
    head_dim: usize,
    window: Option<usize>,
) -> AttentionConfig {
    let scale = (head_dim as f64).powf(-0.5);
    AttentionConfig { cu_seqlens: bounds.into(), parents: parents.into(), scale, window }
}

/// Sums of at most 300 terms in f32, in two orders, behind an exponential: 2e-5 of the largest value.
#[test]
fn values_and_gradients_equal_the_reference() {
    for (heads, kv_heads, head_dim, bounds, window) in CASES {
        let (tokens, config) = (bounds[bounds.len() - 1], config(bounds, head_dim, window));
        type Attention = fn(Tensor<3>, Tensor<3>, Tensor<3>, &AttentionConfig) -> Tensor<3>;
        let run = |it: &[crate::check::Value], attention: Attention| {
            let part = |index: usize, heads: usize| it[index].matrix().reshape([tokens, heads, head_dim]);
            let mixed = attention(part(0, heads), part(1, kv_heads), part(2, kv_heads), &config);
            mixed.reshape([tokens, heads * head_dim])
        };
        let inputs = [heads, kv_heads, kv_heads].map(|it| random([tokens, it * head_dim], it as u64).into());
        compare(&inputs, |it| run(it, attention), |it| run(it, attention_reference), 2e-5);
    }
}

/// As above, with a rotation on both ways.
#[test]
fn merged_values_and_gradients_equal_the_reference() {
    for (heads, kv_heads, head_dim, bounds, window) in CASES {
        let (tokens, config) = (bounds[bounds.len() - 1], config(bounds, head_dim, window));
        let angles = random([tokens, head_dim / 2], 5) * 2.0;
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        type Attention = fn(Tensor<2>, Tensor<2>, Tensor<2>, usize, usize, &AttentionConfig) -> Tensor<2>;
        let run = |it: &[crate::check::Value], attention: Attention| {
            attention(it[0].matrix(), cos.clone(), sin.clone(), heads, kv_heads, &config)
        };
        let inputs = [random([tokens, (heads + 2 * kv_heads) * head_dim], 1).into()];
        compare(&inputs, |it| run(it, qkv_attention), |it| run(it, qkv_attention_reference), 2e-5);
    }
}

/// Bounds and parents: one that lies right before its children or does not, alone or among others, longer and shorter
/// than a block of keys, empty ones on both sides.
const SHARED: [(&[usize], &[Option<usize>]); 5] = [
    (&[0, 5, 9], &[None, Some(0)]),
    (&[0, 40, 47, 117, 118], &[None, Some(0), Some(0), Some(0)]),
    (&[0, 300, 390, 400, 440, 445, 460], &[None, Some(0), Some(0), None, Some(3), Some(0)]),
    (&[0, 0, 7, 20, 20, 33], &[None, Some(0), None, Some(2), Some(2)]),
    (&[0, 20, 30, 64, 70, 71], &[None, None, Some(1), Some(0), Some(1)]),
];

/// As above.
#[test]
fn values_and_gradients_of_shared_prefixes_equal_the_reference() {
    for (bounds, parents) in SHARED {
        for (heads, kv_heads, head_dim) in [(1, 1, 4), (6, 2, 16), (3, 3, 10)] {
            for window in [None, Some(1), Some(9), Some(290), Some(1000)] {
                let tokens = bounds[bounds.len() - 1];
                let config = config_of(bounds, parents, head_dim, window);
                let angles = random([tokens, head_dim / 2], 5) * 2.0;
                let (cos, sin) = (angles.clone().cos(), angles.sin());
                type Attention =
                    fn(Tensor<2>, Tensor<2>, Tensor<2>, usize, usize, &AttentionConfig) -> Tensor<2>;
                let run = |it: &[crate::check::Value], attention: Attention| {
                    attention(it[0].matrix(), cos.clone(), sin.clone(), heads, kv_heads, &config)
                };
                let inputs = [random([tokens, (heads + 2 * kv_heads) * head_dim], 1).into()];
                compare(&inputs, |it| run(it, qkv_attention), |it| run(it, qkv_attention_reference), 2e-5);
            }
        }
    }
}

/// Tokens of every sequence that nothing goes on from, its parent's before its own; and the bounds they have end to end.
fn unshared(bounds: &[usize], parents: &[Option<usize>]) -> (Vec<usize>, Vec<usize>) {
    let (mut places, mut ends) = (Vec::new(), vec![0]);
    for (index, parent) in parents.iter().enumerate().filter(|it| !parents.contains(&Some(it.0))) {
        places.extend(parent.map_or(0..0, |it| bounds[it]..bounds[it + 1]));
        places.extend(bounds[index]..bounds[index + 1]);
        ends.push(places.len());
    }
    (places, ends)
}

/// A parent once, or before each of its children: the same outputs of the children, and a gradient that is the sum over
/// the copies. Sums in two orders: 2e-5, as above.
#[test]
fn a_shared_prefix_is_a_prefix_of_each() {
    let (heads, kv_heads, head_dim) = (6, 2, 16);
    for (bounds, parents) in SHARED {
        for window in [None, Some(9), Some(290)] {
            let (places, ends) = unshared(bounds, parents);
            let tokens = bounds[bounds.len() - 1];
            let shared = config_of(bounds, parents, head_dim, window);
            let apart = config(&ends, head_dim, window);
            let copied: Tensor<1, burn::tensor::Int> = Tensor::from_ints(
                places.iter().map(|it| *it as i32).collect::<Vec<_>>().as_slice(),
                &Device::flex(),
            );
            // Both ways as the copies have it: `compare` weighs rows by their place.
            let angles = random([tokens, head_dim / 2], 5) * 2.0;
            let table = |it: Tensor<2>| it.select(0, copied.clone());
            let (cos, sin) = (angles.clone().cos(), angles.sin());
            let ours = |it: &[crate::check::Value]| {
                let (cos, sin) = (cos.clone(), sin.clone());
                qkv_attention(it[0].matrix(), cos, sin, heads, kv_heads, &shared).select(0, copied.clone())
            };
            let copies = |it: &[crate::check::Value]| {
                let (cos, sin) = (table(cos.clone()), table(sin.clone()));
                qkv_attention(it[0].matrix().select(0, copied.clone()), cos, sin, heads, kv_heads, &apart)
            };
            let inputs = [random([tokens, (heads + 2 * kv_heads) * head_dim], 1).into()];
            compare(&inputs, ours, copies, 2e-5);
        }
    }
}

#[test]
fn parents_that_do_not_come_before_are_refused() {
    for parents in [[None, Some(1)], [Some(0), None], [Some(1), None]] {
        let config = config_of(&[0, 2, 4], &parents, 4, None);
        assert!(std::panic::catch_unwind(|| config.check(4, 1, 1)).is_err(), "{parents:?}");
    }
    let grandchild = config_of(&[0, 2, 4, 5], &[None, Some(0), Some(1)], 4, None);
    assert!(std::panic::catch_unwind(|| grandchild.check(5, 1, 1)).is_err());
}

/// Output and gradient of `qkv` in a pool of `threads` threads.
fn run_on(threads: usize, config: &AttentionConfig) -> [Vec<f32>; 2] {
    let tokens = config.cu_seqlens[config.cu_seqlens.len() - 1];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let qkv = random([tokens, 5 * 16], 1).autodiff().require_grad();
        let table = || random([tokens, 8], 2).autodiff();
        let output = qkv_attention(qkv.clone(), table(), table(), 3, 1, config);
        let graph = (output.clone() * random(output.dims(), 3).autodiff()).sum().backward();
        let gradient = qkv.grad(&graph).unwrap();
        [output.inner(), gradient].map(|it| it.try_into_vec_as::<f32>().unwrap())
    })
}

#[test]
fn one_thread_and_three_give_the_same_bits() {
    for window in [None, Some(40)] {
        let config = config(&[0, 7, 400, 415], 16, window);
        let (one, three) = (run_on(1, &config), run_on(3, &config));
        assert!(one == three, "{window:?}");
        let bounds = [0, 300, 390, 400, 440, 445, 460];
        let config = config_of(&bounds, &[None, Some(0), Some(0), None, Some(3), Some(0)], 16, window);
        let (one, three) = (run_on(1, &config), run_on(3, &config));
        assert!(one == three, "shared, {window:?}");
    }
}

#[test]
fn a_nan_reaches_the_rows_that_see_it_and_no_other_sequence() {
    let (tokens, width, broken) = (130, 4, 60);
    let config = config(&[0, 50, 110, 130], width, Some(20));
    for part in 0..3 {
        let mut qkv: Vec<f32> = random([tokens, 3 * width], 1).try_into_vec_as().unwrap();
        qkv[broken * 3 * width + part * width] = f32::NAN;
        let qkv = Tensor::<1>::from_floats(qkv.as_slice(), &Device::flex()).reshape([tokens, 3 * width]);
        let table = || random([tokens, width / 2], 2);
        let output: Vec<f32> = qkv_attention(qkv, table(), table(), 1, 1, &config).try_into_vec_as().unwrap();
        for (token, row) in output.chunks(width).enumerate() {
            let sees = if part == 0 { token == broken } else { (broken..broken + 20).contains(&token) };
            assert!(!sees || row.iter().any(|it| it.is_nan()), "part {part}, token {token}: {row:?}");
            let apart = !(50..110).contains(&token);
            assert!(!apart || row.iter().all(|it| it.is_finite()), "part {part}, token {token}: {row:?}");
        }
    }
}
