//! Rotary frequencies and their scalings: `default`, `linear`, `dynamic`, `llama3`, `yarn`, `longrope`, as
//! transformers' `modeling_rope_utils.py` computes them.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Scaling of the rotary frequencies; names as in `rope_scaling` and `rope_parameters`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// None.
    Default,
    /// Positions divided by `factor`.
    Linear {
        /// > 0.
        factor: f64,
    },
    /// The base grows with the sequence once it is longer than `max_position_embeddings`.
    Dynamic {
        /// > 0.
        factor: f64,
    },
    /// Llama 3.1's interpolation by wavelength.
    Llama3 {
        /// > 0.
        factor: f64,
        /// Wavelengths above `original / low` are divided by `factor`.
        low_freq_factor: f64,
        /// Wavelengths below `original / high` are kept.
        high_freq_factor: f64,
        /// Context length of the original model.
        original_max_position_embeddings: usize,
    },
    /// Interpolated by wavelength, with scores made larger: <https://arxiv.org/abs/2309.00071>.
    Yarn(Yarn),
    /// A factor for each pair, one set up to the original context length and one above it:
    /// <https://arxiv.org/abs/2402.13753>.
    Longrope {
        /// Up to the original context length, `[head_dim / 2]`.
        short_factor: Vec<f64>,
        /// Above it.
        long_factor: Vec<f64>,
        /// By how much the context has grown; `max_position_embeddings` over the original one if absent.
        factor: Option<f64>,
        /// Factor of cosine and sine; found from `factor` if absent.
        attention_factor: Option<f64>,
        /// Context length of the original model.
        original_max_position_embeddings: usize,
    },
}

/// Keys of `yarn`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Yarn {
    /// By how much the context has grown; `max_position_embeddings` over the original one if absent.
    pub factor: Option<f64>,
    /// Factor of cosine and sine; found from `factor` if absent.
    pub attention_factor: Option<f64>,
    /// Together with `mscale_all_dim`, another rule for `attention_factor`.
    pub mscale: Option<f64>,
    /// As `mscale`.
    pub mscale_all_dim: Option<f64>,
    /// Rotations within the original context above which a pair is left as it is; 32 if absent.
    pub beta_fast: Option<f64>,
    /// Rotations below which it is interpolated; 1 if absent.
    pub beta_slow: Option<f64>,
    /// Whether the range between the two ends at whole pairs; yes if absent.
    pub truncate: Option<bool>,
    /// Context length of the original model.
    pub original_max_position_embeddings: usize,
}

impl Yarn {
    fn grown(&self, max_position_embeddings: usize) -> f64 {
        let ratio = max_position_embeddings as f64 / self.original_max_position_embeddings as f64;
        self.factor.unwrap_or(ratio)
    }

    fn attention_factor(&self, max_position_embeddings: usize) -> f64 {
        let factor = self.grown(max_position_embeddings);
        let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let of_scales = match (self.mscale, self.mscale_all_dim) {
            (Some(one), Some(all)) if one != 0.0 && all != 0.0 => scale(one) / scale(all),
            _ => scale(1.0),
        };
        self.attention_factor.unwrap_or(of_scales)
    }

    fn scale(&self, plain: Vec<f64>, rope: &Rope) -> Vec<f64> {
        let dim = rope.head_dim as f64;
        let original = self.original_max_position_embeddings as f64;
        // The pair that turns so often within the original context.
        let pair = |rotations: f64| {
            dim * (original / (rotations * std::f64::consts::TAU)).ln() / (2.0 * rope.theta.ln())
        };
        let nonzero = |it: Option<f64>, default: f64| it.filter(|it| *it != 0.0).unwrap_or(default);
        let (mut low, mut high) = (pair(nonzero(self.beta_fast, 32.0)), pair(nonzero(self.beta_slow, 1.0)));
        if self.truncate.unwrap_or(true) {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let factor = self.grown(rope.max_position_embeddings);
        let scaled = |(index, frequency): (usize, f64)| {
            let interpolated = ((index as f64 - low) / (high - low)).clamp(0.0, 1.0);
            frequency / factor * interpolated + frequency * (1.0 - interpolated)
        };
        plain.into_iter().enumerate().map(scaled).collect()
    }
}

/// Rotary embedding of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Values of a head that are rotated, its first; even.
    pub head_dim: usize,
    /// Context length of the model.
    pub max_position_embeddings: usize,
    /// Scaling.
    pub scaling: RopeScaling,
}

