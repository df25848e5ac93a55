//! Cross-entropy of a linear head, in chunks of rows, so that the logits of a micro-batch never exist whole.

mod cpu;
mod row;

use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use crate::extension::{apply, is_ours};
use crate::linear::weight::is_int8;
use crate::linear::{is_our_weight, linear_reference};

/// What the head says of the supervised rows.
#[derive(Debug, Clone)]
pub struct LinearCrossEntropy {
    /// Negative log-likelihood in nats, summed over the rows, `[1]`; differentiable.
    pub loss_sum: Tensor<1>,
    /// Rows whose most likely token is the target, `[1]`; detached. Of equally likely tokens the first counts.
    pub correct: Tensor<1>,
    /// Entropy of the predicted distribution in nats, summed over the rows, `[1]`; detached.
    pub entropy_sum: Tensor<1>,
}

/// What becomes of logits before their softmax: `scale cap tanh(logit / cap)`, as Gemma 2's, at a temperature of `1 / scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Softcap {
    /// Their bound; > 0.
    pub cap: f64,
    /// Applied after it.
    pub scale: f64,
}

/// Cross-entropy of `hidden weight^T`, bounded where `softcap` says so, with `targets`.
///
/// Our own implementation forms the gradients that are wanted while the logits of a chunk are there: backward costs
/// next to nothing, and a graph that is dropped without a backward pass has computed them in vain.
///
/// # Shapes
/// - `hidden`: `[S, D]`, supervised rows only; `weight`: `[V, D]`, which may be bf16 where it is frozen, and is widened a tile
///   at a time; `targets`: `S` ids below `V`
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    softcap: Option<Softcap>,
    targets: &[u32],
) -> LinearCrossEntropy {
    if !takes(&hidden, &weight) {
        return linear_cross_entropy_reference(hidden, weight, softcap, targets);
    }
    let operation = cpu::Loss { targets: targets.to_vec(), softcap };
    let found: Tensor<1> = apply(vec![hidden.into(), weight.into()], operation);
    let detached = found.clone().inner();
    LinearCrossEntropy {
        loss_sum: found.narrow(0, 0, 1),
        correct: detached.clone().narrow(0, 1, 1),
        entropy_sum: detached.narrow(0, 2, 1),
    }
}

/// [`linear_cross_entropy`] in plain tensor operations.
pub fn linear_cross_entropy_reference(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    softcap: Option<Softcap>,
    targets: &[u32],
) -> LinearCrossEntropy {
    let device = hidden.device();
    let zero = || Tensor::<1>::zeros([1], &device);
    let (mut loss_sum, mut correct, mut entropy_sum) = (zero(), zero().inner(), zero().inner());
    for (index, targets) in targets.chunks(CHUNK_ROWS).enumerate() {
        let hidden = hidden.clone().narrow(0, index * CHUNK_ROWS, targets.len());
        let log_probs = log_probs(hidden, weight.clone(), softcap);
        let frozen = log_probs.clone().inner();
        let targets = ids(targets, &device.clone().inner());
        let hits = frozen.clone().argmax(1).squeeze_dim::<1>(1).equal(targets.clone());
        correct = correct + hits.float().sum();
        entropy_sum = entropy_sum - (frozen.clone().exp() * frozen).sum();
        loss_sum = loss_sum - log_probs.gather(1, targets.unsqueeze_dim::<2>(1)).sum();
    }
    LinearCrossEntropy { loss_sum, correct, entropy_sum }
}

/// What the head says of each row and its target.
#[derive(Debug, Clone)]
pub struct TokenLogps {
    /// Log-probability of the target in nats, `[S]`; differentiable.
    pub logps: Tensor<1>,
    /// Entropy of the predicted distribution in nats, `[S]`; differentiable.
    pub entropy: Tensor<1>,
}

/// Log-probability of each target under `hidden weight^T`, bounded where `softcap` says so.
///
/// # Shapes
/// - `hidden`: `[S, D]`; `weight`: `[V, D]`, as [`linear_cross_entropy`] takes it; `targets`: `S` ids below `V`
pub fn token_logps(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    softcap: Option<Softcap>,
    targets: &[u32],
) -> TokenLogps {
    if !takes(&hidden, &weight) {
        return token_logps_reference(hidden, weight, softcap, targets);
    }
    let operation = cpu::Logps { targets: targets.to_vec(), softcap };
    let found: Tensor<2> = apply(vec![hidden.into(), weight.into()], operation);
    let row = |of: Tensor<2>, index: usize| of.narrow(0, index, 1).squeeze_dim::<1>(0);
    TokenLogps { entropy: row(found.clone(), 1), logps: row(found, 0) }
}

