//! A model that has learned nothing yet, its weights drawn as transformers draws them.

use std::path::Path;

use burn::tensor::{Device, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::build::{Source, build};
use crate::error::Result;
use crate::models::decoder::NormKind;
use crate::models::{CausalLm, DecoderConfig};

/// A model of the folder's `config.json`: linears and embeddings normal with `initializer_range` as their standard
/// deviation, norms a factor of 1, biases 0 (transformers' `PreTrainedModel._init_weights`). `seed` decides every draw.
///
/// # Errors
/// Everything [`DecoderConfig::read`] refuses.
pub fn init_model(folder: &Path, seed: u64, device: &Device) -> Result<CausalLm> {
    let config_path = folder.join("config.json");
    let config = DecoderConfig::read(&config_path)?;
    let of_norms = if config.norm == NormKind::RmsPlusOne { 0.0 } else { 1.0 };
    let rng = ChaCha8Rng::seed_from_u64(seed);
    build(&config, device, &mut Drawn { rng, deviation: config.initializer_range, of_norms }, None)
}

/// Weights that nobody has trained.
struct Drawn {
    rng: ChaCha8Rng,
    deviation: f64,
    of_norms: f32,
}

impl Source for Drawn {
    fn values(&mut self, name: &str, shape: &[usize]) -> Result<TensorData> {
        let values = match shape {
            [length] if name.ends_with(".bias") => vec![0.0; *length],
            [length] => vec![self.of_norms; *length],
            _ => normal(shape.iter().product(), self.deviation, &mut self.rng),
        };
        Ok(TensorData::new(values, shape.to_vec()))
    }
}

/// Box and Muller's: two independent normal values from two uniform ones.
pub(crate) fn normal(count: usize, deviation: f64, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // In (0, 1], whose logarithm exists.
        let (first, second) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
        let (radius, angle) = ((-2.0 * first.ln()).sqrt() * deviation, std::f64::consts::TAU * second);
        values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100,000 draws: the mean is within four standard errors of 0, the deviation within one percent.
    #[test]
    fn draws_are_normal_and_decided_by_the_seed() {
        let draw = |seed| normal(100_000, 0.02, &mut ChaCha8Rng::seed_from_u64(seed));
        let values = draw(1);
        let mean = values.iter().map(|it| f64::from(*it)).sum::<f64>() / 1e5;
        let variance = values.iter().map(|it| (f64::from(*it) - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 4.0 * 0.02 / 1e5f64.sqrt(), "{mean}");
        assert!((variance.sqrt() / 0.02 - 1.0).abs() < 0.01, "{}", variance.sqrt());
        let outside = values.iter().filter(|it| it.abs() > 0.04).count() as f64 / 1e5;
        assert!((outside - 0.0455).abs() < 0.003, "two deviations hold all but 4.55 %, got {outside}");
        assert_eq!(values, draw(1));
        assert_ne!(values, draw(2));
    }
}
