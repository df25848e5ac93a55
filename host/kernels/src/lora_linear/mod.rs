//! Linear layers with low-rank adapters, <https://arxiv.org/abs/2106.09685>, in PEFT's layout: one layer, or several of
//! one input side by side (queries, keys and values; gate and up), with what stands before and after them in a block.
//!
//! Side by side, the input is read once and the outputs lie beside each other in one tensor. The norm or the gated
//! activation in front is computed again in backward instead of being kept, and the sum with the residual stream is
//! part of the product. The product `b a` is never formed, and a frozen weight costs no gradient.

mod columns;
mod cpu;
mod low_rank;
mod prologue;
mod weight;

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::Tensor;

use crate::dropout::{Dropout, dropout_reference};
use crate::extension::{Input, Operation, apply, is_ours};
use crate::flex::{contiguous, primitive};
use crate::gate::Activation;
use crate::geglu::geglu_reference;
use crate::linear::linear_reference;
use crate::linear::weight::{Given, is_int8};
use crate::rms_norm::rms_norm_reference;
use crate::swiglu::swiglu_reference;
pub use weight::Weight;

/// One layer: `x weight^T + bias + scaling (dropout(x) a^T) b^T`.
#[derive(Debug, Clone)]
pub struct LoraLinear {
    /// `[out, in]`.
    pub weight: Weight,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    /// The adapter.
    pub lora: Option<LowRank>,
}

/// The adapter of one layer.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    /// What the pair's product is multiplied by.
    pub scaling: f64,
    /// What the adapter does not see of its input; the layer's own weight sees all of it.
    pub dropout: Option<Dropout>,
}

/// What an input goes through before the layers see it.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "made once a call and moved once")]
pub enum Prologue {
    /// Nothing.
    None,
    /// RMS normalisation.
    RmsNorm {
        /// `[in]`.
        weight: Tensor<1>,
        /// Added to the mean square.
        eps: f64,
    },
    /// `act(gate) * up` of an input whose rows hold the gate and, behind it, up: `[T, 2 in]`.
    Gated(Activation),
}

/// The outputs of `layers` side by side, plus `residual`.
///
/// # Shapes
/// - `x`: `[T, in]`, or `[T, 2 in]` for [`Prologue::Gated`]; every layer's input is `in` wide
/// - `residual` and result: `[T, sum of the layers' out]`
pub fn lora_linears(
    x: Tensor<2>,
    prologue: Prologue,
    layers: &[LoraLinear],
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    fused_where_ours(x, prologue, layers, residual, false)
}

/// As [`lora_linears`] where only gradients through the result are asked for: its values mean nothing, and the products with the
/// weights that make them are spared where the operation is our own.
///
/// # Shapes
/// As there.
pub fn lora_linears_for_gradients(
    x: Tensor<2>,
    prologue: Prologue,
    layers: &[LoraLinear],
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    fused_where_ours(x, prologue, layers, residual, true)
}

fn fused_where_ours(
    x: Tensor<2>,
    prologue: Prologue,
    layers: &[LoraLinear],
    residual: Option<Tensor<2>>,
    for_gradients: bool,
) -> Tensor<2> {
    if takes(&x, &prologue, layers, residual.as_ref()) {
        return fused(x, prologue, layers, residual, for_gradients);
    }
    lora_linears_reference(x, prologue, layers, residual)
}

/// [`lora_linears`] in plain tensor operations.
pub fn lora_linears_reference(
    x: Tensor<2>,
    prologue: Prologue,
    layers: &[LoraLinear],
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    let x = match prologue {
        Prologue::None => x,
        Prologue::RmsNorm { weight, eps } => rms_norm_reference(x, weight, eps),
        Prologue::Gated(activation) => {
            let width = x.dims()[1] / 2;
            let (gate, up) = (x.clone().narrow(1, 0, width), x.narrow(1, width, width));
            match activation {
                Activation::Silu => swiglu_reference(gate, up),
                Activation::GeluTanh => geglu_reference(gate, up),
            }
        }
    };
    let outputs = layers.iter().map(|it| one_reference(x.clone(), it)).collect();
    let output = Tensor::cat(outputs, 1);
    match residual {
        Some(residual) => residual + output,
        None => output,
    }
}

