//! Bytes that are alive at the peak of a training step, of a pass without a graph and of generation, from shapes alone.
//!
//! What is counted is what `tests/estimate` finds the allocator to hold. Bookkeeping (graph nodes, names, shapes) is not.

use fthost_kernels::adamw::BLOCK;

use super::block::{BlockNumbers, numbers};
use super::shape::{ModelShape, Role, WeightShape};
use crate::checkpoint::LoadConfig;
use crate::nn::{DecodeWeights, FloatDtype};
use crate::optim::MomentStorage;
use crate::quant::QuantConfig;
use crate::train::ActivationCheckpointing;

/// Bytes of an f32.
pub(super) const F32: u64 = size_of::<f32>() as u64;
/// Logits that the head's loss holds at one time, as `kernels/src/linear_cross_entropy/cpu.rs`.
const LOGITS: u64 = 1 << 24;
/// Values that are widened at a time of what is stored in fewer bits, as `kernels/src/linear/stored.rs`.
const TILE: u64 = 256 * 1024;
/// Tokens of a page of keys and values.
const PAGE: u64 = crate::generate::PAGE as u64;
/// Prompt tokens that are read at one time.
const PREFILL_TOKENS: u64 = crate::generate::PREFILL_TOKENS as u64;

/// What a file holds a weight as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// f32: a frozen one is used where it lies.
    F32,
    /// bf16: where frozen weights are to be bf16, used where it lies.
    Bf16,
    /// Other floats: read into memory.
    Floats,
    /// Packed already, in so many bytes, which are copied.
    Packed(u64),
    /// Packed already, in so many bytes, which are used where they lie.
    Blocks(u64),
}

/// Bytes of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightBytes {
    /// A file's own pages: they count as memory of the process, and the system may take them back.
    pub mapped: u64,
    /// In memory of the process's own.
    pub owned: u64,
}

impl std::ops::AddAssign for WeightBytes {
    fn add_assign(&mut self, other: Self) {
        self.mapped += other.mapped;
        self.owned += other.owned;
    }
}

impl WeightBytes {
    /// Both.
    pub fn total(&self) -> u64 {
        self.mapped + self.owned
    }
}

/// The bytes of the base weights of `shape` as `load` stores them, where `held` says what the file holds each as.
pub fn weights(shape: &ModelShape, load: &LoadConfig, held: impl Fn(&str) -> Held) -> WeightBytes {
    let mut found = WeightBytes::default();
    let transposed = |it: &WeightShape| shape.config.names.is_transposed(&it.name) && it.dims.len() == 2;
    for it in shape.weights() {
        // Of a head that was tied, the other half is the embedding's.
        if it.role != Role::Head || !shape.is_untied {
            found += weight(&it, load, held(&it.name), transposed(&it));
        }
        if shape.has_adapter() && shape.trained.selects(&it.name) {
            // Its own, beside what a reference is computed with.
            found.owned += F32 * it.length() as u64;
        }
    }
    found
}

pub(super) fn weight(it: &WeightShape, load: &LoadConfig, held: Held, transposed: bool) -> WeightBytes {
    let length = it.length() as u64;
    let owned = |owned| WeightBytes { mapped: 0, owned };
    match held {
        Held::Packed(bytes) => return owned(bytes),
        Held::Blocks(mapped) => return WeightBytes { mapped, owned: 0 },
        Held::F32 | Held::Bf16 | Held::Floats => {}
    }
    let packing = load.quant.as_ref().filter(|of| it.role == Role::Linear && of.packs_weight(&it.name));
    if let Some(packing) = packing {
        return owned(packed(packing, it));
    }
    let narrow = load.dtype == FloatDtype::Bf16 && !matches!(it.role, Role::Vector | Role::Positions);
    let bytes = length * if narrow { 2 } else { F32 };
    let in_place = !load.to_train && held == if narrow { Held::Bf16 } else { Held::F32 };
    match (in_place, transposed) {
        (true, false) => WeightBytes { mapped: bytes, owned: 0 },
        // Turned round into memory of its own; the pages it was read from stay.
        (true, true) => WeightBytes { mapped: bytes, owned: bytes },
        (false, _) => owned(bytes),
    }
}

/// Bytes of a weight that is packed as it is loaded.
fn packed(packing: &QuantConfig, it: &WeightShape) -> u64 {
    let length = it.length() as u64;
    match packing {
        QuantConfig::Nf4(options) | QuantConfig::Fp4(options) => {
            let blocks = length.div_ceil(options.block_size as u64);
            // Factors in f32, or in 8 bits with one in f32 for each 256, and an offset.
            let factors = match options.double_quant {
                true => blocks + F32 * blocks.div_ceil(256) + F32,
                false => F32 * blocks,
            };
            length.div_ceil(2) + factors
        }
        QuantConfig::Int8(_) => length + F32 * it.dims[0] as u64,
    }
}

