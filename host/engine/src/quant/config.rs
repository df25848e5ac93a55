//! `[quant.*]` of a run file.

use fthost_kernels::{FourBit, FourBitConfig, FourBitKind, Int8Rows, Packed};
use half::f16;
use serde::{Deserialize, Serialize};

/// What the blocks' linears are stored in while they are frozen, below an adapter: QLoRA,
/// <https://arxiv.org/abs/2305.14314>. Embedding, head, norms and a mixture's router stay what they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuantConfig {
    /// 4 bits, sixteen quantiles of the normal distribution.
    Nf4(FourBitOptions),
    /// Floats of 4 bits.
    Fp4(FourBitOptions),
    /// 8 bits, a factor a row: the weights of LLM.int8(), <https://arxiv.org/abs/2208.07339>. What goes in is not rounded.
    Int8(Int8Options),
}

/// `[quant.nf4]` and `[quant.fp4]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FourBitOptions {
    /// Values that share a factor.
    pub block_size: usize,
    /// Factors in 8 bits: 4.13 bits a value instead of 4.5.
    pub double_quant: bool,
    /// Linears that are left as they are, by a whole part or parts of their path: `down_proj`, `layers.0`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_modules: Vec<String>,
}

/// `[quant.int8]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Int8Options {
    /// As [`FourBitOptions::skip_modules`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_modules: Vec<String>,
}

impl Default for FourBitOptions {
    fn default() -> Self {
        let FourBitConfig { block_size, double_quant, .. } = FourBitConfig::default();
        Self { block_size, double_quant, skip_modules: Vec::new() }
    }
}

/// Blocks that bitsandbytes knows on every device.
const BLOCK_SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 2048, 4096];

impl QuantConfig {
    /// As the run file's table is named.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nf4(_) => "nf4",
            Self::Fp4(_) => "fp4",
            Self::Int8(_) => "int8",
        }
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let (Self::Nf4(options) | Self::Fp4(options)) = self else { return Vec::new() };
        let size = options.block_size;
        let known = BLOCK_SIZES.map(|it| it.to_string()).join(", ");
        let odd = || format!("`block_size` must be one of {known}, got `{size}`");
        (!BLOCK_SIZES.contains(&size)).then(odd).into_iter().collect()
    }

    /// Whether the linear at `path` is packed.
    pub fn packs(&self, path: &str) -> bool {
        let skipped = match self {
            Self::Nf4(options) | Self::Fp4(options) => &options.skip_modules,
            Self::Int8(options) => &options.skip_modules,
        };
        let path = format!(".{path}.");
        !skipped.iter().any(|it| path.contains(&format!(".{it}.")))
    }

    /// Whether the weight of that name is packed.
    pub(crate) fn packs_weight(&self, name: &str) -> bool {
        self.packs(name.strip_suffix(".weight").unwrap_or(name))
    }

    /// The values of a linear, `[out, in]`, in its bits.
    pub fn pack(&self, values: &[f32], shape: [usize; 2]) -> Packed {
        let four_bit = |kind, options: &FourBitOptions| {
            let FourBitOptions { block_size, double_quant, .. } = *options;
            FourBit::quantize(values, shape, FourBitConfig { kind, block_size, double_quant }).into()
        };
        match self {
            Self::Nf4(options) => four_bit(FourBitKind::Nf4, options),
            Self::Fp4(options) => four_bit(FourBitKind::Fp4, options),
            Self::Int8(_) => {
                // bitsandbytes rounds what it packs to f16 first.
                let halves: Vec<f32> = values.iter().map(|it| f16::from_f32(*it).to_f32()).collect();
                Int8Rows::quantize(&halves, shape).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_skipped_by_whole_parts_of_their_path() {
        let skipping = |of: &str| {
            QuantConfig::Nf4(FourBitOptions { skip_modules: vec![of.to_string()], ..Default::default() })
        };
        let path = "model.layers.1.mlp.down_proj";
        for of in ["down_proj", "mlp", "layers.1", "model.layers.1.mlp.down_proj"] {
            assert!(!skipping(of).packs(path), "{of}");
        }
        for of in ["proj", "layers.11", "down", "layer"] {
            assert!(skipping(of).packs(path), "{of}");
        }
    }

    #[test]
    fn a_block_size_that_bitsandbytes_lacks_is_told() {
        let of = |block_size| QuantConfig::Fp4(FourBitOptions { block_size, ..Default::default() });
        assert_eq!(of(64).problems(), [""; 0]);
        insta::assert_snapshot!(of(48).problems().join("\n"), @"`block_size` must be one of 64, 128, 256, 512, 1024, 2048, 4096, got `48`");
    }
}
