//! How an operation with a hand-written backward reaches Burn: one backend extension serves them all.
//!
//! An operation is a value of a type that implements [`Operation`]: a forward and a backward on plain f32 storage.
//! What is no float tensor (token ids, sequence bounds, factors) is a field of that value. Only Burn's CPU backend
//! runs it; a public function calls [`apply`] where [`is_ours`] holds and its reference everywhere else.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchTensor, ExtensionType, Flex, backend_extension};
use burn::tensor::{DType, Device, Tensor};
use burn_flex::FlexTensor;

use crate::flex::contiguous;

/// Inputs an operation may have.
const MAX_INPUTS: usize = 16;

/// A forward and the backward that was derived for it by hand.
///
/// All tensors are contiguous, and f32 unless an operation says otherwise of an input.
pub(crate) trait Operation: Debug + Send + Sync + 'static {
    /// The output, and what backward needs of this call.
    ///
    /// `wanted` says which inputs a gradient is asked for; where none is, nothing needs to be kept.
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>);

    /// The vector-Jacobian product of `gradient`, of the output's shape: one gradient for each input that `wanted`
    /// names, `None` for the others.
    fn backward(
        &self,
        saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>>;
}

macro_rules! inputs {
    ($($field:ident)*) => {
        /// The inputs of a call. The extension's macro takes tensors as fields, each by its name: those that an
        /// operation does not have are copies of the first.
        #[derive(ExtensionType)]
        pub(crate) struct Inputs<B: Backend> {
            $($field: FloatTensor<B>,)*
            count: usize,
        }

        impl<B: Backend> Inputs<B> {
            fn into_vec(self) -> Vec<FloatTensor<B>> {
                let mut all = vec![$(self.$field),*];
                all.truncate(self.count);
                all
            }
        }

        impl Inputs<Dispatch> {
            fn new(given: Vec<DispatchTensor>) -> Self {
                assert!((1..=MAX_INPUTS).contains(&given.len()), "an operation has 1 to {MAX_INPUTS} inputs");
                let (count, first) = (given.len(), given[0].clone());
                let mut given = given.into_iter();
                let mut next = || given.next().unwrap_or_else(|| first.clone());
                Self { $($field: next(),)* count }
            }
        }
    };
}

inputs!(i0 i1 i2 i3 i4 i5 i6 i7 i8 i9 i10 i11 i12 i13 i14 i15);

/// The extension; [`apply`] is how it is called.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Fused: Backend {
    /// Runs `operation` on `inputs`.
    fn fused(#[extension_type] inputs: Inputs<Self>, operation: Arc<dyn Operation>) -> FloatTensor<Self>;
}

impl Fused for Flex {
    fn fused(inputs: Inputs<Self>, operation: Arc<dyn Operation>) -> FlexTensor {
        let inputs: Vec<FlexTensor> = inputs.into_vec().into_iter().map(contiguous).collect();
        let wanted = vec![false; inputs.len()];
        operation.forward(inputs, &wanted).0
    }
}

/// What an operation's backward is given.
#[derive(Debug, Clone)]
struct State {
    operation: Arc<dyn Operation>,
    saved: Vec<FlexTensor>,
    wanted: Vec<bool>,
}

/// The one backward step: it calls the operation's own.
#[derive(Debug)]
struct Adjoint;

impl Backward<Flex, MAX_INPUTS> for Adjoint {
    type State = State;

    fn backward(self, ops: Ops<State, MAX_INPUTS>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
        let State { operation, saved, wanted } = ops.state;
        let found = operation.backward(saved, gradient, &wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

impl<C: CheckpointStrategy> Fused for Autodiff<Flex, C> {
    fn fused(inputs: Inputs<Self>, operation: Arc<dyn Operation>) -> FloatTensor<Self> {
        let inputs = inputs.into_vec();
        let wanted: Vec<bool> = inputs.iter().map(|it| it.is_tracked()).collect();
        // Burn wants the number of parents at compile time: the first input stands in for those that are not there,
        // and backward gives it one gradient only.
        let nodes = std::array::from_fn(|index| inputs.get(index).unwrap_or(&inputs[0]).node());
        let step = Adjoint.prepare::<C>(nodes).compute_bound().stateful();
        let inputs = inputs.into_iter().map(|it| contiguous(it.into_primitive())).collect();
        let (output, saved) = operation.forward(inputs, &wanted);
        match step {
            OpsKind::Tracked(step) => step.finish(State { operation, saved, wanted }, output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }
}

/// Runs `operation` on `inputs`, at most 16, each of which [`is_ours`].
pub(crate) fn apply<const D: usize>(inputs: Vec<Input>, operation: impl Operation) -> Tensor<D> {
    let inputs = Inputs::new(inputs.into_iter().map(|it| it.0).collect());
    Tensor::from_dispatch(<Dispatch as Fused>::fused(inputs, Arc::new(operation)))
}

/// A float tensor of any rank, as an operation's input.
pub(crate) struct Input(DispatchTensor);

impl<const D: usize> From<Tensor<D>> for Input {
    fn from(tensor: Tensor<D>) -> Self {
        Self(tensor.into_dispatch())
    }
}

/// Whether our own implementation takes `tensor`: f32 on Burn's CPU backend, with or without autodiff.
pub(crate) fn is_ours<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && tensor.device().inner() == Device::flex()
}