/// `x weight^T + bias + scaling (x a^T) b^T`: [`lora_linears`] of one layer and nothing else.
///
/// # Shapes
/// - `x`: `[T, in]`, result: `[T, out]`
pub fn lora_linear(x: Tensor<2>, layer: &LoraLinear) -> Tensor<2> {
    lora_linears(x, Prologue::None, std::slice::from_ref(layer), None)
}

/// [`lora_linear`] in plain tensor operations.
pub fn lora_linear_reference(x: Tensor<2>, layer: &LoraLinear) -> Tensor<2> {
    one_reference(x, layer)
}

fn one_reference(x: Tensor<2>, layer: &LoraLinear) -> Tensor<2> {
    let mut y = linear_reference(x.clone(), layer.weight.beside(&x));
    if let Some(bias) = &layer.bias {
        y = y + bias.clone().unsqueeze();
    }
    if let Some(LowRank { a, b, scaling, dropout }) = &layer.lora {
        let x = match dropout {
            Some(mask) => dropout_reference(x, mask),
            None => x,
        };
        let share = linear_reference(x, a.clone()).mul_scalar(*scaling);
        y = y + linear_reference(share, b.clone());
    }
    y
}

fn takes(x: &Tensor<2>, prologue: &Prologue, layers: &[LoraLinear], residual: Option<&Tensor<2>>) -> bool {
    let of_layer = |it: &LoraLinear| {
        let lora = it.lora.as_ref().is_none_or(|it| is_ours(&it.a) && is_ours(&it.b));
        let tracked = x.is_autodiff() || it.lora.as_ref().is_some_and(|it| it.a.is_autodiff());
        it.weight.is_ours(tracked) && it.bias.as_ref().is_none_or(is_ours) && lora
    };
    let of_prologue = match prologue {
        Prologue::RmsNorm { weight, .. } => is_ours(weight),
        Prologue::None | Prologue::Gated(_) => true,
    };
    is_ours(x) && of_prologue && layers.iter().all(of_layer) && residual.is_none_or(is_ours)
}