/// [`token_logps`] in plain tensor operations.
pub fn token_logps_reference(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    softcap: Option<Softcap>,
    targets: &[u32],
) -> TokenLogps {
    let device = hidden.device();
    if targets.is_empty() {
        let none = Tensor::zeros([0], &device);
        return TokenLogps { entropy: none.clone(), logps: none };
    }
    let (mut logps, mut entropy) = (Vec::new(), Vec::new());
    for (index, targets) in targets.chunks(CHUNK_ROWS).enumerate() {
        let hidden = hidden.clone().narrow(0, index * CHUNK_ROWS, targets.len());
        let targets = ids(targets, &device.clone().inner()).unsqueeze_dim::<2>(1);
        let log_probs = log_probs(hidden, weight.clone(), softcap);
        let negative = (log_probs.clone().exp() * log_probs.clone()).sum_dim(1);
        entropy.push(negative.squeeze_dim::<1>(1).neg());
        logps.push(log_probs.gather(1, targets).squeeze_dim::<1>(1));
    }
    TokenLogps { logps: Tensor::cat(logps, 0), entropy: Tensor::cat(entropy, 0) }
}

/// Whether our own implementation takes a head.
fn takes(hidden: &Tensor<2>, weight: &Tensor<2>) -> bool {
    is_ours(hidden) && is_our_weight(weight) && !is_int8(weight)
}

/// Rows whose logits the references hold at one time.
const CHUNK_ROWS: usize = 256;

fn log_probs(hidden: Tensor<2>, weight: Tensor<2>, softcap: Option<Softcap>) -> Tensor<2> {
    let logits = linear_reference(hidden, weight);
    let logits = match softcap {
        Some(Softcap { cap, scale }) => logits.div_scalar(cap).tanh().mul_scalar(cap * scale),
        None => logits,
    };
    activation::log_softmax(logits, 1)
}

