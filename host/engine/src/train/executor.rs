//! The trunk, block by block: what is kept between forward and backward is decided here and nowhere else.
//!
//! A block is a graph of its own. Forward keeps it, with what the operations in it need, or keeps the block's input
//! alone; backward then builds the graph again. Either way backward takes one block's vector-Jacobian product, hands
//! its gradients over and drops the graph before it goes on to the block below.

use burn::tensor::{DType, IndexingUpdateOp, Tensor};
use fthost_data::Batch;
use fthost_kernels::pull_back;
use serde::{Deserialize, Serialize};

use super::kept_input::KeptInput;
use crate::models::causal_lm::ids_tensor;
use crate::models::{Block, BlockContext, CausalLm, Heads, Parameter, Part};
use crate::nn::precision::cast;
use crate::shard::Weights;

/// `train.activation_checkpointing`: what is kept between forward and backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationCheckpointing {
    /// Everything backward needs: the fastest, and the most memory.
    #[default]
    Off,
    /// The input of every block: each is computed twice, and memory grows by one row of numbers a token and block.
    Block,
    /// As `Block`, the inputs in the memory of the host. On the CPU that is where they are anyway.
    Offload,
    /// The input of every n-th block, which is computed twice, and everything of the others.
    EveryN(usize),
    /// The inputs of the first n blocks, which are computed twice, and everything of those above. Backward is done with these
    /// first, and where all weights are trained their gradients take the room: up to some n they cost no memory at the peak.
    /// Megatron-LM's `--recompute-method block`.
    FirstN(usize),
}

impl ActivationCheckpointing {
    /// Every impossible value, with its key.
    pub fn problems(self) -> Vec<String> {
        let zero = match self {
            Self::EveryN(0) => "every_n",
            Self::FirstN(0) => "first_n",
            _ => return Vec::new(),
        };
        vec![format!("`activation_checkpointing.{zero}` must be > 0, got `0`")]
    }

    /// Whether the block at `index` is computed again.
    pub(crate) fn rebuilds(self, index: usize) -> bool {
        match self {
            Self::Off => false,
            Self::Block | Self::Offload => true,
            Self::EveryN(n) => index.is_multiple_of(n.max(1)),
            Self::FirstN(n) => index < n,
        }
    }
}

/// A block between forward and backward.
#[expect(clippy::large_enum_variant, reason = "one a block of the model")]
enum Kept {
    /// What went in, and the block where it is not to be gathered again.
    Input(KeptInput, Option<Box<Block>>),
    /// Its graph, from leaf to output, with the weights that are leaves of it.
    ///
    /// `encoded` is the leaf that a projected prefix was made of.
    Graph { block: Box<Block>, leaf: Tensor<2>, encoded: Option<Tensor<2>>, output: Tensor<2> },
}

/// The trunk after its forward pass.
pub struct Trunk<'a> {
    model: &'a mut CausalLm,
    batch: &'a Batch,
    context: BlockContext,
    kept: Vec<Kept>,
    /// What the last block left, `[T, D]`, before the final norm.
    output: Tensor<2>,
    weights: Weights,
}

/// Where gradients go: those of a part, flat, in the order of its visitor.
///
/// No graph holds the part's weights any more: whoever takes the gradients may update them at once, in place.
pub type Sink<'a> = dyn FnMut(&mut CausalLm, Part, Vec<Tensor<1>>) + 'a;

/// What stands on the trunk: final norm and heads, of which the embedding may be one.
fn heads_of(model: &CausalLm) -> &'static [Part] {
    if model.lm_head.is_some() { &[Part::Head] } else { &[Part::Head, Part::Embedding] }
}

/// Whether a block of `model` is let go of behind its forward pass. The last one is the first that backward asks for.
fn lets_go(model: &CausalLm, index: usize) -> bool {
    let reshards = model.shared_weights().is_some_and(|it| it.mesh.config.reshard_after_forward);
    reshards && index + 1 < model.blocks.len()
}

/// The parts of `model` in the order in which a pass forward and back asks for them.
fn there_and_back(model: &CausalLm) -> impl Iterator<Item = Part> {
    let blocks = 0..model.blocks.len();
    let back = blocks.clone().rev().filter(|it| lets_go(model, *it)).map(Part::Block);
    let encoder = model.prefix_encoder.is_some().then_some(Part::Embedding);
    let there = [Part::Embedding].into_iter().chain(blocks.map(Part::Block));
    there.chain(heads_of(model).iter().copied()).chain(back).chain(encoder)
}