/// Bytes of memory that both moments of parameters of these lengths take.
pub fn moments(trained: &[usize], storage: &MomentStorage) -> u64 {
    let in_f32 = |length: usize| 2 * F32 * length as u64;
    match storage {
        MomentStorage::F32 | MomentStorage::Host => trained.iter().map(|it| in_f32(*it)).sum(),
        MomentStorage::Blocks { min_8bit_size } => {
            let of = |length: usize| match length >= *min_8bit_size {
                true => 2 * (length as u64 + F32 * length.div_ceil(BLOCK) as u64),
                false => in_f32(length),
            };
            trained.iter().map(|it| of(*it)).sum()
        }
        // Those of one parameter at a time: pages are given back behind each update.
        MomentStorage::Paged(_) => trained.iter().map(|it| in_f32(*it)).max().unwrap_or(0),
    }
}

/// Tokens of a micro-batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchTokens {
    /// That go through the blocks: what sequences share counts once.
    pub tokens: u64,
    /// That go through the head.
    pub supervised: u64,
    /// Sequences that they are of, or segments of sequences.
    pub sequences: u64,
}

/// How a step is taken, as far as it decides memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepShape {
    /// What is kept between forward and backward.
    pub checkpointing: ActivationCheckpointing,
    /// Gradients are let go of block by block.
    pub gradient_release: bool,
    /// More than one micro-batch a step: the gradients of one are added to those of the others.
    pub accumulates: bool,
    /// The loss is made of log-probabilities, not of a sum: the head computes its logits twice.
    pub by_logps: bool,
    /// Nothing predicts tokens: a reward model.
    pub is_scored: bool,
}

/// What is alive at the peak of a step beside weights and moments, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepMemory {
    /// What forward keeps for backward.
    pub activations: u64,
    /// What the operation in work needs for as long as it runs.
    pub working: u64,
    /// Gradients of what is trained.
    pub gradients: u64,
}

impl StepMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.activations + self.working + self.gradients
    }

    fn or_more(&mut self, other: Self) {
        if other.total() > self.total() {
            *self = other;
        }
    }
}

/// The numbers of every block of `shape` over a batch of so many `sequences`.
pub fn blocks(shape: &ModelShape, sequences: u64) -> Vec<BlockNumbers> {
    shape.blocks.iter().map(|it| numbers(shape, it, sequences)).collect()
}

/// The peak of one optimizer step over micro-batches of which `batch` is the largest.
pub fn step(shape: &ModelShape, how: &StepShape, batch: BatchTokens) -> StepMemory {
    let config = &shape.config;
    // Virtual tokens are computed once a micro-batch.
    let (tokens, width) = (batch.tokens + (shape.prompt + shape.prefix) as u64, config.hidden_size as u64);
    let row = F32 * tokens * width;
    let blocks = blocks(shape, batch.sequences);
    let vocabulary = (config.vocab_size * config.hidden_size) as u64 * F32;
    let kept = |index: usize| match how.checkpointing.rebuilds(index) {
        true => row,
        false => F32 * tokens * blocks[index].kept,
    };
    let before = if how.accumulates { F32 * shape.trained_values() } else { 0 };
    // Tables of the rotary embeddings, and what goes up from block to block.
    let mut activations = F32 * tokens * tables(shape) + row;
    let mut peak = StepMemory::default();
    for (index, block) in blocks.iter().enumerate() {
        activations += kept(index);
        let working = match how.checkpointing.rebuilds(index) {
            true => F32 * tokens * block.forward,
            false => F32 * tokens * block.graph,
        };
        peak.or_more(StepMemory { activations, working, gradients: before });
    }
    let mut gradients = before;
    let of_tied = if shape.trains_tied_head() && !how.is_scored { vocabulary } else { 0 };
    let of_head = F32 * shape.selected(shape.heads()) + of_tied;
    let working = head(shape, how, batch);
    peak.or_more(StepMemory { activations, working, gradients: gradients + of_head });
    gradients += if how.gradient_release { of_tied } else { of_head };
    for (index, block) in blocks.iter().enumerate().rev() {
        let graph = F32 * tokens * block.kept;
        let others = activations - kept(index);
        let of_block = F32 * block.trained;
        // The stream's gradient comes from above.
        let working = F32 * (tokens * block.backward.saturating_sub(block.kept));
        let gradients_then = gradients + F32 * block.backward_weights;
        peak.or_more(StepMemory { activations: others + graph, working, gradients: gradients_then });
        activations = others;
        // Those of another micro-batch are added to what is there already.
        gradients += if how.gradient_release || how.accumulates { 0 } else { of_block };
    }
    let embeddings = F32 * (shape.selected(shape.embeddings()) + shape.prompt as u64 * width);
    if embeddings > 0 {
        let working = row;
        peak.or_more(StepMemory { activations, working, gradients: gradients + embeddings - of_tied });
    }
    peak
}

/// How many of the first blocks, some but not all, have to be computed again for a step to peak no higher than with all of
/// them ([`ActivationCheckpointing::FirstN`]); `None` where no such number does, or none has to be. `how.checkpointing` does not
/// count.
pub fn blocks_again(shape: &ModelShape, how: &StepShape, batch: BatchTokens) -> Option<usize> {
    let peak = |checkpointing| step(shape, &StepShape { checkpointing, ..*how }, batch).total();
    let of_all = peak(ActivationCheckpointing::Block);
    let enough = |it: &usize| peak(ActivationCheckpointing::FirstN(*it)) <= of_all;
    (0..shape.blocks.len()).find(enough).filter(|it| *it > 0)
}

