//! The CPU's forward and backward of linear layers side by side.
//!
//! With `n` the input behind the prologue, `h = n a^T` and `y = n w^T + bias + s h b^T + residual`, backward is
//! `dh = s dy b`, `db = s dy^T h`, `da = dh^T n`, `dw = dy^T n`, `dn = dy w + dh a`, and `dn` goes back through the
//! prologue. `n` is computed again from the input.

use std::sync::Arc;

use burn_flex::FlexTensor;

use super::columns::{Columns, add_bias, column_sums, columns_of, columns_of_mut};
use super::low_rank::add_product;
pub(super) use super::prologue::Prologue;
use crate::dropout::Dropout;
use crate::extension::Operation;
use crate::flex::{dims2, into_values, tensor, unfilled, values};
use crate::linear::few_rows::{FEW_ROWS, Packing, few_rows_packed};
use crate::linear::stored::Stored;
use crate::linear::weight::stored;
use crate::matrix::{Into, Matrix, MatrixMut, Threads, product};
use crate::packed::Packed;
use crate::rms_norm::weight_gradient;

/// Shape of one layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub out: usize,
    pub weight: Form,
    pub bias: bool,
    pub lora: Option<Adapter>,
}

/// What a weight is stored as.
#[derive(Debug)]
pub(super) enum Form {
    /// An input.
    Tensor,
    /// An input, and its scales behind it.
    Int8,
    /// No input, and frozen.
    Packed(Arc<Packed>),
}

/// What an adapter is beside its two tensors.
#[derive(Debug)]
pub(super) struct Adapter {
    pub rank: usize,
    pub scaling: f32,
    pub dropout: Option<Dropout>,
}

/// The operation. Inputs: `x`, the norm's weight, the residual, then of each layer weight, its scales, bias, `a` and `b`;
/// those that are there.
#[derive(Debug)]
pub(super) struct LoraLinears {
    pub prologue: Prologue,
    pub residual: bool,
    pub layers: Vec<Layer>,
    /// Only gradients are asked for: what backward needs is computed, and the result is zero.
    pub for_gradients: bool,
}

/// Where a layer's tensors stand among the inputs, and its columns among the outputs.
#[derive(Debug, Clone, Copy)]
struct Places<'a> {
    weight: WeightPlace<'a>,
    bias: Option<usize>,
    /// Of `a`; `b` follows.
    lora: Option<usize>,
    columns: Columns,
    /// Columns of `h`.
    ranks: Columns,
    scaling: f32,
    dropout: Option<&'a Dropout>,
}

/// Where a weight stands.
#[derive(Debug, Clone, Copy)]
enum WeightPlace<'a> {
    /// Among the inputs, and its scales.
    Inputs(usize, Option<usize>),
    Layer(&'a Packed),
}

impl Places<'_> {
    fn weight<'a>(&'a self, inputs: &'a [FlexTensor]) -> Stored<'a> {
        match self.weight {
            WeightPlace::Inputs(weight, scales) => stored(&inputs[weight], scales.map(|it| &inputs[it])),
            WeightPlace::Layer(weight) => {
                Stored::Packed { weight, first: 0, length: weight.shape().iter().product() }
            }
        }
    }

    /// The weight's place, if its gradient is `wanted`.
    fn wanted_weight(&self, wanted: &[bool]) -> Option<usize> {
        match self.weight {
            WeightPlace::Inputs(weight, _) => Some(weight).filter(|it| wanted[*it]),
            WeightPlace::Layer(_) => None,
        }
    }

    /// The columns of some of the layer's outputs.
    fn columns_from(&self, first: usize, count: usize) -> Columns {
        Columns { first: self.columns.first + first, count, ..self.columns }
    }
}

impl LoraLinears {
    fn norm_place(&self) -> Option<usize> {
        matches!(self.prologue, Prologue::RmsNorm { .. }).then_some(1)
    }

    fn residual_place(&self) -> Option<usize> {
        self.residual.then(|| 1 + usize::from(self.norm_place().is_some()))
    }

