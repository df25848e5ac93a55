//! Tokens that stand before every sequence and are no words: they are learned, as embeddings (prompt tuning,
//! <https://arxiv.org/abs/2104.08691>) or as keys and values of every block (prefix tuning,
//! <https://arxiv.org/abs/2101.00190>), as PEFT computes them.
//!
//! They are the same before every sequence and see none of it: they are computed once a micro-batch, as a segment that all
//! others go on from, and once for all that decode. Positions of the text begin behind them. Keys of a prefix are not rotated.
//!
//! Shapes: `n` = virtual tokens; `T` = tokens of the micro-batch; `D` = `hidden_size`.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use fthost_data::Batch;

use super::block::{BlockContext, RopeTables};
use super::causal_lm::ids_tensor;
use super::{CausalLm, Parameter, Prefix, PrefixEncoder};
use crate::nn::Rope;
use crate::nn::precision::cast;

/// PEFT's name of virtual tokens.
pub const PROMPT: &str = "prompt_embeddings";

impl CausalLm {
    /// How many virtual tokens stand before every sequence.
    pub fn virtual_tokens(&self) -> usize {
        let of_prefix = || match self.blocks.first()?.prefix.as_deref()? {
            Prefix::Plain(rows) => Some(rows),
            Prefix::Projected { .. } => self.prefix_encoder.as_deref().map(|it| &it.embedding),
        };
        self.prompt.as_deref().or_else(of_prefix).map_or(0, |it| it.dims()[0])
    }

    /// Tokens of a text at most.
    pub fn context_length(&self) -> usize {
        self.config.context_length().saturating_sub(self.virtual_tokens())
    }

    /// Every embedding that is trained, then the virtual tokens', or what their prefixes are made of.
    pub fn visit_trained_embedding(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        let trained = self.trained.clone();
        self.visit_embedding(&mut trained.only(visit));
        if let Some(prompt) = self.prompt.as_deref_mut() {
            visit(PROMPT, Parameter::Matrix(prompt));
        }
        if let Some(encoder) = self.prefix_encoder.as_deref_mut() {
            encoder.visit(visit);
        }
    }

    /// What goes into the blocks: `batch`, behind the virtual tokens where they are embeddings.
    pub fn embed_batch(&self, batch: &Batch) -> Tensor<2> {
        self.behind_prompt(self.embed(&batch.input_ids, &self.shifted(&batch.position_ids)))
    }

    /// Positions of a text behind the virtual tokens.
    pub(crate) fn shifted(&self, position_ids: &[u32]) -> Vec<u32> {
        let before = self.virtual_tokens() as u32;
        position_ids.iter().map(|it| it + before).collect()
    }

    /// `x`, embedded, behind the virtual tokens where they are embeddings.
    pub(crate) fn behind_prompt(&self, x: Tensor<2>) -> Tensor<2> {
        match self.embedded_prompt() {
            Some(prompt) => Tensor::cat(vec![prompt, x], 0),
            None => x,
        }
    }

    /// The virtual tokens as they go into the blocks, `[n, D]`, where they are embeddings.
    pub(crate) fn embedded_prompt(&self) -> Option<Tensor<2>> {
        let prompt = self.prompt.as_deref()?.clone();
        let positions: Vec<u32> = (0..prompt.dims()[0] as u32).collect();
        let prompt = match &self.embed_positions {
            Some(table) => {
                prompt + cast(table.clone(), DType::F32).select(0, ids_tensor(&positions, &self.device()))
            }
            None => prompt,
        };
        Some(cast(prompt, self.compute_dtype.into()))
    }

    /// What projected prefixes are made of, `[n, encoder_hidden_size]`.
    pub(crate) fn encoded_prefix(&self) -> Option<Tensor<2>> {
        self.prefix_encoder.as_deref().map(PrefixEncoder::encoded)
    }

    /// What the last block left of the text, `[T, D]`.
    pub(crate) fn without_prompt(&self, x: Tensor<2>) -> Tensor<2> {
        let Some(prompt) = &self.prompt else { return x };
        let [rows, before] = [x.dims()[0], prompt.dims()[0]];
        x.narrow(0, before, rows - before)
    }

    /// What the blocks share for `batch`.
    pub fn context(&self, batch: &Batch) -> BlockContext {
        let before = self.virtual_tokens() as u32;
        let positions: Vec<u32> = (0..before).chain(self.shifted(&batch.position_ids)).collect();
        let tables = |rope: &Rope| rope.tables(&positions, &self.device());
        self.context_behind(tables, &batch.cu_seqlens, &batch.parents)
    }

    /// What the blocks share for whole sequences, with the tables that `tables` makes of each rotary embedding, virtual
    /// tokens first.
    pub(crate) fn context_behind(
        &self,
        tables: impl Fn(&Rope) -> RopeTables,
        cu_seqlens: &[usize],
        parents: &[Option<usize>],
    ) -> BlockContext {
        let before = self.virtual_tokens();
        if before == 0 {
            return self.context_with(tables, cu_seqlens.into(), parents.into());
        }
        let cu_seqlens: Arc<[usize]> =
            [0].into_iter().chain(cu_seqlens.iter().map(|it| it + before)).collect();
        let roots = cu_seqlens.len() - 2;
        let parent = |it: usize| parents.get(it).copied().flatten().map_or(0, |it| it + 1);
        let parents = [None].into_iter().chain((0..roots).map(|it| Some(parent(it)))).collect();
        let is_prefix = self.prompt.is_none();
        let tables = |rope: &Rope| {
            let (cos, sin) = tables(rope);
            if is_prefix { (unturned(cos, before, 1.0), unturned(sin, before, 0.0)) } else { (cos, sin) }
        };
        self.context_with(tables, cu_seqlens, parents)
    }
}

/// A table whose first rows are all `value`.
fn unturned(table: Tensor<2>, rows: usize, value: f32) -> Tensor<2> {
    let [all, pairs] = table.dims();
    let first = Tensor::full([rows, pairs], value, &table.device());
    Tensor::cat(vec![first, table.narrow(0, rows, all - rows)], 0)
}