/// Numbers a token of the rotary embeddings' tables.
fn tables(shape: &ModelShape) -> u64 {
    shape.config.ropes.iter().map(|it| it.head_dim as u64).sum()
}

/// What final norm, head and loss need beside what is kept, in a step.
fn head(shape: &ModelShape, how: &StepShape, batch: BatchTokens) -> u64 {
    let width = shape.config.hidden_size as u64;
    let (row, states) = (F32 * batch.tokens * width, F32 * batch.supervised * width);
    // The norm's gradient, from that of the states that were chosen, which is spread over all tokens.
    let back = 2 * row + states;
    if how.is_scored {
        return back + row;
    }
    // Chosen states and their gradient, beside the logits.
    back.max(2 * states + logits(shape, batch.supervised))
}

/// Logits of the head's loss over `rows` rows, and what it widens of a head in fewer bits.
fn logits(shape: &ModelShape, rows: u64) -> u64 {
    let vocabulary = shape.config.vocab_size as u64;
    F32 * (LOGITS / vocabulary).clamp(1, rows.max(1)) * vocabulary
}

/// What is widened at a time of frozen weights in fewer bits.
pub fn tile(load: &LoadConfig) -> u64 {
    let is_narrow = load.quant.is_some() || load.dtype != FloatDtype::F32;
    if is_narrow { F32 * TILE } else { 0 }
}

/// The peak of a pass without a graph over a micro-batch, and the loss of what it supervises.
pub fn pass(shape: &ModelShape, batch: BatchTokens) -> u64 {
    let row = F32 * batch.tokens * shape.config.hidden_size as u64;
    let states = F32 * batch.supervised * shape.config.hidden_size as u64;
    let tables = F32 * batch.tokens * tables(shape);
    let largest = blocks(shape, batch.sequences).iter().map(|it| it.forward).max().unwrap_or(0);
    let of_blocks = F32 * batch.tokens * largest;
    let of_head = (2 * row + states).max(row + states + logits(shape, batch.supervised));
    (tables + of_blocks).max(of_head)
}

/// Sequences that are sampled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sampling {
    /// Completions that grow at one time.
    pub rows: u64,
    /// Completions of a prompt, which share it.
    pub of_prompt: u64,
    /// Tokens of a prompt.
    pub prompt: u64,
    /// Tokens of a completion.
    pub completion: u64,
}

/// What generation takes beside the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GenerationMemory {
    /// Keys and values, in pages.
    pub cache: u64,
    /// Logits of every row, and the largest pass over prompts or new tokens.
    pub working: u64,
    /// Matrices that are read in fewer bits.
    pub copies: u64,
}

impl GenerationMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.cache + self.working + self.copies
    }
}

/// The peak of generation from a model of `shape` whose matrices are read as `weights`; `is_packed` leaves linears as they are.
pub fn generation(
    shape: &ModelShape,
    sampling: &Sampling,
    weights: DecodeWeights,
    is_packed: bool,
) -> GenerationMemory {
    let config = &shape.config;
    let keys = (config.num_key_value_heads * config.head_dim) as u64;
    let of_page = 2 * F32 * config.num_hidden_layers() as u64 * keys * PAGE;
    // Whole pages of a prompt are shared; each completion goes on in pages of its own.
    let whole = sampling.prompt / PAGE;
    let own = (sampling.prompt + sampling.completion).div_ceil(PAGE) - whole;
    let pages = sampling.rows.div_ceil(sampling.of_prompt.max(1)) * whole + sampling.rows * own;
    let rows = F32 * sampling.rows * config.vocab_size as u64;
    let prompts = sampling.rows.div_ceil(sampling.of_prompt.max(1)) * sampling.prompt;
    let forward = blocks(shape, sampling.rows).iter().map(|it| it.forward).max().unwrap_or(0);
    let pass = F32 * prompts.min(PREFILL_TOKENS).max(sampling.rows) * forward;
    GenerationMemory {
        cache: pages * of_page,
        // Logits and the copy of them that is sampled from.
        working: (2 * rows).max(pass),
        copies: copies(shape, weights, is_packed),
    }
}

fn copies(shape: &ModelShape, weights: DecodeWeights, is_packed: bool) -> u64 {
    let config = &shape.config;
    let linears = shape.weights().filter(|it| matches!(it.role, Role::Linear | Role::Router) && !is_packed);
    let matrices: u64 =
        linears.map(|it| it.length() as u64).sum::<u64>() + (config.vocab_size * config.hidden_size) as u64;
    match weights {
        DecodeWeights::F32 => 0,
        DecodeWeights::Bf16 => 2 * matrices,
        // A scale for each 64 values.
        DecodeWeights::Int8 => matrices + F32 * matrices.div_ceil(64),
    }
}
