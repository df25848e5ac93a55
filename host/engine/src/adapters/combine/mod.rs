//! Several LoRA adapters of one base as one adapter: PEFT's `add_weighted_adapter`, and spherical interpolation. Folders in,
//! a folder out; no model is loaded.
//!
//! Of adapters `i` with weights `w_i`, factors `s_i` (`alpha / rank`) and pairs `A_i`, `B_i`, [`Combination::Cat`] is the sum
//! `sum w_i s_i B_i A_i` itself. Linear, TIES and DARE combine the `A_i` and the `B_i` apart, weighted by
//! `sqrt(|w_i s_i|)` on both sides with the sign on `A`, as PEFT does: cheap and of the same rank, but with products `B_i A_j`
//! of different adapters in the result. Twice the same adapter with weights 0.5 gives, by `cat`, that adapter; by `linear`,
//! twice of it.
//!
//! Where an adapter has no pair on a linear that others adapt, it takes no part there.

mod arithmetic;
mod source;
mod written;

use std::collections::BTreeSet;
use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use self::arithmetic::{Pair, delta_dot, drop_and_rescale, elected_mean, slerp_factors, trim, weighted_sum};
use self::source::{Shape, Source, not_combined, tensor_name};
pub use self::written::Combined;
use self::written::{check_one_base, config};
use crate::error::{EngineError, Result};

/// An adapter and its share.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// A PEFT folder.
    pub folder: PathBuf,
    /// Any finite number; below 0, what the adapter learned is taken away.
    pub weight: f64,
}

/// Which sign a value of several adapters gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MajoritySign {
    /// That of their sum.
    #[default]
    Total,
    /// That which more of them have.
    Frequency,
}

/// How adapters become one. The names are PEFT's `combination_type`, but for `Slerp`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Combination {
    /// Weighted sums of the `A` and of the `B`. Of one rank.
    Linear,
    /// The weighted sum of what the adapters add to the weights, exactly; ranks add up.
    Cat,
    /// Of each tensor the largest values alone, and of these those that agree in sign:
    /// <https://arxiv.org/abs/2306.01708>. Of one rank.
    Ties {
        /// Share of the values that is kept, in `(0, 1]`.
        density: f64,
        /// How signs are elected.
        majority_sign: MajoritySign,
    },
    /// As linear, of values drawn at random: <https://arxiv.org/abs/2311.03099>. Of one rank.
    DareLinear {
        /// Probability that a value is kept, in `(0, 1]`.
        density: f64,
        /// Decides every draw.
        seed: u64,
    },
    /// As TIES, of values drawn at random. Of one rank.
    DareTies {
        /// Probability that a value is kept, in `(0, 1]`.
        density: f64,
        /// How signs are elected.
        majority_sign: MajoritySign,
        /// Decides every draw.
        seed: u64,
    },
    /// Spherical interpolation between what two adapters add to a weight, `s_1 B_1 A_1` and `s_2 B_2 A_2`, each as one flat
    /// vector, with the formula of mergekit, which is linear for nearly parallel vectors; so, too, where one of them is
    /// zero. It does not depend on how an addition is split into `B` and `A`; ranks add up.
    Slerp {
        /// 0 is the first adapter, 1 the second.
        t: f64,
    },
}

impl Combination {
    /// As PEFT and users spell it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cat => "cat",
            Self::Ties { .. } => "ties",
            Self::DareLinear { .. } => "dare_linear",
            Self::DareTies { .. } => "dare_ties",
            Self::Slerp { .. } => "slerp",
        }
    }

    fn problems(&self, adapters: &[Weighted]) -> Vec<String> {
        let mut problems = Vec::new();
        let of = adapters.iter().filter(|it| !it.weight.is_finite());
        problems.extend(of.map(|it| format!("weight of `{}` is `{}`", it.folder.display(), it.weight)));
        match *self {
            Self::Ties { density, .. }
            | Self::DareLinear { density, .. }
            | Self::DareTies { density, .. } => {
                if !(density > 0.0 && density <= 1.0) {
                    problems.push(format!("`density` must be in (0, 1], got `{density}`"));
                }
            }
            Self::Slerp { t } => {
                if !(0.0..=1.0).contains(&t) {
                    problems.push(format!("`t` must be in [0, 1], got `{t}`"));
                }
                if adapters.len() != 2 {
                    problems.push(format!("`slerp` is of two adapters, got {}", adapters.len()));
                }
                if adapters.iter().any(|it| it.weight != 1.0) {
                    problems.push("`slerp` has `t` and no weights".to_string());
                }
            }
            Self::Linear | Self::Cat => {}
        }
        if adapters.is_empty() {
            problems.push("there is no adapter".to_string());
        }
        problems
    }
}

