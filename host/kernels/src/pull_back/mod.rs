//! The way back into a part of a graph from outside: a vector-Jacobian product whose vector is given.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::extension::{Operation, apply, is_ours};
use crate::flex::tensor;

/// A scalar whose gradient for `output` is `downstream`: its backward takes the vector-Jacobian product of whatever
/// made `output`. The value means nothing.
///
/// # Shapes
/// - both: `[T, D]`; result: `[1]`
pub fn pull_back(output: Tensor<2>, downstream: Tensor<2>) -> Tensor<1> {
    if is_ours(&output) && is_ours(&downstream) {
        return apply(vec![output.into(), downstream.into()], PullBack);
    }
    pull_back_reference(output, downstream)
}

/// [`pull_back`] in plain tensor operations: the sum of products, which costs passes over both to no end.
pub fn pull_back_reference(output: Tensor<2>, downstream: Tensor<2>) -> Tensor<1> {
    let downstream = if output.is_autodiff() { downstream.autodiff() } else { downstream };
    (output * downstream).sum()
}

/// Inputs `output`, `downstream`; no gradient for the latter.
#[derive(Debug)]
struct PullBack;

impl Operation for PullBack {
    fn forward(&self, inputs: Vec<FlexTensor>, _: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [_, downstream] = <[_; 2]>::try_from(inputs).expect("output and downstream");
        (tensor(vec![0.0], &[1]), vec![downstream])
    }

    fn backward(&self, saved: Vec<FlexTensor>, _: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let [downstream] = <[_; 1]>::try_from(saved).expect("what forward kept");
        vec![Some(downstream), None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;

    #[test]
    fn the_gradient_is_the_one_that_was_given() {
        let (x, downstream): (Tensor<2>, Tensor<2>) = (random([7, 5], 1), random([7, 5], 2));
        let gradient = |f: fn(Tensor<2>, Tensor<2>) -> Tensor<1>| {
            let x = x.clone().autodiff().require_grad();
            let graph = f(x.clone().square(), downstream.clone()).backward();
            x.grad(&graph).unwrap().inner().try_into_vec_as::<f32>().unwrap()
        };
        assert_eq!(gradient(pull_back), gradient(pull_back_reference));
    }
}