impl CausalLm {
    /// Hidden states after the final norm, `[T, D]`, and what stands on them, without a graph.
    pub fn forward(&self, batch: &Batch) -> (Tensor<2>, Heads) {
        let blocks = 0..self.blocks.len();
        let order = [Part::Embedding].into_iter().chain(blocks.clone().map(Part::Block));
        let mut weights = Weights::new(self, order.chain(heads_of(self).iter().copied()));
        let ends = weights.ends(self, &[Part::Embedding]);
        let (context, x) = (ends.context(batch), ends.embed_batch(batch));
        drop(ends);
        let x = blocks.fold(x, |x, index| weights.block(self, index).forward(x, &context));
        let ends = weights.ends(self, heads_of(self));
        (ends.final_norm(self.without_prompt(x)), ends.heads())
    }
}

impl<'a> Trunk<'a> {
    /// Runs every block over `batch`. A block that is let go of is computed again, whatever `checkpointing` says.
    pub fn forward(
        model: &'a mut CausalLm,
        batch: &'a Batch,
        checkpointing: ActivationCheckpointing,
    ) -> Self {
        let mut weights = Weights::new(model, there_and_back(model));
        let ends = weights.ends(model, &[Part::Embedding]);
        let (context, mut x) = (ends.context(batch), ends.embed_batch(batch));
        drop(ends);
        let offloads = checkpointing == ActivationCheckpointing::Offload;
        let mut kept = Vec::with_capacity(model.blocks.len());
        for index in 0..model.blocks.len() {
            let (block, lets_go) = (weights.block(model, index), lets_go(model, index));
            if lets_go || checkpointing.rebuilds(index) {
                let input = x.clone();
                x = block.forward(x, &context);
                kept.push(Kept::Input(KeptInput::new(input, offloads), (!lets_go).then_some(block)));
            } else {
                let graph = graph_of(model, index, block, x, &context, Block::forward);
                let Kept::Graph { output, .. } = &graph else { unreachable!("made as one") };
                x = output.clone().inner();
                kept.push(graph);
            }
        }
        Self { output: model.without_prompt(x), model, batch, context, kept, weights }
    }

    /// The `loss` of the hidden states, `[T, D]`, and what stands on them, then everything back down: gradients of what
    /// is trained go to `sink`, part by part from the top.
    ///
    /// `loss` returns the scalar to differentiate and what else it found.
    pub fn backward<R>(
        self,
        loss: impl FnOnce(Tensor<2>, Heads) -> (Tensor<1>, R),
        sink: &mut Sink<'_>,
    ) -> R {
        let Self { model, batch, context, kept, output, mut weights } = self;
        let ends = weights.ends(model, heads_of(model));
        let (downstream, of_embedding, found) = head(model, ends, output, loss, sink);
        let mut downstream = Some(behind_zeros(model.prompt.as_deref(), downstream));
        let mut of_encoded: Option<Tensor<2>> = None;
        for (index, kept) in kept.into_iter().enumerate().rev() {
            let graph = match kept {
                Kept::Input(x, block) => {
                    let block = block.unwrap_or_else(|| weights.block(model, index));
                    // Its output is there already.
                    graph_of(model, index, block, x.into_tensor(), &context, Block::forward_for_gradients)
                }
                graph => graph,
            };
            let Kept::Graph { mut block, leaf, encoded, output } = graph else { unreachable!("made above") };
            let above = downstream.expect("only the lowest block may have nothing below");
            let gradients = pull_back(output, above).backward();
            let mut of_block = Vec::new();
            block.visit_trained(&model.trained, &model.block_path(index), &mut |_, parameter| {
                of_block.push(parameter.gradient(&gradients));
            });
            // Below the first block of a frozen embedding nothing is learned, and nothing was tracked.
            downstream = leaf.grad(&gradients).map(Tensor::inner);
            let of_this = encoded.and_then(|it| it.grad(&gradients)).map(Tensor::inner);
            of_encoded = [of_encoded, of_this].into_iter().flatten().reduce(|sum, it| sum + it);
            drop(gradients);
            drop(block);
            sink(model, Part::Block(index), of_block);
        }
        let gradients = match (of_encoded, downstream) {
            (Some(of_encoded), _) => of_encoder(&weights.ends(model, &[Part::Embedding]), of_encoded),
            (None, Some(downstream)) => of_embeddings(model, batch, downstream, of_embedding),
            (None, None) => return found,
        };
        sink(model, Part::Embedding, gradients);
        found
    }
}