    fn places(&self) -> Vec<Places<'_>> {
        let width = self.layers.iter().map(|it| it.out).sum();
        let total_rank = self.layers.iter().filter_map(|it| it.lora.as_ref()).map(|it| it.rank).sum();
        let mut next = 1 + usize::from(self.norm_place().is_some()) + usize::from(self.residual);
        let (mut column, mut rank) = (0, 0);
        let mut take = |count: usize| {
            next += count;
            next - count
        };
        let places = self.layers.iter().map(|layer| {
            let weight = match &layer.weight {
                Form::Tensor => WeightPlace::Inputs(take(1), None),
                Form::Int8 => WeightPlace::Inputs(take(1), Some(take(1))),
                Form::Packed(it) => WeightPlace::Layer(it),
            };
            let bias = layer.bias.then(|| take(1));
            let lora = layer.lora.as_ref().map(|_| take(2));
            let (count, scaling) = layer.lora.as_ref().map_or((0, 0.0), |it| (it.rank, it.scaling));
            let dropout = layer.lora.as_ref().and_then(|it| it.dropout.as_ref());
            let columns = Columns { first: column, count: layer.out, stride: width };
            let ranks = Columns { first: rank, count, stride: total_rank };
            (column, rank) = (column + layer.out, rank + count);
            Places { weight, bias, lora, columns, ranks, scaling, dropout }
        });
        places.collect()
    }
}

