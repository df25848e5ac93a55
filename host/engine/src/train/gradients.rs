//! Gradients of the trained parameters for one micro-batch, with or without recomputing blocks.
//!
//! With [`ActivationCheckpointing::Block`] a block's forward runs without autodiff and keeps its input alone;
//! backward rebuilds the block from that input and takes its vector-Jacobian product.

use burn::tensor::{Gradients as Graph, Tensor};
use fthost_data::{Batch, Targets};
use fthost_kernels::LinearCrossEntropy;
use serde::{Deserialize, Serialize};

use crate::models::{CausalLm, Parameter};
use crate::objectives::sft::sft_loss;

/// What is kept between forward and backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationCheckpointing {
    /// Everything backward needs.
    #[default]
    Off,
    /// The input of every block.
    Block,
}

/// Summed over micro-batches, in the order of [`CausalLm::visit_trained`].
#[derive(Debug, Clone, Default)]
pub struct Gradients {
    /// Flat, `[len]` each.
    pub values: Vec<Tensor<1>>,
    /// Negative log-likelihood in nats over all supervised tokens.
    pub loss_sum: f64,
    /// Supervised tokens whose most likely prediction was right.
    pub correct: f64,
    /// Entropy in nats, summed over supervised tokens.
    pub entropy_sum: f64,
    /// Supervised tokens.
    pub supervised_tokens: usize,
}

impl Gradients {
    /// Adds the gradients of one micro-batch's summed loss.
    pub fn add(&mut self, model: &CausalLm, batch: &Batch, checkpointing: ActivationCheckpointing) {
        let targets = batch.targets();
        let (values, loss) = match checkpointing {
            ActivationCheckpointing::Off => whole_graph(model, batch, &targets),
            ActivationCheckpointing::Block => by_block(model, batch, &targets),
        };
        self.loss_sum += loss.loss_sum.into_scalar::<f64>();
        self.correct += loss.correct.into_scalar::<f64>();
        self.entropy_sum += loss.entropy_sum.into_scalar::<f64>();
        self.supervised_tokens += targets.positions.len();
        if self.values.is_empty() {
            self.values = values;
        } else {
            let summed = std::mem::take(&mut self.values);
            self.values = summed.into_iter().zip(values).map(|(sum, value)| sum + value).collect();
        }
    }

    /// Euclidean norm over every value, each multiplied by `factor`.
    pub fn norm(&self, factor: f64) -> f64 {
        let squares = self.values.iter().map(|it| it.clone().square().sum().into_scalar::<f64>());
        squares.sum::<f64>().sqrt() * factor
    }
}

/// The model with its trained parameters as leaves of a new graph.
fn tracked(model: &CausalLm) -> CausalLm {
    let mut model = model.clone();
    model.visit_trained(&mut |_, parameter| match parameter {
        Parameter::Vector(tensor) => *tensor = tensor.clone().autodiff().require_grad(),
        Parameter::Matrix(tensor) => *tensor = tensor.clone().autodiff().require_grad(),
    });
    model
}

/// Flat gradient of each trained parameter; `None` where the graph did not reach it.
fn collect(model: &mut CausalLm, graph: &Graph) -> Vec<Option<Tensor<1>>> {
    let mut found = Vec::new();
    model.visit_trained(&mut |_, parameter| {
        found.push(match parameter {
            Parameter::Vector(tensor) => tensor.grad(graph).map(Tensor::inner),
            Parameter::Matrix(tensor) => tensor.grad(graph).map(|it| it.inner().flatten(0, 1)),
        });
    });
    found
}

fn zeros_where_unreached(model: &mut CausalLm, found: Vec<Option<Tensor<1>>>) -> Vec<Tensor<1>> {
    let device = model.device();
    let mut found = found.into_iter();
    let mut values = Vec::new();
    model.visit_trained(&mut |_, parameter| {
        let length = match parameter {
            Parameter::Vector(tensor) => tensor.dims()[0],
            Parameter::Matrix(tensor) => tensor.dims().iter().product(),
        };
        let gradient = found.next().flatten();
        values.push(gradient.unwrap_or_else(|| Tensor::zeros([length], &device)));
    });
    values
}

fn detached(loss: LinearCrossEntropy) -> LinearCrossEntropy {
    LinearCrossEntropy { loss_sum: loss.loss_sum.inner(), ..loss }
}

fn whole_graph(model: &CausalLm, batch: &Batch, targets: &Targets) -> (Vec<Tensor<1>>, LinearCrossEntropy) {
    let mut model = tracked(model);
    let loss = sft_loss(model.hidden(batch), model.head_weight(), targets);
    let graph = loss.loss_sum.backward();
    let found = collect(&mut model, &graph);
    (zeros_where_unreached(&mut model, found), detached(loss))
}

fn by_block(model: &CausalLm, batch: &Batch, targets: &Targets) -> (Vec<Tensor<1>>, LinearCrossEntropy) {
    let context = model.context(batch);
    let mut inputs = Vec::with_capacity(model.blocks.len());
    let mut x = model.embed(&batch.input_ids);
    for block in &model.blocks {
        inputs.push(x.clone());
        x = block.forward(x, &context);
    }
    let mut tracked = tracked(model);
    let leaf = x.autodiff().require_grad();
    let hidden = tracked.final_norm(leaf.clone());
    let loss = sft_loss(hidden, tracked.head_weight(), targets);
    let graph = loss.loss_sum.backward();
    let mut found = collect(&mut tracked, &graph);
    let mut downstream = leaf.grad(&graph).expect("the loss depends on its input").inner();
    drop(graph);
    for (index, input) in inputs.into_iter().enumerate().rev() {
        let leaf = input.autodiff().require_grad();
        let output = tracked.blocks[index].forward(leaf.clone(), &context);
        let graph = (output * downstream).sum().backward();
        add_found(&mut found, collect(&mut tracked, &graph));
        downstream = leaf.grad(&graph).expect("a block depends on its input").inner();
    }
    if tracked.embed_tokens.is_require_grad() {
        let graph = (tracked.embed(&batch.input_ids) * downstream).sum().backward();
        add_found(&mut found, collect(&mut tracked, &graph));
    }
    (zeros_where_unreached(&mut tracked, found), detached(loss))
}

fn add_found(sums: &mut [Option<Tensor<1>>], found: Vec<Option<Tensor<1>>>) {
    for (sum, value) in sums.iter_mut().zip(found) {
        *sum = match (sum.take(), value) {
            (Some(sum), Some(value)) => Some(sum + value),
            (sum, value) => sum.or(value),
        };
    }
}