/// Gradients of what is trained below the blocks, flat; that of the embedding begins with what it has got as a head.
fn of_embeddings(
    model: &CausalLm,
    batch: &Batch,
    downstream: Tensor<2>,
    as_head: Option<Tensor<2>>,
) -> Vec<Tensor<1>> {
    let (device, names) = (model.device(), model.config.names);
    let downstream = cast(downstream, DType::F32);
    let of_text = model.without_prompt(downstream.clone());
    let scatter = |onto: Tensor<2>, ids: &[u32], from: Tensor<2>| {
        onto.select_assign(0, ids_tensor(ids, &device), from, IndexingUpdateOp::Add).flatten(0, 1)
    };
    let mut found = Vec::new();
    if model.trained.selects(names.embedding) {
        let as_head = as_head.unwrap_or_else(|| Tensor::zeros_like(&model.embed_tokens));
        let scaled = match model.config.embedding_scale {
            Some(scale) => of_text.clone().mul_scalar(scale),
            None => of_text.clone(),
        };
        found.push(scatter(as_head, &batch.input_ids, scaled));
    }
    if let (Some(name), Some(positions)) = (names.positions, &model.embed_positions)
        && model.trained.selects(name)
    {
        let position_ids = model.shifted(&batch.position_ids);
        found.push(scatter(Tensor::zeros_like(positions), &position_ids, of_text));
    }
    if let Some(prompt) = &model.prompt {
        found.push(downstream.narrow(0, 0, prompt.dims()[0]).flatten(0, 1));
    }
    found
}

/// Gradients of what projected prefixes are made of, flat, from that of what the blocks were given; no embedding is trained
/// beside them.
fn of_encoder(model: &CausalLm, of_encoded: Tensor<2>) -> Vec<Tensor<1>> {
    let mut encoder = model.prefix_encoder.clone().expect("a gradient of its output comes from it");
    encoder.visit(&mut |_, parameter| parameter.track());
    let gradients = pull_back(encoder.encoded(), of_encoded).backward();
    let mut found = Vec::new();
    encoder.visit(&mut |_, parameter| found.push(parameter.gradient(&gradients)));
    found
}

/// The gradient of what the last block left, from that of the text: nobody asks what it left of virtual tokens.
fn behind_zeros(prompt: Option<&Tensor<2>>, of_text: Tensor<2>) -> Tensor<2> {
    let Some(prompt) = prompt else { return of_text };
    let zeros = cast(Tensor::zeros(prompt.dims(), &of_text.device()), of_text.dtype());
    Tensor::cat(vec![zeros, of_text], 0)
}

/// Final norm, heads and loss: the gradient of the trunk's output, and the head's share in that of a tied embedding.
fn head<R>(
    model: &mut CausalLm,
    ends: CausalLm,
    output: Tensor<2>,
    loss: impl FnOnce(Tensor<2>, Heads) -> (Tensor<1>, R),
    sink: &mut Sink<'_>,
) -> (Tensor<2>, Option<Tensor<2>>, R) {
    let mut tracked = CausalLm { blocks: Vec::new(), ..ends };
    let trains_tied_head = tracked.trains_tied_head();
    tracked.visit_trained_head(&mut |_, parameter| parameter.track());
    if trains_tied_head {
        Parameter::Matrix(&mut tracked.embed_tokens).track();
    }
    let leaf = output.autodiff().require_grad();
    let (scalar, found) = loss(tracked.final_norm(leaf.clone()), tracked.heads());
    let gradients = scalar.backward();
    let downstream = leaf.grad(&gradients).expect("the loss depends on its input").inner();
    let mut of_heads = Vec::new();
    tracked.visit_trained_head(&mut |_, parameter| {
        of_heads.push(parameter.gradient(&gradients));
    });
    let of_embedding =
        if trains_tied_head { tracked.embed_tokens.grad(&gradients).map(Tensor::inner) } else { None };
    drop((gradients, tracked));
    if !of_heads.is_empty() {
        sink(model, Part::Head, of_heads);
    }
    (downstream, of_embedding, found)
}

/// The graph of `block`, the one at `index`, from a leaf `x`, which `forward` makes.
fn graph_of(
    model: &CausalLm,
    index: usize,
    mut block: Box<Block>,
    x: Tensor<2>,
    context: &BlockContext,
    forward: fn(&Block, Tensor<2>, &BlockContext) -> Tensor<2>,
) -> Kept {
    block.visit_trained(&model.trained, &model.block_path(index), &mut |_, parameter| parameter.track());
    let leaf = x.autodiff();
    let leaf = if index > 0 || model.trains_below_blocks() { leaf.require_grad() } else { leaf };
    let encoded = context.encoded.as_ref().map(|it| it.clone().autodiff().require_grad());
    let tracked = encoded.clone().map(|it| BlockContext { encoded: Some(it), ..context.clone() });
    let output = forward(&block, leaf.clone(), tracked.as_ref().unwrap_or(context));
    Kept::Graph { block, leaf, encoded, output }
}