/// The `a` of every adapter, one below the other: `[sum of ranks, in]`.
fn stacked(inputs: &[FlexTensor], places: &[Places<'_>]) -> Vec<f32> {
    let each = places.iter().filter_map(|it| it.lora).map(|it| values(&inputs[it]));
    each.collect::<Vec<_>>().concat()
}

/// `scaling m^T` of an `m` whose rows have `columns` values.
fn transposed(m: &[f32], columns: usize, scaling: f32) -> Vec<f32> {
    let rows = m.len() / columns;
    let mut transposed = unfilled(m.len());
    for (column, to) in transposed.chunks_exact_mut(rows).enumerate() {
        to.iter_mut().enumerate().for_each(|(row, it)| *it = scaling * m[row * columns + column]);
    }
    transposed
}

/// What backward is given: the inputs, `h`, and the norm's factors.
fn kept(mut inputs: Vec<FlexTensor>, h: Vec<f32>, scales: Vec<f32>, tokens: usize) -> Vec<FlexTensor> {
    let (total_rank, count) = (h.len() / tokens.max(1), scales.len());
    inputs.push(tensor(h, &[tokens, total_rank]));
    inputs.push(tensor(scales, &[count]));
    inputs
}

impl Operation for LoraLinears {
    fn forward(&self, mut inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let (places, tokens) = (self.places(), dims2(&inputs[0])[0]);
        let width = self.layers.iter().map(|it| it.out).sum::<usize>();
        // Backward does not ask for it.
        let take = |place: usize| std::mem::replace(&mut inputs[place], tensor(Vec::new(), &[0]));
        let residual = self.residual_place().map(take);
        let few = (1..=FEW_ROWS).contains(&tokens);
        let norm = self.norm_place().map(|it| &inputs[it]);
        let (n, scales, packed) = match Packing::of(tokens).filter(|_| few) {
            Some(packing) => {
                let (n, scales, packed) = self.prologue.few_input(&inputs[0], norm, packing);
                (n, scales, Some(packed))
            }
            None => {
                let (n, scales) = self.prologue.input(&inputs[0], norm);
                (n, scales, None)
            }
        };
        let in_width = n.len() / tokens.max(1);
        let n = Matrix::strided(&n, tokens, in_width, in_width);
        let h = self.down(&inputs, &places, n);
        if self.for_gradients {
            return (tensor(vec![0.0; tokens * width], &[tokens, width]), kept(inputs, h, scales, tokens));
        }
        let (mut y, into) = match residual {
            // Where nobody else holds it, the sum is formed in its place.
            Some(it) => (into_values(it), Into::Add),
            None => (unfilled(tokens * width), Into::Overwrite),
        };
        if few {
            let weights: Vec<_> = places.iter().map(|it| it.weight(&inputs)).collect();
            few_rows_packed(n.values(), packed.as_deref(), in_width, &weights, &mut y, into == Into::Add);
        }
        for it in &places {
            if !few {
                it.weight(&inputs).in_tiles(in_width, |first, tile| {
                    let tile = Matrix::new(tile, in_width);
                    let y = columns_of_mut(&mut y, tokens, it.columns_from(first, tile.rows()));
                    product(y, into, 1.0, n, tile.t(), Threads::All);
                });
            }
            if let Some(bias) = it.bias {
                add_bias(&mut y, it.columns, values(&inputs[bias]));
            }
            if let Some(lora) = it.lora {
                let b = transposed(values(&inputs[lora + 1]), it.ranks.count, it.scaling);
                add_product(&mut y, it.columns, &h, it.ranks, &b);
            }
        }
        if !wanted.contains(&true) {
            return (tensor(y, &[tokens, width]), Vec::new());
        }
        (tensor(y, &[tokens, width]), kept(inputs, h, scales, tokens))
    }

    fn backward(
        &self,
        mut inputs: Vec<FlexTensor>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let (scales, h) = (inputs.pop().expect("kept"), inputs.pop().expect("kept"));
        let (places, tokens, dy) = (self.places(), dims2(&inputs[0])[0], values(&gradient));
        let norm = self.norm_place().map(|it| &inputs[it]);
        let (n, _) = self.prologue.input(&inputs[0], norm);
        let in_width = n.len() / tokens.max(1);
        let n_matrix = Matrix::strided(&n, tokens, in_width, in_width);
        let mut found: Vec<Option<FlexTensor>> = vec![None; inputs.len()];
        let dh = self.low_rank_gradients(&inputs, &places, values(&h), dy, n_matrix, wanted, &mut found);
        for it in &places {
            let dy = columns_of(dy, tokens, it.columns);
            if let Some(weight) = it.wanted_weight(wanted) {
                let mut dw = unfilled(it.columns.count * in_width);
                let out = MatrixMut::new(&mut dw, in_width);
                product(out, Into::Overwrite, 1.0, dy.t(), n_matrix, Threads::All);
                found[weight] = Some(tensor(dw, &[it.columns.count, in_width]));
            }
            if let Some(bias) = it.bias.filter(|it| wanted[*it]) {
                found[bias] = Some(tensor(column_sums(values(&gradient), it.columns), &[it.columns.count]));
            }
        }
        if let Some(residual) = self.residual_place().filter(|it| wanted[*it]) {
            found[residual] = Some(gradient.clone());
        }
        let norm_wanted = self.norm_place().is_some_and(|it| wanted[it]);
        if wanted[0] || norm_wanted {
            let mut dn = unfilled(tokens * in_width);
            let mut into = Into::Overwrite;
            for it in &places {
                it.weight(&inputs).in_tiles(in_width, |first, tile| {
                    let tile = Matrix::new(tile, in_width);
                    let dy = columns_of(dy, tokens, it.columns_from(first, tile.rows()));
                    let out = MatrixMut::strided(&mut dn, tokens, in_width, in_width);
                    product(out, into, 1.0, dy, tile, Threads::All);
                    into = Into::Add;
                });
            }
            add_back_down(&inputs, &places, &dh, &mut dn, in_width);
            if let Some(place) = self.norm_place().filter(|_| norm_wanted) {
                let dw = weight_gradient(values(&inputs[0]), values(&scales), &dn, in_width);
                found[place] = Some(tensor(dw, &[in_width]));
            }
            if wanted[0] {
                let dx = self.prologue.back(&inputs[0], norm, values(&scales), dn);
                found[0] = Some(tensor(dx, &dims2(&inputs[0])));
            }
        }
        found
    }
}

impl LoraLinears {
    /// `h`, `[T, sum of ranks]`: one product of the stacked `a`, unless each adapter sees other values of the input.
    fn down(&self, inputs: &[FlexTensor], places: &[Places<'_>], n: Matrix<'_>) -> Vec<f32> {
        let (tokens, total_rank) = (n.rows(), places[0].ranks.stride);
        let mut h = unfilled(tokens * total_rank);
        if total_rank == 0 {
            return h;
        }
        if places.iter().all(|it| it.dropout.is_none()) {
            let a = stacked(inputs, places);
            let out = MatrixMut::strided(&mut h, tokens, total_rank, total_rank);
            product(out, Into::Overwrite, 1.0, n, Matrix::new(&a, n.columns()).t(), Threads::All);
            return h;
        }
        for it in places {
            let Some(lora) = it.lora else { continue };
            let a = Matrix::new(values(&inputs[lora]), n.columns());
            let out = columns_of_mut(&mut h, tokens, it.ranks);
            let seen = it.dropout.map(|mask| mask.masked(n.values(), n.columns()));
            let seen = seen.as_ref().map_or(n, |it| Matrix::new(it, n.columns()));
            product(out, Into::Overwrite, 1.0, seen, a.t(), Threads::All);
        }
        h
    }

    /// The gradients of every `a`, into `found`.
    fn gradients_of_a(
        &self,
        places: &[Places<'_>],
        dh: &[f32],
        n: Matrix<'_>,
        wanted: &[bool],
        found: &mut [Option<FlexTensor>],
    ) {
        let in_width = n.columns();
        let wanted = |it: &&Places<'_>| it.lora.is_some_and(|it| wanted[it]);
        for it in places.iter().filter(wanted) {
            let mut da = unfilled(it.ranks.count * in_width);
            let dh = columns_of(dh, n.rows(), it.ranks);
            let seen = it.dropout.map(|mask| mask.masked(n.values(), in_width));
            let seen = seen.as_ref().map_or(n, |it| Matrix::new(it, in_width));
            product(MatrixMut::new(&mut da, in_width), Into::Overwrite, 1.0, dh.t(), seen, Threads::All);
            let place = it.lora.expect("filtered");
            found[place] = Some(tensor(da, &[it.ranks.count, in_width]));
        }
    }

    /// The gradients of every `a` and `b`, into `found`; returns that of `h`, `[T, sum of ranks]`.
    #[expect(clippy::too_many_arguments, reason = "what forward kept, and where the gradients go")]
    fn low_rank_gradients(
        &self,
        inputs: &[FlexTensor],
        places: &[Places<'_>],
        h: &[f32],
        dy: &[f32],
        n: Matrix<'_>,
        wanted: &[bool],
        found: &mut [Option<FlexTensor>],
    ) -> Vec<f32> {
        let (tokens, total_rank) = (dims2(&inputs[0])[0], places[0].ranks.stride);
        let mut dh = unfilled(tokens * total_rank);
        for it in places {
            let Some(lora) = it.lora else { continue };
            let (out, rank) = (it.columns.count, it.ranks.count);
            let dy = columns_of(dy, tokens, it.columns);
            let b = Matrix::new(values(&inputs[lora + 1]), rank);
            let dh = columns_of_mut(&mut dh, tokens, it.ranks);
            product(dh, Into::Overwrite, it.scaling, dy, b, Threads::All);
            if wanted[lora + 1] {
                // Its transpose, whose rows are as long as those of `dy`: the product reads these along, not a few values
                // of each.
                let mut db = unfilled(out * rank);
                let h = columns_of(h, tokens, it.ranks);
                product(MatrixMut::new(&mut db, out), Into::Overwrite, it.scaling, h.t(), dy, Threads::All);
                found[lora + 1] = Some(tensor(transposed(&db, out, 1.0), &[out, rank]));
            }
        }
        self.gradients_of_a(places, &dh, n, wanted, found);
        dh
    }
}

/// Adds `dh a` to `dn`: what the adapters' inputs contribute to the gradient of the layers' input.
fn add_back_down(inputs: &[FlexTensor], places: &[Places<'_>], dh: &[f32], dn: &mut [f32], in_width: usize) {
    let total_rank = places[0].ranks.stride;
    if total_rank == 0 {
        return;
    }
    let all = |count| Columns { first: 0, count, stride: count };
    if places.iter().all(|it| it.dropout.is_none()) {
        add_product(dn, all(in_width), dh, all(total_rank), &stacked(inputs, places));
        return;
    }
    for it in places {
        let Some(lora) = it.lora else { continue };
        let a = values(&inputs[lora]);
        match it.dropout {
            Some(mask) => {
                let mut seen = vec![0.0; dn.len()];
                add_product(&mut seen, all(in_width), dh, it.ranks, a);
                mask.add_masked(dn, &seen, in_width);
            }
            None => add_product(dn, all(in_width), dh, it.ranks, a),
        }
    }
}