/// A tensor of a call, in the order of the operation's inputs.
enum Part {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

fn fused(
    x: Tensor<2>,
    prologue: Prologue,
    layers: &[LoraLinear],
    residual: Option<Tensor<2>>,
    for_gradients: bool,
) -> Tensor<2> {
    let mut parts = vec![Part::Matrix(x)];
    let prologue = match prologue {
        Prologue::None => cpu::Prologue::None,
        Prologue::RmsNorm { weight, eps } => {
            parts.push(Part::Vector(weight));
            cpu::Prologue::RmsNorm { eps: eps as f32 }
        }
        Prologue::Gated(activation) => cpu::Prologue::Gated(activation),
    };
    let has_residual = residual.is_some();
    parts.extend(residual.map(Part::Matrix));
    let shape = |it: &LoraLinear| cpu::Layer {
        out: it.weight.dims()[0],
        weight: match &it.weight {
            Weight::Dense(it) if is_int8(it) => cpu::Form::Int8,
            Weight::Dense(_) => cpu::Form::Tensor,
            Weight::Packed(it) => cpu::Form::Packed(Arc::clone(it)),
        },
        bias: it.bias.is_some(),
        lora: it.lora.as_ref().map(|it| cpu::Adapter {
            rank: it.a.dims()[0],
            scaling: it.scaling as f32,
            dropout: it.dropout.clone(),
        }),
    };
    for layer in layers {
        if let Weight::Dense(weight) = &layer.weight {
            parts.push(Part::Matrix(weight.clone()));
        }
        parts.extend(layer.bias.clone().map(Part::Vector));
        if let Some(LowRank { a, b, .. }) = &layer.lora {
            parts.extend([a, b].map(|it| Part::Matrix(it.clone())));
        }
    }
    let layers: Vec<cpu::Layer> = layers.iter().map(shape).collect();
    let without_graph = layers.iter().any(|it| matches!(it.weight, cpu::Form::Int8));
    let operation = cpu::LoraLinears { prologue, residual: has_residual, layers, for_gradients };
    if without_graph {
        return forward(operation, parts);
    }
    let input = |it| match it {
        Part::Vector(it) => Input::from(it),
        Part::Matrix(it) => Input::from(it),
    };
    apply(parts.into_iter().map(input).collect(), operation)
}

/// Forward past Burn, whose extensions take no quantised tensor.
fn forward(operation: cpu::LoraLinears, parts: Vec<Part>) -> Tensor<2> {
    let mut inputs = Vec::with_capacity(2 * parts.len());
    for part in parts {
        match part {
            Part::Vector(it) => inputs.push(contiguous(primitive(it))),
            Part::Matrix(it) => inputs.extend(Given::new(it).into_inputs()),
        }
    }
    let wanted = vec![false; inputs.len()];
    Tensor::from_primitive::<Flex>(operation.forward(inputs, &wanted).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Value, compare, random, run};
    use crate::packed::Packed;
    use crate::packed::four_bit::{FourBit, FourBitConfig};

    /// Which parts a case has; the inputs are made, and taken apart again, in one order.
    #[derive(Clone, Copy)]
    struct Case {
        norm: bool,
        gated: Option<Activation>,
        residual: bool,
        bias: bool,
        lora: bool,
        dropout: bool,
        /// The weights are no inputs then.
        four_bit: bool,
        outs: &'static [usize],
        tokens: usize,
        width: usize,
    }

    const RANK: usize = 5;

    fn four_bit(shape: [usize; 2]) -> Arc<Packed> {
        let values: Vec<f32> = random::<2>(shape, 4).try_into_vec_as().unwrap();
        Arc::new(FourBit::quantize(&values, shape, FourBitConfig::default()).into())
    }

    impl Case {
        fn inputs(self) -> Vec<Value> {
            let x_width = if self.gated.is_some() { 2 * self.width } else { self.width };
            let mut inputs: Vec<Value> = vec![random([self.tokens, x_width], 1).into()];
            if self.norm {
                inputs.push(random([self.width], 2).into());
            }
            if self.residual {
                inputs.push(random([self.tokens, self.outs.iter().sum()], 3).into());
            }
            for (index, out) in self.outs.iter().enumerate() {
                let seed = 10 * index as u64;
                if !self.four_bit {
                    inputs.push(random([*out, self.width], seed + 4).into());
                }
                if self.bias {
                    inputs.push(random([*out], seed + 5).into());
                }
                if self.lora {
                    inputs.push(random([RANK, self.width], seed + 6).into());
                    inputs.push(random([*out, RANK], seed + 7).into());
                }
            }
            inputs
        }

        fn run(
            self,
            inputs: &[Value],
            f: impl Fn(Tensor<2>, Prologue, &[LoraLinear], Option<Tensor<2>>) -> Tensor<2>,
        ) -> Tensor<2> {
            let mut inputs = inputs.iter();
            let mut next = || inputs.next().expect("made for this case");
            let x = next().matrix();
            let prologue = match self.gated {
                Some(activation) => Prologue::Gated(activation),
                None if self.norm => Prologue::RmsNorm { weight: next().vector(), eps: 1e-5 },
                None => Prologue::None,
            };
            let residual = self.residual.then(|| next().matrix());
            let mut seeds = 0..;
            let layers: Vec<LoraLinear> = (self.outs.iter())
                .map(|out| LoraLinear {
                    weight: match self.four_bit {
                        true => four_bit([*out, self.width]).into(),
                        false => next().matrix().into(),
                    },
                    bias: self.bias.then(|| next().vector()),
                    lora: self.lora.then(|| LowRank {
                        a: next().matrix(),
                        b: next().matrix(),
                        scaling: 0.7,
                        dropout: seeds
                            .next()
                            .filter(|_| self.dropout)
                            .map(|it| Dropout { rate: 0.4, seed: [it; 32] }),
                    }),
                })
                .collect();
            f(x, prologue, &layers, residual)
        }
    }

    /// A weight in bf16 is the f32 weight of the same value: the same bits.
    #[test]
    fn a_weight_stored_in_bf16_computes_in_f32() {
        use burn::tensor::DType;
        let (x, weight): (Tensor<2>, Tensor<2>) = (random([70, 40], 1), random([24, 40], 2));
        let stored = weight.cast(DType::BF16);
        let run = |weight: Tensor<2>| {
            let x = x.clone().autodiff().require_grad();
            let y = lora_linear(x.clone(), &LoraLinear { weight: weight.into(), bias: None, lora: None });
            assert_eq!(y.dtype(), DType::F32);
            let graph = y.clone().square().sum().backward();
            let values = |it: Tensor<2>| it.inner().try_into_vec_as::<f32>().unwrap();
            (values(y), x.grad(&graph).unwrap().try_into_vec_as::<f32>().unwrap())
        };
        assert_eq!(run(stored.clone()), run(stored.cast(DType::F32)));
    }

    /// Sums of at most 80 products of three f32 factors, in two orders: 1e-5 of the largest value.
    #[test]
    fn values_and_gradients_equal_the_reference() {
        let plain = Case {
            norm: false,
            gated: None,
            residual: false,
            bias: false,
            lora: false,
            dropout: false,
            four_bit: false,
            outs: &[24],
            tokens: 70,
            width: 40,
        };
        let cases = [
            plain,
            Case { bias: true, residual: true, tokens: 1, ..plain },
            Case { lora: true, ..plain },
            Case { lora: true, bias: true, norm: true, outs: &[24, 7, 8], ..plain },
            Case { lora: true, residual: true, gated: Some(Activation::Silu), ..plain },
            Case { residual: true, gated: Some(Activation::GeluTanh), outs: &[33], ..plain },
            Case { norm: true, outs: &[80, 80], tokens: 3, ..plain },
            Case { lora: true, dropout: true, norm: true, outs: &[24, 7, 8], ..plain },
            Case { four_bit: true, bias: true, residual: true, tokens: 1, ..plain },
            Case { four_bit: true, lora: true, bias: true, norm: true, outs: &[24, 7, 8], ..plain },
            Case { four_bit: true, lora: true, norm: true, outs: &[80, 80], tokens: 3, ..plain },
            Case {
                four_bit: true,
                lora: true,
                dropout: true,
                residual: true,
                gated: Some(Activation::Silu),
                ..plain
            },
        ];
        for case in cases {
            let inputs = case.inputs();
            compare(
                &inputs,
                |it| case.run(it, lora_linears),
                |it| case.run(it, lora_linears_reference),
                1e-5,
            );
        }
    }

    /// The same bits as where the values are computed as well.
    #[test]
    fn gradients_do_not_ask_for_the_values() {
        let case = Case {
            norm: false,
            gated: Some(Activation::Silu),
            residual: true,
            bias: true,
            lora: true,
            dropout: false,
            four_bit: false,
            outs: &[24],
            tokens: 70,
            width: 40,
        };
        for case in
            [case, Case { tokens: 3, norm: true, gated: None, residual: false, outs: &[24, 7], ..case }]
        {
            let inputs = case.inputs();
            let whole = run(&inputs, &|it| case.run(it, lora_linears));
            let spared = run(&inputs, &|it| case.run(it, lora_linears_for_gradients));
            assert!(spared[0].iter().all(|it| *it == 0.0), "values are not computed");
            assert_eq!(spared[1..], whole[1..]);
        }
    }

    /// Values as the reference finds them with the same rounded weights, few rows and many: 2e-5.
    #[test]
    fn int8_weights_are_taken_as_they_are() {
        for tokens in [1, 2, 16, 70] {
            let layer = |out: usize, seed: u64| LoraLinear {
                weight: crate::int8(random([out, 64], seed)).into(),
                bias: Some(random([out], seed + 1)),
                lora: Some(LowRank {
                    a: random([4, 64], seed + 2),
                    b: random([out, 4], seed + 3),
                    scaling: 0.5,
                    dropout: None,
                }),
            };
            let (layers, x) = ([layer(24, 2), layer(9, 7)], random([tokens, 64], 1));
            let norm = || Prologue::RmsNorm { weight: random([64], 20), eps: 1e-5 };
            let residual = || Some(random([tokens, 33], 21));
            let expected = lora_linears_reference(x.clone(), norm(), &layers, residual());
            let got = lora_linears(x, norm(), &layers, residual());
            let worst = (got - expected).abs().max().into_scalar::<f32>();
            assert!(worst < 2e-5, "{tokens} tokens: differs by {worst:e}");
        }
    }
}
