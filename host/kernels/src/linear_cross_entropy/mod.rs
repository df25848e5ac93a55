//! Cross-entropy of a linear head, in chunks of rows, so that the logits of a micro-batch never exist whole.

use burn::tensor::{Int, Tensor, activation};

/// Rows whose logits exist at one time.
const CHUNK_ROWS: usize = 256;

/// What the head says of the supervised rows.
#[derive(Debug, Clone)]
pub struct LinearCrossEntropy {
    /// Negative log-likelihood in nats, summed over the rows, `[1]`; differentiable.
    pub loss_sum: Tensor<1>,
    /// Rows whose most likely token is the target, `[1]`; detached.
    pub correct: Tensor<1>,
    /// Entropy of the predicted distribution in nats, summed over the rows, `[1]`; detached.
    pub entropy_sum: Tensor<1>,
}

/// Cross-entropy of `hidden weight^T` with `targets`.
///
/// # Shapes
/// - `hidden`: `[S, D]`, supervised rows only; `weight`: `[V, D]`; `targets`: `[S]`
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
) -> LinearCrossEntropy {
    linear_cross_entropy_reference(hidden, weight, targets)
}

/// [`linear_cross_entropy`] in plain tensor operations.
pub fn linear_cross_entropy_reference(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
) -> LinearCrossEntropy {
    let device = hidden.device();
    let zero = || Tensor::<1>::zeros([1], &device);
    let (mut loss_sum, mut correct, mut entropy_sum) = (zero(), zero().inner(), zero().inner());
    for (start, length) in chunks(hidden.dims()[0]) {
        let targets = targets.clone().narrow(0, start, length);
        let log_probs = log_probs(hidden.clone().narrow(0, start, length), weight.clone());
        let frozen = log_probs.clone().inner();
        let hits = frozen.clone().argmax(1).squeeze_dim::<1>(1).equal(targets.clone().inner());
        correct = correct + hits.float().sum();
        entropy_sum = entropy_sum - (frozen.clone().exp() * frozen).sum();
        loss_sum = loss_sum - log_probs.gather(1, targets.unsqueeze_dim::<2>(1)).sum();
    }
    LinearCrossEntropy { loss_sum, correct, entropy_sum }
}

/// Log-probability of each target under `hidden weight^T`, in nats, `[S]`; differentiable.
///
/// # Shapes
/// - `hidden`: `[S, D]`; `weight`: `[V, D]`; `targets`: `[S]`
pub fn token_logps(hidden: Tensor<2>, weight: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    token_logps_reference(hidden, weight, targets)
}

/// [`token_logps`] in plain tensor operations.
pub fn token_logps_reference(hidden: Tensor<2>, weight: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let parts = chunks(hidden.dims()[0])
        .map(|(start, length)| {
            let targets = targets.clone().narrow(0, start, length).unsqueeze_dim::<2>(1);
            let log_probs = log_probs(hidden.clone().narrow(0, start, length), weight.clone());
            log_probs.gather(1, targets).squeeze_dim::<1>(1)
        })
        .collect();
    Tensor::cat(parts, 0)
}

fn log_probs(hidden: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    activation::log_softmax(hidden.matmul(weight.transpose()), 1)
}

/// Start and length of each chunk of `rows`.
fn chunks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(CHUNK_ROWS).map(move |start| (start, CHUNK_ROWS.min(rows - start)))
}