impl Rope {
    /// Angle per position of each pair, `[head_dim / 2]`, for a longest sequence of `length` tokens.
    pub fn inverse_frequencies(&self, length: usize) -> Vec<f64> {
        match &self.scaling {
            RopeScaling::Default => self.plain(self.theta),
            RopeScaling::Linear { factor } => self.plain(self.theta).iter().map(|it| it / factor).collect(),
            RopeScaling::Dynamic { factor } => {
                let (trained, dim) = (self.max_position_embeddings as f64, self.head_dim as f64);
                let length = (length as f64).max(trained);
                let growth = factor * length / trained - (factor - 1.0);
                self.plain(self.theta * growth.powf(dim / (dim - 2.0)))
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let original = *original_max_position_embeddings as f64;
                let scale = |frequency: f64| {
                    let wavelength = std::f64::consts::TAU / frequency;
                    if wavelength < original / high_freq_factor {
                        frequency
                    } else if wavelength > original / low_freq_factor {
                        frequency / factor
                    } else {
                        let smooth =
                            (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * frequency / factor + smooth * frequency
                    }
                };
                self.plain(self.theta).into_iter().map(scale).collect()
            }
            RopeScaling::Yarn(yarn) => yarn.scale(self.plain(self.theta), self),
            RopeScaling::Longrope { short_factor, long_factor, original_max_position_embeddings, .. } => {
                let long = length > *original_max_position_embeddings;
                let factors = if long { long_factor } else { short_factor };
                self.plain(self.theta).iter().zip(factors).map(|(it, factor)| it / factor).collect()
            }
        }
    }

    /// Factor of cosine and sine.
    pub(crate) fn attention_factor(&self) -> f64 {
        match &self.scaling {
            RopeScaling::Yarn(yarn) => yarn.attention_factor(self.max_position_embeddings),
            RopeScaling::Longrope { factor, attention_factor, original_max_position_embeddings, .. } => {
                let original = *original_max_position_embeddings as f64;
                let factor = factor.unwrap_or(self.max_position_embeddings as f64 / original);
                let found = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
                attention_factor.unwrap_or(found)
            }
            _ => 1.0,
        }
    }

    /// What is impossible, with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let RopeScaling::Longrope { short_factor, long_factor, .. } = &self.scaling {
            for (key, factors) in [("short_factor", short_factor), ("long_factor", long_factor)] {
                let (found, pairs) = (factors.len(), self.head_dim / 2);
                if found != pairs {
                    problems.push(format!("`rope_scaling.{key}` must have {pairs} factors, got {found}"));
                }
            }
        }
        problems
    }

    fn plain(&self, theta: f64) -> Vec<f64> {
        let dim = self.head_dim as f64;
        (0..self.head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim)).collect()
    }

    /// Cosine and sine of each token's angles, `[T, head_dim / 2]` each.
    ///
    /// `dynamic` scales by the longest of the positions given, as transformers does for a batch.
    pub fn tables(&self, position_ids: &[u32], device: &Device) -> (Tensor<2>, Tensor<2>) {
        let longest = position_ids.iter().max().map_or(0, |it| *it as usize + 1);
        let frequencies = self.inverse_frequencies(longest);
        let angles = position_ids
            .iter()
            .flat_map(|&position| frequencies.iter().map(move |it| f64::from(position) * it))
            .collect();
        self.cos_sin(angles, device)
    }

    /// [`Rope::tables`] of the given positions of each sequence, end to end.
    ///
    /// `dynamic` scales each sequence by its own of `lengths`, as if it were alone.
    pub fn tables_by_sequence(
        &self,
        positions: &[Range<usize>],
        lengths: &[usize],
        device: &Device,
    ) -> (Tensor<2>, Tensor<2>) {
        let mut angles = Vec::new();
        for (range, length) in positions.iter().zip(lengths) {
            let frequencies = self.inverse_frequencies(*length);
            for position in range.clone() {
                angles.extend(frequencies.iter().map(|it| position as f64 * it));
            }
        }
        self.cos_sin(angles, device)
    }

    fn cos_sin(&self, angles: Vec<f64>, device: &Device) -> (Tensor<2>, Tensor<2>) {
        let pairs = self.head_dim / 2;
        let shape = [angles.len() / pairs, pairs];
        let factor = self.attention_factor();
        let table = |function: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|it| (function(*it) * factor) as f32).collect();
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        (table(f64::cos), table(f64::sin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_frequencies(rope: &Rope, expected: [f64; 5]) {
        let got = rope.inverse_frequencies(1);
        for (index, expected) in [1, 8, 16, 24, 31].into_iter().zip(expected) {
            // transformers computes in f32, whose relative spacing is 6e-8.
            assert!((got[index] / expected - 1.0).abs() < 1e-6, "{index}: {} is not {expected}", got[index]);
        }
    }

    fn rope(theta: f64, scaling: RopeScaling) -> Rope {
        Rope { theta, head_dim: 64, max_position_embeddings: 8192, scaling }
    }

    /// Oracle: transformers 5.23's `LlamaRotaryEmbedding.inv_freq`.
    #[test]
    fn frequencies_match_transformers() {
        assert_frequencies(
            &rope(1e5, RopeScaling::Default),
            [0.69783056, 0.056234129, 0.0031622779, 0.00017782794, 1.4330127e-05],
        );
        assert_frequencies(
            &rope(
                5e5,
                RopeScaling::Llama3 {
                    factor: 8.0,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_max_position_embeddings: 8192,
                },
            ),
            [0.66360128, 0.037606031, 0.00052484602, 6.6478697e-06, 3.7673226e-07],
        );
    }
}
