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

/// Bounds of scores, which are of order 1 in all cases: the smallest is felt all over, the largest hardly.
const CAPS: [Option<f64>; 4] = [None, Some(0.8), Some(5.0), Some(50.0)];

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
    AttentionConfig { cu_seqlens: bounds.into(), parents: parents.into(), scale, window, softcap: None }
}

/// Each case with each of [`CAPS`].
fn capped_cases() -> impl Iterator<Item = (Case, AttentionConfig)> {
    CASES.into_iter().flat_map(|case| {
        let (.., head_dim, bounds, window) = case;
        CAPS.map(|softcap| (case, AttentionConfig { softcap, ..config(bounds, head_dim, window) }))
    })
}

/// Sums of at most 300 terms in f32, in two orders, behind an exponential: 2e-5 of the largest value.
#[test]
fn values_and_gradients_equal_the_reference() {
    for ((heads, kv_heads, head_dim, bounds, _), config) in capped_cases() {
        let tokens = bounds[bounds.len() - 1];
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

type Tables = Option<(Tensor<2>, Tensor<2>)>;

/// Cosines and sines; none of no pairs.
fn tables(tokens: usize, pairs: usize) -> Tables {
    let angles = || random([tokens, pairs], 5) * 2.0;
    (pairs > 0).then(|| (angles().cos(), angles().sin()))
}

/// [`qkv_attention`] and its reference.
fn compare_merged(heads: usize, kv_heads: usize, head_dim: usize, pairs: usize, config: &AttentionConfig) {
    type Attention = fn(Tensor<2>, Tables, usize, usize, &AttentionConfig) -> Tensor<2>;
    let tokens = config.cu_seqlens[config.cu_seqlens.len() - 1];
    let tables = tables(tokens, pairs);
    let run = |it: &[crate::check::Value], attention: Attention| {
        attention(it[0].matrix(), tables.clone(), heads, kv_heads, config)
    };
    let inputs = [random([tokens, (heads + 2 * kv_heads) * head_dim], 1).into()];
    compare(&inputs, |it| run(it, qkv_attention), |it| run(it, qkv_attention_reference), 2e-5);
}

/// As above, with a rotation on both ways: of all of a head, of a part, of nothing.
#[test]
fn merged_values_and_gradients_equal_the_reference() {
    for ((heads, kv_heads, head_dim, ..), config) in capped_cases() {
        compare_merged(heads, kv_heads, head_dim, head_dim / 2, &config);
        if config.softcap.is_none_or(|it| it == 0.8) {
            compare_merged(heads, kv_heads, head_dim, head_dim / 5, &config);
        }
        if config.softcap.is_none() {
            compare_merged(heads, kv_heads, head_dim, 0, &config);
        }
    }
}

/// Bounds and parents: one that lies right before its children or does not, alone or among others, longer and shorter
/// than a block of keys, empty ones on both sides.
const SHARED: [(&[usize], &[Option<usize>]); 9] = [
    (&[0, 5, 9], &[None, Some(0)]),
    (&[0, 40, 47, 117, 118], &[None, Some(0), Some(0), Some(0)]),
    (&[0, 300, 390, 400, 440, 445, 460], &[None, Some(0), Some(0), None, Some(3), Some(0)]),
    (&[0, 0, 7, 20, 20, 33], &[None, Some(0), None, Some(2), Some(2)]),
    (&[0, 20, 30, 64, 70, 71], &[None, None, Some(1), Some(0), Some(1)]),
    // What all begin with, prompts that go on from it, and what goes on from them.
    (&[0, 3, 8, 12], &[None, Some(0), Some(1)]),
    (&[0, 7, 12, 20, 21, 60, 65, 70], &[None, Some(0), Some(1), Some(1), Some(0), Some(4), Some(4)]),
    (&[0, 270, 280, 280, 300, 310], &[None, Some(0), Some(0), Some(1), Some(2)]),
    (&[0, 4, 10, 15, 22], &[None, None, Some(1), Some(2)]),
];

/// As above.
#[test]
fn values_and_gradients_of_shared_prefixes_equal_the_reference() {
    for (bounds, parents) in SHARED {
        for (heads, kv_heads, head_dim) in [(1, 1, 4), (6, 2, 16), (3, 3, 10)] {
            for window in [None, Some(1), Some(9), Some(290), Some(1000)] {
                let config = config_of(bounds, parents, head_dim, window);
                compare_merged(heads, kv_heads, head_dim, head_dim / 2, &config);
                if window.is_none_or(|it| it == 9) {
                    compare_merged(heads, kv_heads, head_dim, 0, &config);
                    let capped = AttentionConfig { softcap: Some(1.5), ..config };
                    compare_merged(heads, kv_heads, head_dim, head_dim / 5, &capped);
                }
            }
        }
    }
}

/// Tokens of every sequence that nothing goes on from, its parent's before its own; and the bounds they have end to end.
fn unshared(bounds: &[usize], parents: &[Option<usize>]) -> (Vec<usize>, Vec<usize>) {
    let (mut places, mut ends) = (Vec::new(), vec![0]);
    for (index, parent) in parents.iter().enumerate().filter(|it| !parents.contains(&Some(it.0))) {
        let grandparent = parent.and_then(|it| parents[it]);
        for it in [grandparent, *parent].into_iter().flatten() {
            places.extend(bounds[it]..bounds[it + 1]);
        }
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
            let table = |it: &Tensor<2>| it.clone().select(0, copied.clone());
            let tables = tables(tokens, head_dim / 2);
            let ours = |it: &[crate::check::Value]| {
                let output = qkv_attention(it[0].matrix(), tables.clone(), heads, kv_heads, &shared);
                output.select(0, copied.clone())
            };
            let copies = |it: &[crate::check::Value]| {
                let tables = tables.as_ref().map(|(cos, sin)| (table(cos), table(sin)));
                qkv_attention(it[0].matrix().select(0, copied.clone()), tables, heads, kv_heads, &apart)
            };
            let inputs = [random([tokens, (heads + 2 * kv_heads) * head_dim], 1).into()];
            compare(&inputs, ours, copies, 2e-5);
        }
    }
}

/// `softcap tanh(s / softcap)` of one key beside another, by hand: scores 6 and 0, so weights are a sigmoid's.
#[test]
fn a_capped_score_is_weighed_as_by_hand() {
    let tensor = |it: [f32; 4]| Tensor::<1>::from_floats(it, &Device::flex()).reshape([2, 1, 2]);
    let (q, k, v) =
        (tensor([0.0, 0.0, 3.0, 0.0]), tensor([2.0, 1.0, 0.0, 5.0]), tensor([1.0, 0.0, 0.0, 1.0]));
    for (cap, score) in [(2.0, 2.0 * 3f64.tanh()), (6.0, 6.0 * 1f64.tanh())] {
        let config = AttentionConfig { scale: 1.0, softcap: Some(cap), ..config(&[0, 2], 2, None) };
        let weight = 1.0 / (1.0 + (-score).exp());
        for attention in [attention, attention_reference] {
            let output = attention(q.clone(), k.clone(), v.clone(), &config);
            let row = output.narrow(0, 1, 1).try_into_vec_as::<f32>().unwrap();
            assert!((f64::from(row[0]) - weight).abs() < 1e-6, "{row:?} is not {weight}");
        }
    }
}

#[test]
fn parents_that_do_not_come_before_are_refused() {
    for parents in [[None, Some(1)], [Some(0), None], [Some(1), None]] {
        let config = config_of(&[0, 2, 4], &parents, 4, None);
        assert!(std::panic::catch_unwind(|| config.check(4, 1, 1)).is_err(), "{parents:?}");
    }
    let too_deep = config_of(&[0, 2, 4, 5, 6], &[None, Some(0), Some(1), Some(2)], 4, None);
    assert!(std::panic::catch_unwind(|| too_deep.check(6, 1, 1)).is_err());
}

/// Output and gradient of `qkv` in a pool of `threads` threads.
fn run_on(threads: usize, config: &AttentionConfig) -> [Vec<f32>; 2] {
    let tokens = config.cu_seqlens[config.cu_seqlens.len() - 1];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let qkv = random([tokens, 5 * 16], 1).autodiff().require_grad();
        let table = || random([tokens, 8], 2).autodiff();
        let output = qkv_attention(qkv.clone(), Some((table(), table())), 3, 1, config);
        let graph = (output.clone() * random(output.dims(), 3).autodiff()).sum().backward();
        let gradient = qkv.grad(&graph).unwrap();
        [output.inner(), gradient].map(|it| it.try_into_vec_as::<f32>().unwrap())
    })
}

