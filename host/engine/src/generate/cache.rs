//! Keys and values of the sequences in work, and attention of one new token a sequence to them.
//!
//! A sequence has a row; the rows in work are the first ones, so that a view without a copy holds them. Rows are as
//! long as the longest sequence needs and grow in large steps. Shorter rows are masked.

use burn::tensor::{DType, Device, Tensor, TensorData, activation};

use crate::models::CausalLm;
use crate::nn::precision::cast;

/// Tokens by which rows grow at least.
const GROWTH: usize = 64;

/// Keys and values of every block, `[rows, kv_heads, capacity, head_dim]` each.
#[derive(Debug)]
pub(super) struct KvCache {
    layers: Vec<[Tensor<4>; 2]>,
    capacity: usize,
    /// Tokens of each sequence in work, by row.
    lengths: Vec<usize>,
    device: Device,
}

impl KvCache {
    /// Room for `rows` sequences of at first `capacity` tokens.
    pub(super) fn new(model: &CausalLm, rows: usize, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(GROWTH);
        let shape = [rows, model.config.kv_heads(), capacity, model.config.head_dim()];
        let (device, dtype): (_, DType) = (model.device(), model.compute_dtype.into());
        let empty = || Tensor::zeros(shape, (&device, dtype));
        let layers = model.blocks.iter().map(|_| [empty(), empty()]).collect();
        Self { layers, capacity, lengths: Vec::with_capacity(rows), device }
    }

    /// Tokens of each sequence in work, by row.
    pub(super) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// A further row of `length` tokens, whose keys and values follow by [`KvCache::write`]. Returns its number.
    pub(super) fn open(&mut self, length: usize) -> usize {
        self.reserve(length);
        self.lengths.push(length);
        self.lengths.len() - 1
    }

    /// Room for one more token in every row, which [`KvCache::append`] then fills.
    pub(super) fn extend(&mut self) {
        self.lengths.iter_mut().for_each(|it| *it += 1);
        self.reserve(self.lengths.iter().copied().max().unwrap_or(0));
    }

    /// Frees `row`; the last row takes its number.
    pub(super) fn close(&mut self, row: usize) {
        let last = self.lengths.len() - 1;
        self.lengths.swap_remove(row);
        if row == last {
            return;
        }
        let from = Tensor::from_data(TensorData::new(vec![last as i32], [1]), &self.device);
        for tensor in self.layers.iter_mut().flatten() {
            // `select` copies; a view would share the storage and make the assignment copy all of it.
            let moved = tensor.clone().select(0, from.clone());
            let [_, heads, capacity, width] = tensor.dims();
            tensor.inplace(|it| it.slice_assign([row..row + 1, 0..heads, 0..capacity, 0..width], moved));
        }
    }

    /// Writes a prompt's keys and values, `[len, kv_heads, head_dim]` each, to the beginning of `row`.
    pub(super) fn write(&mut self, layer: usize, row: usize, keys: Tensor<3>, values: Tensor<3>) {
        for (tensor, new) in self.layers[layer].iter_mut().zip([keys, values]) {
            let [length, heads, width] = new.dims();
            let new = new.swap_dims(0, 1).unsqueeze::<4>();
            tensor.inplace(|it| it.slice_assign([row..row + 1, 0..heads, 0..length, 0..width], new));
        }
    }

    /// Writes one token a row, `[rows, kv_heads, head_dim]` each, to the end that [`KvCache::extend`] made.
    pub(super) fn append(&mut self, layer: usize, keys: Tensor<3>, values: Tensor<3>) {
        for (tensor, new) in self.layers[layer].iter_mut().zip([keys, values]) {
            let [_, heads, width] = new.dims();
            let new = new.unsqueeze_dim::<4>(2);
            for (row, length) in self.lengths.iter().enumerate() {
                let one = new.clone().narrow(0, row, 1);
                let place = [row..row + 1, 0..heads, length - 1..*length, 0..width];
                tensor.inplace(|it| it.slice_assign(place, one));
            }
        }
    }

    /// What is added to the scores, `[rows, 1, 1, longest]`: negative infinity past a row's end. `None` where all
    /// rows are of one length.
    pub(super) fn bias(&self) -> Option<Tensor<4>> {
        let (rows, longest) = (self.lengths.len(), self.longest());
        if self.lengths.iter().all(|it| *it == longest) {
            return None;
        }
        let mut bias = vec![0.0f32; rows * longest];
        for (row, length) in self.lengths.iter().enumerate() {
            bias[row * longest + length..(row + 1) * longest].fill(f32::NEG_INFINITY);
        }
        Some(Tensor::from_data(TensorData::new(bias, [rows, 1, 1, longest]), &self.device))
    }

    /// Attention of the rows' last tokens, `[rows, heads, head_dim]`, to everything in their rows.
    pub(super) fn attend(&self, layer: usize, q: Tensor<3>, bias: Option<&Tensor<4>>) -> Tensor<3> {
        let [rows, heads, width] = q.dims();
        let [keys, values] =
            self.layers[layer].clone().map(|it| it.narrow(0, 0, rows).narrow(2, 0, self.longest()));
        let (kv_heads, dtype) = (keys.dims()[1], q.dtype());
        // Query heads of one group share a key head.
        let q = q.reshape([rows, kv_heads, heads / kv_heads, width]).mul_scalar((width as f64).powf(-0.5));
        let scores = cast(q.matmul(keys.swap_dims(2, 3)), DType::F32);
        let scores = match bias {
            Some(bias) => scores + bias.clone(),
            None => scores,
        };
        let mixed = cast(activation::softmax(scores, 3), dtype).matmul(values);
        mixed.reshape([rows, heads, width])
    }

    fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    fn reserve(&mut self, length: usize) {
        if length <= self.capacity {
            return;
        }
        // By half at least, so that everything is copied a few times only.
        let capacity = length.max(self.capacity + self.capacity / 2).next_multiple_of(GROWTH);
        let used = self.lengths.len();
        for tensor in self.layers.iter_mut().flatten() {
            let [rows, heads, old, width] = tensor.dims();
            let larger = Tensor::zeros([rows, heads, capacity, width], (&self.device, tensor.dtype()));
            tensor.inplace(|it| {
                larger.slice_assign([0..used, 0..heads, 0..old, 0..width], it.narrow(0, 0, used))
            });
        }
        self.capacity = capacity;
    }
}
