//! How GGUF stores values: floats, read here, and ggml's blocks, which are the kernels'.

use bytes::Bytes;
use fthost_kernels::{GgmlBlocks, GgmlType};
use half::{bf16, f16};

use crate::checkpoint::write::StoredDtype;

/// The type of a tensor, by ggml's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorType(pub u32);

/// A type whose values are read here.
#[derive(Debug, Clone, Copy)]
enum Known {
    F32,
    F16,
    Bf16,
    Blocks(GgmlType),
}

/// Types that exist and are not read here, so that an error can name them.
const OTHERS: [(u32, &str); 21] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

impl TensorType {
    /// What can be read, for errors.
    pub const KNOWN: &'static str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

    /// ggml's name, or its number where the type is not even known by name.
    pub fn name(self) -> String {
        let known = self.known().map(Known::name);
        let name = known.or_else(|| OTHERS.iter().find(|it| it.0 == self.0).map(|it| it.1));
        name.map_or_else(|| format!("type {}", self.0), str::to_string)
    }

    /// Whether its values can be read here.
    pub fn is_known(self) -> bool {
        self.known().is_some()
    }

    /// Whether it is blocks, which linears are computed with as they are.
    pub fn is_blocks(self) -> bool {
        matches!(self.known(), Some(Known::Blocks(_)))
    }

    fn known(self) -> Option<Known> {
        match self.0 {
            0 => Some(Known::F32),
            1 => Some(Known::F16),
            30 => Some(Known::Bf16),
            number => GgmlType::of_number(number).map(Known::Blocks),
        }
    }

    /// Bytes that a tensor of `shape` takes; `None` for a type that is not known, a row that is not whole blocks, or
    /// a size that no machine has.
    pub(super) fn bytes(self, shape: &[usize]) -> Option<usize> {
        let [rows, width] = rows(shape)?;
        let value = match self.known()? {
            Known::F32 => 4,
            Known::F16 | Known::Bf16 => 2,
            Known::Blocks(kind) => return kind.bytes([rows, width]).ok(),
        };
        rows.checked_mul(width)?.checked_mul(value)
    }

    /// `data` as blocks, nothing copied; `None` for floats, and where [`TensorType::bytes`] is not its length.
    pub(super) fn blocks(self, data: Bytes, shape: &[usize]) -> Option<GgmlBlocks> {
        let Known::Blocks(kind) = self.known()? else { return None };
        GgmlBlocks::new(kind, data, rows(shape)?).ok()
    }

    /// That of floats.
    pub(super) fn of_float(dtype: StoredDtype) -> Self {
        Self(match dtype {
            StoredDtype::F32 => 0,
            StoredDtype::F16 => 1,
            StoredDtype::Bf16 => 30,
        })
    }

    /// That of blocks.
    pub(super) fn of_blocks(kind: GgmlType) -> Self {
        Self(kind.number())
    }

    /// f32 to what is stored, rows of `width`.
    ///
    /// # Errors
    /// Values that become infinite, what blocks can't hold, and a type that is not known.
    pub(super) fn encode(self, values: &[f32], width: usize) -> Result<Vec<u8>, String> {
        // What is infinite already stays so in floats: it is the model's own.
        let held = |is_held: fn(f32) -> bool| match values.iter().find(|it| it.is_finite() && !is_held(**it))
        {
            Some(value) => Err(format!("{value} is infinite as {}, whose range is smaller", self.name())),
            None => Ok(()),
        };
        match self.known() {
            Some(Known::F16) => held(|it| f16::from_f32(it).is_finite())?,
            Some(Known::Bf16) => held(|it| bf16::from_f32(it).is_finite())?,
            _ => {}
        }
        Ok(match self.known() {
            Some(Known::F32) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Some(Known::F16) => values.iter().flat_map(|it| f16::from_f32(*it).to_le_bytes()).collect(),
            Some(Known::Bf16) => values.iter().flat_map(|it| bf16::from_f32(*it).to_le_bytes()).collect(),
            Some(Known::Blocks(kind)) => kind.quantize(values, width).map_err(|it| it.to_string())?,
            None => return Err(format!("{} is not known here", self.name())),
        })
    }

    /// Floats to f32; none for any other type.
    pub(super) fn floats(self, data: &[u8]) -> Vec<f32> {
        let pairs = data.as_chunks::<2>().0.iter();
        match self.known() {
            Some(Known::F32) => data.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect(),
            Some(Known::F16) => pairs.map(|it| f16::from_le_bytes(*it).to_f32()).collect(),
            Some(Known::Bf16) => pairs.map(|it| bf16::from_le_bytes(*it).to_f32()).collect(),
            Some(Known::Blocks(_)) | None => Vec::new(),
        }
    }
}

impl Known {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Blocks(kind) => kind.name(),
        }
    }
}

/// Every dimension but the last as one; `None` for more rows than can be counted, and for no dimension.
fn rows(shape: &[usize]) -> Option<[usize; 2]> {
    let (width, outer) = shape.split_last()?;
    Some([outer.iter().try_fold(1usize, |product, it| product.checked_mul(*it))?, *width])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_what_errors_name() {
        let known = (0..64).map(TensorType).filter(|it| it.is_known()).map(TensorType::name);
        let mut known: Vec<String> = known.collect();
        let mut named: Vec<&str> = TensorType::KNOWN.split(", ").collect();
        known.sort_unstable();
        named.sort_unstable();
        assert_eq!(known, named);
        assert_eq!(TensorType(10).name(), "Q2_K");
        assert_eq!(TensorType(63).name(), "type 63");
    }

    #[test]
    fn values_that_become_infinite_are_refused() {
        let encoded = |number, value: f32| TensorType(number).encode(&[1.0, value], 2).map(|it| it.len());
        assert_eq!(encoded(0, 1e5), Ok(8));
        assert_eq!(encoded(1, 65504.0), Ok(4));
        assert_eq!(encoded(1, f32::INFINITY), Ok(4));
        assert_eq!(encoded(1, 1e5).unwrap_err(), "100000 is infinite as F16, whose range is smaller");
        assert_eq!(encoded(30, 1e5), Ok(4));
        assert!(encoded(30, f32::MAX).is_err());
    }

    #[test]
    fn sizes_are_of_whole_rows() {
        let bytes = |number, shape: &[usize]| TensorType(number).bytes(shape);
        assert_eq!(bytes(0, &[3]), Some(12));
        assert_eq!(bytes(30, &[2, 3, 5]), Some(60));
        assert_eq!(bytes(12, &[2, 3, 512]), Some(6 * 2 * 144));
        assert_eq!(bytes(12, &[2, 3, 128]), None);
        assert_eq!(bytes(10, &[256]), None);
        assert_eq!(bytes(0, &[]), None);
        assert_eq!(bytes(0, &[usize::MAX, 2]), None);
        assert_eq!(bytes(2, &[usize::MAX, usize::MAX, 32]), None);
    }
}
