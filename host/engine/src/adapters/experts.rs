//! Adapters on the experts of a mixture in PEFT's layout, and back.
//!
//! transformers 5 holds all experts of a layer in two parameters, gate over up and down, and PEFT (`target_parameters`) keeps
//! one pair for each: of `A`, `[E r, in]`, row `e r + i` is rank `i` of expert `e`; of `B`, `[out, r E]`, column `i E + e`
//! is. Here each linear of each expert has a pair of its own. Gate and up of an expert become one pair by
//! standing below and beside each other, with zeros between, unless they share their `A`.

use burn::tensor::Tensor;
use serde_json::Value;

use super::lora::LoraConfig;
use super::target::TargetModules;
use crate::models::block::FeedForward;
use crate::models::mixture::{Expert, Mixture};
use crate::models::{CausalLm, DecoderConfig};
use crate::nn::LoraWeights;

/// Below a block, in transformers 5's words.
pub(super) const ROUTER: &str = "mlp.gate";
/// As [`ROUTER`].
const EXPERTS: &str = "mlp.experts";
/// PEFT's names of the three parameters of a mixture.
pub(super) const PARAMETERS: [&str; 3] = ["gate.weight", "gate_up_proj", "down_proj"];

/// A matrix as rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rows {
    /// Row after row.
    pub values: Vec<f32>,
    /// Of each.
    pub width: usize,
}

impl Rows {
    fn of(tensor: &Tensor<2>) -> Self {
        let width = tensor.dims()[1];
        let values = tensor.clone().inner().try_into_vec_as::<f32>().expect("a float tensor is read as f32");
        Self { values, width }
    }

    fn zeros(height: usize, width: usize) -> Self {
        Self { values: vec![0.0; height * width], width }
    }

    /// How many.
    pub fn height(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }

    /// Copies `from` to where its first value is to stand.
    fn put(&mut self, from: &Self, row: usize, column: usize) {
        for (index, values) in from.values.chunks_exact(from.width).enumerate() {
            let begin = (row + index) * self.width + column;
            self.values[begin..begin + from.width].copy_from_slice(values);
        }
    }
}

/// The low-rank pair of one linear, or of several that stand side by side.
#[derive(Debug, Clone, PartialEq)]
struct Pair {
    a: Rows,
    b: Rows,
}

impl Pair {
    fn of(lora: &LoraWeights) -> Self {
        Self { a: Rows::of(&lora.a), b: Rows::of(&lora.b) }
    }

    /// One pair for two linears of one input.
    fn beside(first: Self, second: Self) -> Self {
        let (height, mut a) = (first.b.height(), first.a);
        // Ranks of the second begin where its `A` does.
        let rank = if a == second.a { 0 } else { a.height() };
        if rank > 0 {
            a.values.extend(second.a.values);
        }
        let mut b = Rows::zeros(height + second.b.height(), a.height());
        b.put(&first.b, 0, 0);
        b.put(&second.b, height, rank);
        Self { a, b }
    }

    /// All experts' pairs as one.
    fn fused(experts: &[Self]) -> Self {
        let (count, rank) = (experts.len(), experts[0].a.height());
        let mut a = Rows::zeros(count * rank, experts[0].a.width);
        let mut b = Rows::zeros(experts[0].b.height(), rank * count);
        for (expert, pair) in experts.iter().enumerate() {
            a.put(&pair.a, expert * rank, 0);
            for out in 0..b.height() {
                for (index, value) in pair.b.row(out).iter().enumerate() {
                    b.values[out * rank * count + index * count + expert] = *value;
                }
            }
        }
        Self { a, b }
    }
}

/// Which parameters of mixtures have an adapter, each with rank and factor.
#[derive(Debug, Clone, Default)]
pub(super) struct Adapted {
    /// In the order of [`PARAMETERS`].
    pub of: [Option<(usize, f64)>; 3],
}

/// Tensors of the adapters on experts, named below `base_model.model.`, and what they are on. Routers are linears like any
/// other but for their name.
pub(super) fn written(model: &CausalLm) -> (Vec<(String, Rows)>, Adapted) {
    let (mut tensors, mut adapted) = (Vec::new(), Adapted::default());
    for (layer, block) in model.blocks.iter().enumerate() {
        let FeedForward::Mixture(mixture) = &block.feed_forward else { continue };
        let path = model.block_path(layer);
        if let Some(lora) = &mixture.router.1.lora {
            adapted.of[0] = Some((lora.a.dims()[0], lora.scaling));
            for (side, values) in [("A", &lora.a), ("B", &lora.b)] {
                tensors.push((format!("{path}.{ROUTER}.lora_{side}.weight"), Rows::of(values)));
            }
        }
        let fused = [of_experts(mixture, up), of_experts(mixture, down)];
        for (index, pair) in fused.iter().enumerate() {
            let Some((pair, scaling)) = pair else { continue };
            adapted.of[1 + index] = Some((pair.a.height() / mixture.experts.len(), *scaling));
            // PEFT wraps one parameter after the other: where both are adapted, the first lies inside.
            let inside = if index == 0 && fused[1].is_some() { ".base_layer" } else { "" };
            for (side, values) in [("A", &pair.a), ("B", &pair.b)] {
                tensors.push((format!("{path}.{EXPERTS}{inside}.lora_{side}.weight"), values.clone()));
            }
        }
    }
    (tensors, adapted)
}

