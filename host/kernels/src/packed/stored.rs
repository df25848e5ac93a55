//! The bytes of a packed weight apart from what they mean, so that they can travel or be cut without being widened.

use bytes::Bytes;

use super::Packed;
use super::four_bit::{Absmax, FourBit, nested_groups};
use super::ggml::GgmlBlocks;
use super::int8_rows::Int8Rows;

/// Every array begins at a multiple of so many bytes, as its values ask for.
const ALIGNED: usize = align_of::<f32>();

impl Packed {
    /// Everything that is stored a value or a block of them, array by array.
    pub fn stored(&self) -> Vec<u8> {
        let arrays: Vec<&[u8]> = match self {
            Self::FourBit(FourBit { codes, absmax: Absmax::Plain(absmax), .. }) => {
                vec![codes, bytemuck::cast_slice(absmax)]
            }
            Self::FourBit(FourBit {
                codes, absmax: Absmax::Nested { codes: factors, absmax, .. }, ..
            }) => {
                vec![codes, factors, bytemuck::cast_slice(absmax)]
            }
            Self::Int8(it) => vec![bytemuck::cast_slice(&it.codes), bytemuck::cast_slice(&it.absmax)],
            Self::Ggml(it) => vec![it.data()],
        };
        let mut stored = Vec::with_capacity(self.stored_bytes());
        for array in arrays {
            stored.extend_from_slice(array);
            stored.resize(stored.len().next_multiple_of(ALIGNED), 0);
        }
        stored
    }

    /// How many bytes [`Packed::stored`] has; of a hollow weight, too.
    pub fn stored_bytes(&self) -> usize {
        self.lengths().into_iter().map(|it| it.next_multiple_of(ALIGNED)).sum()
    }

    /// Bytes of each array, as shape and configuration say.
    fn lengths(&self) -> Vec<usize> {
        let [rows, width] = self.shape();
        let values = rows * width;
        let floats = |count: usize| count * size_of::<f32>();
        match self {
            Self::FourBit(it) => {
                let (codes, factors) = (values.div_ceil(2), values.div_ceil(it.config.block_size));
                match it.absmax {
                    Absmax::Plain(_) => vec![codes, floats(factors)],
                    Absmax::Nested { .. } => vec![codes, factors, floats(nested_groups(factors))],
                }
            }
            Self::Int8(_) => vec![values, floats(rows)],
            Self::Ggml(it) => vec![it.kind().bytes([rows, width]).expect("a weight of this shape was made")],
        }
    }

    /// The weight without what is stored: it has a shape and nothing else, and nobody can compute with it.
    pub fn hollow(&self) -> Self {
        match self {
            Self::FourBit(it) => {
                let absmax = match it.absmax {
                    Absmax::Plain(_) => Absmax::Plain(Vec::new()),
                    Absmax::Nested { offset, .. } => {
                        Absmax::Nested { codes: Vec::new(), absmax: Vec::new(), offset }
                    }
                };
                FourBit { codes: Vec::new(), absmax, shape: it.shape, config: it.config }.into()
            }
            Self::Int8(it) => Int8Rows { codes: Vec::new(), absmax: Vec::new(), shape: it.shape }.into(),
            Self::Ggml(it) => it.hollow().into(),
        }
    }

    /// The weight of this shape and configuration, of which `stored` is what [`Packed::stored`] gave.
    ///
    /// # Panics
    /// Where that is not as long as it was.
    #[must_use]
    pub fn with_stored(&self, stored: &Bytes) -> Self {
        assert_eq!(stored.len(), self.stored_bytes(), "what a weight of shape {:?} stores", self.shape());
        let mut begin = 0;
        let mut arrays = self.lengths().into_iter().map(|length| {
            let array = stored.slice(begin..begin + length);
            begin += length.next_multiple_of(ALIGNED);
            array
        });
        let mut next = || arrays.next().expect("an array of each");
        match self {
            Self::FourBit(it) => {
                let codes = next().to_vec();
                let absmax = match it.absmax {
                    Absmax::Plain(_) => Absmax::Plain(floats(&next())),
                    Absmax::Nested { offset, .. } => {
                        Absmax::Nested { codes: next().to_vec(), absmax: floats(&next()), offset }
                    }
                };
                FourBit { codes, absmax, shape: it.shape, config: it.config }.into()
            }
            Self::Int8(it) => {
                let codes = bytemuck::cast_slice(&next()).to_vec();
                Int8Rows { codes, absmax: floats(&next()), shape: it.shape }.into()
            }
            Self::Ggml(it) => {
                GgmlBlocks::new(it.kind(), next(), it.shape()).expect("as many bytes as before").into()
            }
        }
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|it| f32::from_ne_bytes(*it)).collect()
}