/// Combines adapters of one base. `base` is what the result names as its base, where the adapters name it differently; with
/// `None`, adapters that name different ones are refused.
///
/// The result is plain LoRA with a factor of 1, whatever the adapters were; it names all linears that any of them adapts.
///
/// # Errors
/// Impossible options; adapters that can't be combined, by folder and tensor: of different bases, of different ranks where
/// the method needs one, with DoRA, with modules saved whole, on experts of a mixture; values that are not finite.
pub fn combine(adapters: &[Weighted], combination: &Combination, base: Option<&str>) -> Result<Combined> {
    let problems = combination.problems(adapters);
    if !problems.is_empty() {
        return Err(EngineError::Invalid { what: format!("combination `{}`", combination.name()), problems });
    }
    let sources = adapters.iter().map(|it| Source::open(&it.folder)).collect::<Result<Vec<_>>>()?;
    if base.is_none() {
        check_one_base(&sources)?;
    }
    let weights: Vec<f64> = adapters.iter().map(|it| it.weight).collect();
    let paths: BTreeSet<&String> = sources.iter().flat_map(|it| it.shapes.keys()).collect();
    let combined = |path: &&String| {
        let parts = parts(path, &sources, &weights)?;
        let pair = match combination {
            Combination::Cat => stacked(&parts, &parts.iter().map(|it| it.factor).collect::<Vec<_>>()),
            Combination::Slerp { t } => slerp(&parts, *t),
            _ => by_sides(path, &parts, combination)?,
        };
        finite(path, &parts[0], &pair)?;
        Ok((path.to_string(), pair))
    };
    // First all of them, so that of several errors it is always the same that is told.
    let pairs: Vec<Result<(String, Pair)>> = paths.par_iter().map(combined).collect();
    let pairs = pairs.into_iter().collect::<Result<Vec<_>>>()?;
    let ranks = pairs.iter().map(|(path, pair)| (path.as_str(), pair.rank)).collect();
    let config = config(&sources, &ranks, base);
    let tensors = pairs.into_iter().flat_map(|(path, Pair { a, b, rank })| {
        let shapes = [vec![rank, a.len() / rank], vec![b.len() / rank, rank]];
        let [of_a, of_b] = shapes;
        [(tensor_name(&path, 'A'), of_a, a), (tensor_name(&path, 'B'), of_b, b)]
    });
    Ok(Combined { tensors: tensors.collect(), config })
}

/// What one adapter brings to one linear.
struct Part<'a> {
    source: &'a Source,
    /// Position among the adapters.
    index: usize,
    /// Weight times the pair's own factor.
    factor: f64,
    pair: Pair,
}

/// The parts of all adapters that have a pair at `path`: at least one.
fn parts<'a>(path: &str, sources: &'a [Source], weights: &[f64]) -> Result<Vec<Part<'a>>> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let Some(shape) = source.shapes.get(path) else { continue };
        if let Some(first) = parts.first() {
            check_one_shape(path, first.source, source)?;
        }
        let factor = weights[index] * shape.scaling;
        parts.push(Part { source, index, factor, pair: source.pair(path)? });
    }
    Ok(parts)
}

fn check_one_shape(path: &str, first: &Source, other: &Source) -> Result<()> {
    let widths = |of: &Source| {
        let Shape { out_width, in_width, .. } = of.shapes[path];
        [('A', in_width), ('B', out_width)]
    };
    for ((side, expected), (_, found)) in widths(first).into_iter().zip(widths(other)) {
        if expected != found {
            let first = first.folder.display();
            let reason = format!("is of a linear with width {found}, in `{first}` of one with {expected}");
            let hint = "adapters of one base can be combined";
            return Err(not_combined(&other.folder, &tensor_name(path, side), &reason, hint));
        }
    }
    Ok(())
}

