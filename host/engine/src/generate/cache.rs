//! Keys and values of the sequences in work, in pages from one pool.
//!
//! A page holds a fixed number of tokens of one sequence, in every layer at the same place. Completions of one prompt
//! share its pages; the last one, where it is not full, is copied as soon as one of them goes on in it. The pages of a
//! sequence that is done serve the next. The pool grows in steps.

use burn::tensor::{DType, Device, Tensor, TensorData};
use fthost_kernels::{PagedAttentionConfig, PagedSequence, Pages, paged_qkv_attention};

use crate::models::CausalLm;
use crate::models::block::RopeTables;

/// Tokens of a page.
pub(crate) const PAGE: usize = 32;
/// Bytes that a cache may take, at four a value, before it knows what it needs.
const RESERVED: usize = 512 << 20;
/// Pages by which the pool grows at least.
const GROWTH: usize = 16;

/// Keys and values of every block.
#[derive(Debug)]
pub(super) struct KvCache {
    layers: Vec<Pages>,
    /// Sequences that use each page.
    users: Vec<u32>,
    /// Pages that nobody uses; the last one is taken next.
    free: Vec<u32>,
    rows: Vec<Row>,
    /// The virtual tokens that every row begins with.
    root: Row,
    device: Device,
}

/// A sequence in work.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pages: Vec<u32>,
    length: usize,
}

impl KvCache {
    /// Without a sequence. `tokens` is what its rows may come to hold: pages for them are there from the start as far as
    /// they take no more than [`RESERVED`], and on the CPU they take memory only when they are written to.
    pub(super) fn new(model: &CausalLm, tokens: usize) -> Self {
        let of_token = 8 * model.blocks.len() * model.config.num_key_value_heads * model.config.head_dim;
        let pages = tokens.min(RESERVED / of_token).div_ceil(PAGE).max(1);
        let shape = [pages, model.config.num_key_value_heads, PAGE, model.config.head_dim];
        let (device, dtype): (_, DType) = (model.device(), model.compute_dtype.into());
        let empty = || Tensor::zeros(shape, (&device, dtype));
        let layers = model.blocks.iter().map(|_| Pages { keys: empty(), values: empty() }).collect();
        let free = (0..pages as u32).rev().collect();
        Self { layers, users: vec![0; pages], free, rows: Vec::new(), root: Row::default(), device }
    }

    /// Tokens of the text of `row`.
    pub(super) fn length(&self, row: usize) -> usize {
        self.rows[row].length - self.root.length
    }

    /// Virtual tokens of every row.
    pub(super) fn before(&self) -> usize {
        self.root.length
    }

    /// A further row, without a token of a text. Returns its number.
    pub(super) fn open(&mut self) -> usize {
        let root = self.root.clone();
        self.open_as(&root)
    }

    /// Every row that is opened from now on begins with the tokens of the last row, which is no row any more.
    pub(super) fn make_root(&mut self) {
        let root = self.rows.pop().expect("a row was opened");
        let old = std::mem::replace(&mut self.root, root);
        self.release(old);
    }

    /// A further row with the tokens of `row`, whose pages both use. Returns its number.
    pub(super) fn fork(&mut self, row: usize) -> usize {
        let forked = self.keep(row);
        self.rows.push(forked);
        self.rows.len() - 1
    }

    /// The tokens of `row`, kept however it goes on, until they are released.
    pub(super) fn keep(&mut self, row: usize) -> Row {
        let kept = self.rows[row].clone();
        kept.pages.iter().for_each(|page| self.users[*page as usize] += 1);
        kept
    }

    /// A further row with the tokens of `kept`. Returns its number.
    pub(super) fn open_as(&mut self, kept: &Row) -> usize {
        kept.pages.iter().for_each(|page| self.users[*page as usize] += 1);
        self.rows.push(kept.clone());
        self.rows.len() - 1
    }

    /// Frees `row`; the last row takes its number.
    pub(super) fn close(&mut self, row: usize) {
        let closed = self.rows.swap_remove(row);
        self.release(closed);
    }

    /// Forgets the tokens of the text of `row`, which stays.
    pub(super) fn clear(&mut self, row: usize) {
        let root = self.root.clone();
        root.pages.iter().for_each(|page| self.users[*page as usize] += 1);
        let old = std::mem::replace(&mut self.rows[row], root);
        self.release(old);
    }

    /// Gives up the pages of `row`.
    pub(super) fn release(&mut self, row: Row) {
        for page in row.pages {
            let users = &mut self.users[page as usize];
            *users -= 1;
            if *users == 0 {
                self.free.push(page);
            }
        }
    }

    /// Makes room for new tokens: of each row, as many as stand beside its number. How they attend is each block's to say.
    pub(super) fn extend(&mut self, new: &[(usize, usize)]) -> PagedAttentionConfig {
        for &(row, count) in new {
            let first = self.rows[row].length;
            let length = first + count;
            if count > 0 && !first.is_multiple_of(PAGE) {
                self.own_last_page(row);
            }
            while self.rows[row].pages.len() * PAGE < length {
                let page = self.take_page();
                self.rows[row].pages.push(page);
            }
            self.rows[row].length = length;
        }
        let sequence = |&(row, queries): &(usize, usize)| PagedSequence {
            pages: self.rows[row].pages.clone(),
            length: self.rows[row].length,
            queries,
        };
        let scale = (self.head_dim() as f64).powf(-0.5);
        PagedAttentionConfig {
            sequences: new.iter().map(sequence).collect(),
            page: PAGE,
            scale,
            window: None,
            softcap: None,
        }
    }