fn up(expert: &Expert) -> Option<(Pair, f64)> {
    let [gate, up] = &expert.up[..] else { return None };
    let (gate, up) = (gate.1.lora.as_ref()?, up.1.lora.as_ref()?);
    Some((Pair::beside(Pair::of(gate), Pair::of(up)), gate.scaling))
}

fn down(expert: &Expert) -> Option<(Pair, f64)> {
    expert.down.1.lora.as_ref().map(|it| (Pair::of(it), it.scaling))
}

fn of_experts(mixture: &Mixture, one: fn(&Expert) -> Option<(Pair, f64)>) -> Option<(Pair, f64)> {
    let pairs: Option<Vec<(Pair, f64)>> = mixture.experts.iter().map(one).collect();
    let (pairs, scalings): (Vec<Pair>, Vec<f64>) = pairs?.into_iter().unzip();
    Some((Pair::fused(&pairs), scalings[0]))
}

/// Where the pair of a linear of a mixture lies in PEFT's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Below `base_model.model.`, without `.lora_A.weight`; the second where one parameter alone is adapted.
    pub paths: [String; 2],
    /// Of the experts; 1 for a router.
    pub experts: usize,
    /// Which of them.
    pub expert: usize,
    /// Rows of `B`: of the whole parameter, and the first of this linear's.
    pub outputs: (usize, usize),
}

impl Place {
    /// That of the linear at `path`, `out` wide; `None` where it is of no mixture.
    pub fn of(config: &DecoderConfig, path: &str, out: usize) -> Option<Self> {
        let (names, mixture) = (config.names.experts?, config.mixture?);
        let block: String = path.split_inclusive('.').take(3).collect();
        let below = path.strip_prefix(&block)?;
        if below == names.router {
            let path = format!("{block}{ROUTER}");
            return Some(Self { paths: [path.clone(), path], experts: 1, expert: 0, outputs: (out, 0) });
        }
        let (expert, last) = below.strip_prefix(names.list)?.strip_prefix('.')?.split_once('.')?;
        let outer = format!("{block}{EXPERTS}");
        let (paths, outputs) = match names.up.iter().position(|it| *it == last) {
            Some(index) => ([format!("{outer}.base_layer"), outer], (2 * out, index * out)),
            None => ([outer.clone(), outer], (out, 0)),
        };
        Some(Self { paths, experts: mixture.num_experts, expert: expert.parse().ok()?, outputs })
    }

    /// This linear's pair of `rank`, from the parameter's `a`, `[E r, in]`, and `b`, `[out, r E]`.
    pub fn cut(&self, rank: usize, out: usize, a: &[f32], b: &[f32]) -> [Vec<f32>; 2] {
        let of_expert = a.len() / self.experts;
        let a = a[self.expert * of_expert..][..of_expert].to_vec();
        let width = rank * self.experts;
        let rows = b.chunks_exact(width).skip(self.outputs.1).take(out);
        let b = rows.flat_map(|row| row[self.expert..].iter().step_by(self.experts).copied()).collect();
        [a, b]
    }
}

/// PEFT's configuration in terms of linears: `parameters` join the targets, and patterns of parameters become patterns of
/// paths.
///
/// # Errors
/// What is not understood.
pub(super) fn on_linears(
    mut config: LoraConfig,
    parameters: &[Value],
    model: &DecoderConfig,
) -> Result<LoraConfig, String> {
    let Some(names) = model.names.experts else {
        return Err("`target_parameters` is understood for mixtures of experts only".to_string());
    };
    let escape = regex::escape;
    let expert = |last: &[&str]| {
        let last: Vec<String> = last.iter().map(|it| escape(it)).collect();
        format!(r"{}\.\d+\.(?:{})", escape(names.list), last.join("|"))
    };
    let paths = [escape(names.router), expert(&names.up), expert(&[names.down])];
    let mut targets: Vec<String> = match &config.target_modules {
        TargetModules::Names(modules) => modules.iter().map(|it| escape(it)).collect(),
        TargetModules::Pattern(pattern) => {
            return Err(format!(
                "`target_parameters` beside `target_modules` = \"{pattern}\": known are names"
            ));
        }
    };
    for parameter in parameters {
        let index = PARAMETERS.iter().position(|it| parameter == it || parameter == &format!("experts.{it}"));
        let index = index.ok_or_else(|| {
            format!("`target_parameters` names {parameter} (known: {})", PARAMETERS.join(", "))
        })?;
        targets.push(paths[index].clone());
    }
    let translated = |pattern: &str| {
        let index = PARAMETERS.iter().position(|it| pattern.trim_start_matches(r".*\.") == *it);
        index.map_or_else(|| pattern.to_string(), |it| paths[it].clone())
    };
    config.rank_pattern = config.rank_pattern.into_iter().map(|it| (translated(&it.0), it.1)).collect();
    config.alpha_pattern = config.alpha_pattern.into_iter().map(|it| (translated(&it.0), it.1)).collect();
    config.target_modules = TargetModules::Pattern(format!(r"(?:.*\.)?(?:{})", targets.join("|")));
    Ok(config)
}