/// Pairs below and beside each other, `factors` on `A`: the sum of their products.
fn stacked(parts: &[Part<'_>], factors: &[f64]) -> Pair {
    let scaled = parts.iter().zip(factors).flat_map(|(part, factor)| {
        let factor = *factor as f32;
        part.pair.a.iter().map(move |it| it * factor)
    });
    let rank: usize = parts.iter().map(|it| it.pair.rank).sum();
    let height = parts[0].pair.b.len() / parts[0].pair.rank;
    let row = |row: usize| {
        parts.iter().flat_map(move |Part { pair, .. }| pair.b[row * pair.rank..][..pair.rank].iter().copied())
    };
    Pair { a: scaled.collect(), b: (0..height).flat_map(row).collect(), rank }
}

/// Spherical interpolation of two additions; one that is not there is zero.
fn slerp(parts: &[Part<'_>], t: f64) -> Pair {
    let ends = match parts {
        [first, second] => {
            let dot =
                |one: &Part<'_>, two: &Part<'_>| one.factor * two.factor * delta_dot(&one.pair, &two.pair);
            let lengths = (dot(first, first) * dot(second, second)).sqrt();
            // A zero has no direction: from or to it there is a straight line only.
            let cosine = if lengths > 0.0 { (dot(first, second) / lengths).clamp(-1.0, 1.0) } else { 1.0 };
            slerp_factors(t, cosine)
        }
        _ => [1.0 - t, t],
    };
    let factors: Vec<f64> = parts.iter().map(|it| it.factor * ends[it.index]).collect();
    stacked(parts, &factors)
}

/// `A` and `B` combined apart, as PEFT does.
fn by_sides(path: &str, parts: &[Part<'_>], combination: &Combination) -> Result<Pair> {
    let (first, rank) = (&parts[0], parts[0].pair.rank);
    if let Some(other) = parts.iter().find(|it| it.pair.rank != rank) {
        let (found, first) = (other.pair.rank, first.source.folder.display());
        let reason = format!("has rank {found}, that of `{first}` has {rank}");
        let hint = "adapters of different ranks are combined by `cat`, or by `slerp`";
        return Err(not_combined(&other.source.folder, &tensor_name(path, 'A'), &reason, hint));
    }
    let side = |side: char| {
        let roots = parts.iter().map(|it| it.factor.abs().sqrt() as f32);
        let weights: Vec<f32> = match side {
            // The sign stands on one side alone: on both it would be lost in the product.
            'A' => {
                roots.zip(parts).map(|(root, part)| if part.factor < 0.0 { -root } else { root }).collect()
            }
            _ => roots.collect(),
        };
        let tensors = parts.iter().map(|part| {
            let mut values = if side == 'A' { part.pair.a.clone() } else { part.pair.b.clone() };
            match *combination {
                Combination::Ties { density, .. } => trim(&mut values, density),
                Combination::DareLinear { density, seed } | Combination::DareTies { density, seed, .. } => {
                    let mut draws = draws(seed, part.index, &tensor_name(path, side));
                    drop_and_rescale(&mut values, density, || draws.random_bool(density));
                }
                _ => {}
            }
            values
        });
        let tensors: Vec<Vec<f32>> = tensors.collect();
        match *combination {
            Combination::Ties { majority_sign, .. } | Combination::DareTies { majority_sign, .. } => {
                elected_mean(&tensors, &weights, majority_sign)
            }
            _ => weighted_sum(&tensors, &weights),
        }
    };
    Ok(Pair { a: side('A'), b: side('B'), rank })
}

/// DARE's draws for one tensor of one adapter: decided by the seed, the adapter's position and the tensor's name, so that
/// they don't depend on what else there is.
fn draws(seed: u64, adapter: usize, tensor: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update((adapter as u64).to_le_bytes());
    hash.update(tensor.as_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// Weights can be so large that a product leaves the range of f32.
fn finite(path: &str, first: &Part<'_>, pair: &Pair) -> Result<()> {
    for (side, values) in [('A', &pair.a), ('B', &pair.b)] {
        if values.iter().any(|it| !it.is_finite()) {
            let hint = "give smaller weights";
            let name = tensor_name(path, side);
            return Err(not_combined(&first.source.folder, &name, "leaves the range of f32", hint));
        }
    }
    Ok(())
}