    /// Takes in the keys and values of new tokens, and lets them attend to all of their sequences: see
    /// [`paged_qkv_attention`].
    pub(super) fn attend(
        &mut self,
        layer: usize,
        new: &PagedAttentionConfig,
        qkv: Tensor<2>,
        tables: Option<RopeTables>,
    ) -> Tensor<2> {
        paged_qkv_attention(qkv, tables, &mut self.layers[layer], new)
    }

    fn head_dim(&self) -> usize {
        self.layers[0].keys.dims()[3]
    }

    /// Keys and values of every layer.
    fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Tensor<4>> {
        self.layers.iter_mut().flat_map(|it| [&mut it.keys, &mut it.values])
    }

    fn take_page(&mut self) -> u32 {
        if self.free.is_empty() {
            self.grow();
        }
        let page = self.free.pop().expect("the pool has grown");
        self.users[page as usize] = 1;
        page
    }

    /// A copy of the row's last page where others use it too.
    fn own_last_page(&mut self, row: usize) {
        let shared = *self.rows[row].pages.last().expect("a row that is not empty has a page");
        if self.users[shared as usize] == 1 {
            return;
        }
        let own = self.take_page();
        self.users[shared as usize] -= 1;
        *self.rows[row].pages.last_mut().expect("as above") = own;
        let from = Tensor::from_data(TensorData::new(vec![shared as i32], [1]), &self.device);
        let to = own as usize;
        for tensor in self.tensors_mut() {
            // `select` copies; a view would share the storage and make the assignment copy all of it.
            let page = tensor.clone().select(0, from.clone());
            let [_, heads, tokens, width] = tensor.dims();
            tensor.inplace(|it| it.slice_assign([to..to + 1, 0..heads, 0..tokens, 0..width], page));
        }
    }

    /// By half at least, so that everything is copied a few times only.
    fn grow(&mut self) {
        let old = self.users.len();
        let new = old + (old / 2).max(GROWTH);
        let device = self.device.clone();
        for tensor in self.tensors_mut() {
            let [_, heads, tokens, width] = tensor.dims();
            let larger = Tensor::zeros([new, heads, tokens, width], (&device, tensor.dtype()));
            tensor.inplace(|it| larger.slice_assign([0..old, 0..heads, 0..tokens, 0..width], it));
        }
        self.users.resize(new, 0);
        self.free.extend((old as u32..new as u32).rev());
    }

    /// Pages in use, and all.
    #[cfg(test)]
    pub(super) fn pages(&self) -> (usize, usize) {
        (self.users.len() - self.free.len(), self.users.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::load_model;

    fn cache(tokens: usize) -> KvCache {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/llama/gqa_tied");
        KvCache::new(&load_model(&folder, &Device::flex()).unwrap(), tokens)
    }

    /// Writes `count` tokens with value `value` to `row`, in the first layer.
    fn write(cache: &mut KvCache, row: usize, count: usize, value: f32) {
        let new = cache.extend(&[(row, count)]);
        let [_, heads, _, width] = cache.layers[0].values.dims();
        let full = |width: usize, value: f32| Tensor::<2>::full([count, width], value, &Device::flex());
        // As many heads of queries as of keys.
        cache.attend(0, &new, full(3 * heads * width, value), None);
    }

    /// One value of each token of `row`, from the first layer's values.
    fn read(cache: &KvCache, row: usize) -> Vec<f32> {
        let all = cache.layers[0].values.clone().narrow(1, 0, 1).narrow(3, 0, 1);
        let all = all.try_into_vec_as::<f32>().unwrap();
        let row = &cache.rows[row];
        (0..row.length).map(|it| all[row.pages[it / PAGE] as usize * PAGE + it % PAGE]).collect()
    }

    #[test]
    fn completions_share_a_prompt_until_they_go_on() {
        let mut cache = cache(1);
        let first = cache.open();
        write(&mut cache, first, PAGE + 3, 1.0);
        let second = cache.fork(first);
        let third = cache.fork(first);
        assert_eq!(cache.pages().0, 2);
        write(&mut cache, first, 1, 2.0);
        write(&mut cache, second, 2, 3.0);
        // The full page is still shared, the other one copied by all but the last to go on.
        assert_eq!(cache.pages().0, 4);
        write(&mut cache, third, 1, 4.0);
        assert_eq!(cache.pages().0, 4);
        let expected = |end: &[f32]| [&[1.0; PAGE + 3][..], end].concat();
        assert_eq!(read(&cache, first), expected(&[2.0]));
        assert_eq!(read(&cache, second), expected(&[3.0, 3.0]));
        assert_eq!(read(&cache, third), expected(&[4.0]));
    }

    #[test]
    fn pages_of_a_sequence_that_is_done_serve_the_next() {
        let mut cache = cache(1);
        for round in 0..5 {
            let rows = [cache.open(), cache.open()];
            write(&mut cache, rows[0], 3 * PAGE, round as f32);
            write(&mut cache, rows[1], 5 * PAGE + 1, 0.5);
            assert_eq!(cache.pages().0, 9);
            cache.close(rows[0]);
            assert_eq!(read(&cache, 0), vec![0.5; 5 * PAGE + 1]);
            cache.close(0);
        }
        assert_eq!(cache.pages(), (0, 1 + GROWTH));
    }
}