fn ids(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = ids.iter().map(|it| *it as i32).collect();
    Tensor::from_data(TensorData::new(values, [ids.len()]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{compare, random};

    fn targets(rows: usize, vocabulary: usize) -> Vec<u32> {
        (0..rows).map(|it| (it * 7919 % vocabulary) as u32).collect()
    }

    fn floats(tensor: Tensor<1>) -> Vec<f32> {
        tensor.try_into_vec_as().unwrap()
    }

    /// Rows, vocabulary and width; the last takes several chunks, of which one is not full.
    const SHAPES: [[usize; 3]; 5] = [[1, 2, 3], [5, 16, 8], [33, 101, 20], [64, 1000, 24], [50, 400_007, 3]];

    /// One a shape: bounds that matter to logits of order 1 to 5, and none for the largest.
    const SOFTCAPS: [Option<Softcap>; 5] = [
        Some(Softcap { cap: 0.5, scale: 1.0 }),
        None,
        Some(Softcap { cap: 3.0, scale: 0.7 }),
        Some(Softcap { cap: 1.0, scale: 1.0 }),
        None,
    ];

    /// Sums of up to 400 007 exponentials, and the reference's of as many terms in f32: 2e-5 of the largest value.
    #[test]
    fn loss_and_gradients_equal_the_reference() {
        for ([rows, vocabulary, width], softcap) in SHAPES.into_iter().zip(SOFTCAPS) {
            let targets = targets(rows, vocabulary);
            compare(
                &[random([rows, width], 1).into(), random([vocabulary, width], 2).into()],
                |it| {
                    let found = linear_cross_entropy(it[0].matrix(), it[1].matrix(), softcap, &targets);
                    found.loss_sum.unsqueeze()
                },
                |it| {
                    linear_cross_entropy_reference(it[0].matrix(), it[1].matrix(), softcap, &targets)
                        .loss_sum
                        .unsqueeze()
                },
                2e-5,
            );
        }
    }

    #[test]
    fn log_probabilities_and_gradients_equal_the_reference() {
        for ([rows, vocabulary, width], softcap) in SHAPES.into_iter().zip(SOFTCAPS) {
            let targets = targets(rows, vocabulary);
            compare(
                &[random([rows, width], 1).into(), random([vocabulary, width], 2).into()],
                |it| token_logps(it[0].matrix(), it[1].matrix(), softcap, &targets).logps.unsqueeze(),
                |it| {
                    token_logps_reference(it[0].matrix(), it[1].matrix(), softcap, &targets).logps.unsqueeze()
                },
                2e-5,
            );
        }
    }

    /// Of a few hundred words at most: the reference's entropy of 400 007 is a sum of as many rounded terms. Alone, where
    /// log-probabilities send nothing back, and beside them.
    #[test]
    fn gradients_of_entropies_equal_the_reference() {
        for ([rows, vocabulary, width], softcap) in SHAPES[..4].iter().zip(SOFTCAPS) {
            let targets = targets(*rows, *vocabulary);
            for share in [0.0, 0.5] {
                let both = |it: TokenLogps| (it.entropy + it.logps.mul_scalar(share)).unsqueeze();
                compare(
                    &[random([*rows, *width], 1).into(), random([*vocabulary, *width], 2).into()],
                    |it| both(token_logps(it[0].matrix(), it[1].matrix(), softcap, &targets)),
                    |it| both(token_logps_reference(it[0].matrix(), it[1].matrix(), softcap, &targets)),
                    2e-5,
                );
            }
        }
    }

    /// A frozen weight in bf16, in several tiles, is the f32 weight of the same values: 2e-5 of the largest.
    #[test]
    fn a_frozen_head_in_bf16_is_that_of_its_values() {
        use burn::tensor::DType;
        for softcap in [None, Some(Softcap { cap: 3.0, scale: 0.7 })] {
            let (rows, vocabulary) = (60, 20_011);
            let (targets, stored) =
                (targets(rows, vocabulary), random([vocabulary, 100], 2).cast(DType::BF16));
            let widened = stored.clone().cast(DType::F32);
            let inputs = [random([rows, 100], 1).into()];
            let loss = |it: Tensor<2>, weight: &Tensor<2>| {
                linear_cross_entropy(it, weight.clone(), softcap, &targets).loss_sum.unsqueeze()
            };
            compare(&inputs, |it| loss(it[0].matrix(), &stored), |it| loss(it[0].matrix(), &widened), 2e-5);
            let both = |it: Tensor<2>, weight: &Tensor<2>| {
                let found = token_logps(it, weight.clone(), softcap, &targets);
                (found.logps + found.entropy.mul_scalar(0.3)).unsqueeze()
            };
            compare(&inputs, |it| both(it[0].matrix(), &stored), |it| both(it[0].matrix(), &widened), 2e-5);
            let reference = linear_cross_entropy_reference(random([rows, 100], 1), stored, softcap, &targets);
            assert_eq!(reference.loss_sum.dims(), [1]);
        }
    }

    #[test]
    fn hits_and_entropy_equal_the_reference() {
        for [rows, vocabulary, width] in SHAPES {
            let (hidden, weight) = (random([rows, width], 1), random([vocabulary, width], 2));
            // Half of the targets are what the head would say.
            let likely = hidden.clone().matmul(weight.clone().transpose()).argmax(1).squeeze_dim::<1>(1);
            let mut targets = targets(rows, vocabulary);
            for (target, likely) in
                targets.iter_mut().zip(likely.try_into_vec_as::<i32>().unwrap()).step_by(2)
            {
                *target = likely as u32;
            }
            let ours = linear_cross_entropy(hidden.clone(), weight.clone(), None, &targets);
            let reference = linear_cross_entropy_reference(hidden.clone(), weight.clone(), None, &targets);
            let correct = floats(ours.correct)[0];
            assert_eq!(correct, floats(reference.correct)[0]);
            assert!(correct >= rows.div_ceil(2) as f32);
            let (got, expected) = (floats(ours.entropy_sum)[0], floats(reference.entropy_sum)[0]);
            assert!((got - expected).abs() < 1e-4 * expected, "{got} is not {expected}");
            let ours = floats(token_logps(hidden.clone(), weight.clone(), None, &targets).entropy);
            let reference = floats(token_logps_reference(hidden, weight, None, &targets).entropy);
            assert_eq!(ours.len(), rows);
            for (got, expected) in ours.iter().zip(&reference) {
                assert!((got - expected).abs() < 1e-4 * expected.max(1.0), "{got} is not {expected}");
            }
        }
    }

    #[test]
    fn of_equal_logits_the_first_counts() {
        let (hidden, weight) =
            (Tensor::ones([1, 4], &Device::flex()), Tensor::ones([40, 4], &Device::flex()));
        for (target, expected) in [(0, 1.0), (1, 0.0), (39, 0.0)] {
            let found = linear_cross_entropy(hidden.clone(), weight.clone(), None, &[target]);
            assert_eq!(floats(found.correct), [expected], "{target}");
        }
    }

    /// Value, gradient of the hidden states and gradient of the weight, one after the other.
    fn everything(rows: usize, vocabulary: usize) -> Vec<f32> {
        let mut found = Vec::new();
        let leaves = || {
            let leaf = |it: Tensor<2>| it.autodiff().require_grad();
            [leaf(random([rows, 24], 1)), leaf(random([vocabulary, 24], 2))]
        };
        let targets = targets(rows, vocabulary);
        let [hidden, weight] = leaves();
        let loss = linear_cross_entropy(hidden.clone(), weight.clone(), None, &targets);
        let [other_hidden, other_weight] = leaves();
        let TokenLogps { logps, entropy } =
            token_logps(other_hidden.clone(), other_weight.clone(), None, &targets);
        for it in [loss.loss_sum.clone(), logps.clone()] {
            found.extend(floats(it.inner()));
        }
        found.extend([loss.correct, loss.entropy_sum, entropy.clone().inner()].into_iter().flat_map(floats));
        for (scalar, leaves) in [
            (loss.loss_sum * 0.3, [hidden, weight]),
            ((logps.mul_scalar(0.7) + entropy).sum(), [other_hidden, other_weight]),
        ] {
            let graph = scalar.backward();
            found.extend(leaves.iter().flat_map(|it| floats(it.grad(&graph).unwrap().inner().flatten(0, 1))));
        }
        found
    }

    #[test]
    fn one_thread_and_three_give_the_same_bits() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| everything(300, 40_009));
            found.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        assert!(on(1) == on(3));
    }

    #[test]
    fn a_logit_that_is_nan_is_not_hidden() {
        let (hidden, mut weight) = (vec![1.0f32; 8], vec![0.5f32; 50 * 4]);
        weight[37 * 4] = f32::NAN;
        let matrix = |it: &[f32], rows| Tensor::<1>::from_floats(it, &Device::flex()).reshape([rows, 4]);
        let (hidden, weight) = (matrix(&hidden, 2), matrix(&weight, 50));
        let found = linear_cross_entropy(hidden.clone(), weight.clone(), None, &[3, 3]);
        assert!(floats(found.loss_sum)[0].is_nan());
        assert!(floats(found.entropy_sum)[0].is_nan());
        assert_eq!(floats(found.correct), [0.0]);
        assert!(floats(token_logps(hidden, weight, None, &[3, 3]).logps).iter().all(|it| it.is_nan()));
    }

    #[test]
    fn no_rows_lose_nothing_and_teach_nothing() {
        let hidden = Tensor::<2>::zeros([0, 24], &Device::flex()).autodiff().require_grad();
        let weight = random([40, 24], 1).autodiff().require_grad();
        let loss = linear_cross_entropy(hidden.clone(), weight.clone(), None, &[]);
        assert_eq!(floats(loss.loss_sum.clone().inner()), [0.0]);
        assert_eq!(floats(loss.correct), [0.0]);
        assert_eq!(floats(loss.entropy_sum), [0.0]);
        let graph = loss.loss_sum.backward();
        assert!(floats(weight.grad(&graph).unwrap().inner().flatten(0, 1)).iter().all(|it| *it == 0.0));
        assert_eq!(hidden.grad(&graph).unwrap().dims(), [0, 24]);
        assert_eq!(token_logps(hidden.clone(), weight.clone(), None, &[]).logps.dims(), [0]);
        assert_eq!(token_logps_reference(hidden, weight, None, &[]).logps.dims(), [0]);
    }
}