#[test]
fn one_thread_and_three_give_the_same_bits() {
    for window in [None, Some(40)] {
        let config = AttentionConfig { softcap: Some(2.0), ..config(&[0, 7, 400, 415], 16, window) };
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
    let plain = config(&[0, 50, 110, 130], width, Some(20));
    let capped = AttentionConfig { softcap: Some(3.0), ..plain.clone() };
    for (part, config) in (0..3).flat_map(|it| [(it, &plain), (it, &capped)]) {
        let mut qkv: Vec<f32> = random([tokens, 3 * width], 1).try_into_vec_as().unwrap();
        qkv[broken * 3 * width + part * width] = f32::NAN;
        let qkv = Tensor::<1>::from_floats(qkv.as_slice(), &Device::flex()).reshape([tokens, 3 * width]);
        let output = qkv_attention(qkv, tables(tokens, width / 2), 1, 1, config);
        let output: Vec<f32> = output.try_into_vec_as().unwrap();
        for (token, row) in output.chunks(width).enumerate() {
            let sees = if part == 0 { token == broken } else { (broken..broken + 20).contains(&token) };
            assert!(!sees || row.iter().any(|it| it.is_nan()), "part {part}, token {token}: {row:?}");
            let apart = !(50..110).contains(&token);
            assert!(!apart || row.iter().all(|it| it.is_finite()), "part {part}, token {token}: {row:?}");
        }
    }
}
