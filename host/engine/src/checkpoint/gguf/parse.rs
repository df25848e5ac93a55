//! From bytes to metadata and places of tensors; every length is checked against what is left of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::entries::ALIGNMENT;
use super::{TensorInfo, TensorType};

/// What the head of a file says.
pub(super) struct Parsed {
    pub version: u32,
    pub metadata: BTreeMap<String, Value>,
    pub tensors: Vec<TensorInfo>,
}

/// Dimensions of a tensor, at most (ggml's `GGML_MAX_DIMS`).
const MAX_DIMENSIONS: u32 = 4;

/// A metadata value. Texts and arrays stay in the file: the value says where.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer.
    Whole(i128),
    /// A float.
    Number(f64),
    /// A truth value.
    Truth(bool),
    /// UTF-8 at these bytes of the file.
    Text(Range<usize>),
    /// `count` values of one type at these bytes of the file.
    Array {
        /// The type's number.
        kind: u32,
        /// Values.
        count: usize,
        /// Where they stand.
        bytes: Range<usize>,
    },
}

impl Value {
    pub(super) fn text<'a>(&self, file: &'a [u8]) -> Option<&'a str> {
        let Self::Text(range) = self else { return None };
        std::str::from_utf8(&file[range.clone()]).ok()
    }

    pub(super) fn whole(&self) -> Option<u64> {
        let Self::Whole(value) = self else { return None };
        u64::try_from(*value).ok()
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Whole(value) => Some(*value as f64),
            _ => None,
        }
    }

    pub(super) fn truth(&self) -> Option<bool> {
        let Self::Truth(value) = self else { return None };
        Some(*value)
    }

    pub(super) fn texts<'a>(&self, file: &'a [u8]) -> Option<Vec<&'a str>> {
        self.elements(file)?.into_iter().map(|it| it.text(file)).collect()
    }

    pub(super) fn wholes(&self, file: &[u8]) -> Option<Vec<i64>> {
        let whole = |it: Value| match it {
            Self::Whole(value) => i64::try_from(value).ok(),
            _ => None,
        };
        self.elements(file)?.into_iter().map(whole).collect()
    }

    pub(super) fn truths(&self, file: &[u8]) -> Option<Vec<bool>> {
        self.elements(file)?.into_iter().map(|it| it.truth()).collect()
    }

    pub(super) fn numbers(&self, file: &[u8]) -> Option<Vec<f64>> {
        self.elements(file)?.into_iter().map(|it| it.number()).collect()
    }

    fn elements(&self, file: &[u8]) -> Option<Vec<Value>> {
        let Self::Array { kind, count, bytes } = self else { return None };
        let mut cursor = Cursor { file, at: bytes.start };
        (0..*count).map(|_| cursor.value(*kind).ok()).collect()
    }
}

/// Type numbers of the metadata.
pub(super) mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// Bytes of a value of fixed width.
fn width(kind: u32) -> Option<usize> {
    match kind {
        kind::U8 | kind::I8 | kind::BOOL => Some(1),
        kind::U16 | kind::I16 => Some(2),
        kind::U32 | kind::I32 | kind::F32 => Some(4),
        kind::U64 | kind::I64 | kind::F64 => Some(8),
        _ => None,
    }
}

struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length).filter(|it| *it <= self.file.len());
        let end = end.ok_or_else(|| {
            format!("it ends at byte {}, and {length} bytes are to follow byte {}", self.file.len(), self.at)
        })?;
        let taken = &self.file[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many as asked for"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    /// A length or count, as what this machine counts with.
    fn size(&mut self) -> Result<usize, String> {
        let value = u64::from_le_bytes(self.bytes()?);
        usize::try_from(value).map_err(|_| format!("a length of {value} at byte {}", self.at - 8))
    }

    fn text(&mut self) -> Result<Range<usize>, String> {
        let length = self.size()?;
        let start = self.at;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| format!("a text at byte {start} is no UTF-8"))?;
        Ok(start..self.at)
    }

    fn owned_text(&mut self) -> Result<String, String> {
        let range = self.text()?;
        Ok(std::str::from_utf8(&self.file[range]).expect("checked as it was read").to_string())
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            kind::U8 => Value::Whole(u8::from_le_bytes(self.bytes()?).into()),
            kind::I8 => Value::Whole(i8::from_le_bytes(self.bytes()?).into()),
            kind::U16 => Value::Whole(u16::from_le_bytes(self.bytes()?).into()),
            kind::I16 => Value::Whole(i16::from_le_bytes(self.bytes()?).into()),
            kind::U32 => Value::Whole(self.u32()?.into()),
            kind::I32 => Value::Whole(i32::from_le_bytes(self.bytes()?).into()),
            kind::U64 => Value::Whole(u64::from_le_bytes(self.bytes()?).into()),
            kind::I64 => Value::Whole(i64::from_le_bytes(self.bytes()?).into()),
            kind::F32 => Value::Number(f32::from_le_bytes(self.bytes()?).into()),
            kind::F64 => Value::Number(f64::from_le_bytes(self.bytes()?)),
            kind::BOOL => Value::Truth(self.bytes::<1>()? != [0]),
            kind::STRING => Value::Text(self.text()?),
            kind::ARRAY => self.array()?,
            other => return Err(format!("a value of type {other} before byte {}", self.at)),
        })
    }

    fn array(&mut self) -> Result<Value, String> {
        let (kind, count) = (self.u32()?, self.size()?);
        let start = self.at;
        if let Some(width) = width(kind) {
            self.take(
                count.checked_mul(width).ok_or_else(|| format!("an array of {count} at byte {start}"))?,
            )?;
        } else if kind == kind::STRING {
            for _ in 0..count {
                self.text()?;
            }
        } else {
            // Arrays of arrays are allowed by the format and used by no model.
            return Err(format!("an array of values of type {kind} at byte {start}"));
        }
        Ok(Value::Array { kind, count, bytes: start..self.at })
    }

    fn tensor(&mut self) -> Result<TensorInfo, String> {
        let name = self.owned_text()?;
        let dimensions = self.u32()?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(format!("tensor `{name}` has {dimensions} dimensions"));
        }
        let mut shape = (0..dimensions).map(|_| self.size()).collect::<Result<Vec<_>, _>>()?;
        if shape.contains(&0) {
            return Err(format!("tensor `{name}` has a dimension of 0"));
        }
        if shape.iter().try_fold(1usize, |product, it| product.checked_mul(*it)).is_none() {
            return Err(format!("tensor `{name}` has the impossible dimensions {shape:?}"));
        }
        shape.reverse();
        let stored = TensorType(self.u32()?);
        // From the start of the data, for now.
        let start = self.size()?;
        Ok(TensorInfo { name, shape, stored, start })
    }
}

/// Reads the head of a file and checks every tensor's place.
pub(super) fn parse(file: &[u8]) -> Result<Parsed, String> {
    let (mut parsed, data, alignment) = head(file)?;
    place(&mut parsed.tensors, data, alignment, file.len())?;
    Ok(parsed)
}

/// As [`parse`], of a file whose tensors are not all there: those that are asked for must be.
pub(super) fn parse_head(file: &[u8]) -> Result<Parsed, String> {
    let (mut parsed, data, _) = head(file)?;
    parsed.tensors.iter_mut().for_each(|it| it.start += data);
    Ok(parsed)
}

/// The head of a file, places of tensors counted from where the data starts; that, and what they are aligned to.
fn head(file: &[u8]) -> Result<(Parsed, usize, usize), String> {
    let mut cursor = Cursor { file, at: 0 };
    if cursor.bytes().ok() != Some(*b"GGUF") {
        return Err("it does not begin with `GGUF`".to_string());
    }
    let version = match cursor.u32()? {
        version @ (2 | 3) => version,
        other if matches!(other.swap_bytes(), 1..=3) => return Err("it is big-endian".to_string()),
        other => return Err(format!("version {other} is not known here (known: 2, 3)")),
    };
    let (tensor_count, value_count) = (cursor.size()?, cursor.size()?);
    let mut metadata = BTreeMap::new();
    for _ in 0..value_count {
        let key = cursor.owned_text()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind).map_err(|reason| format!("`{key}`: {reason}"))?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("`{key}` is there twice"));
        }
    }
    // Not `with_capacity`: the count is only a claim.
    let mut tensors = Vec::new();
    for _ in 0..tensor_count {
        tensors.push(cursor.tensor()?);
    }
    let alignment = alignment(&metadata)?;
    let data = cursor.at.next_multiple_of(alignment);
    Ok((Parsed { version, metadata, tensors }, data, alignment))
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<usize, String> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(ALIGNMENT) };
    let alignment = value.whole().and_then(|it| u32::try_from(it).ok()).filter(|it| it.is_power_of_two());
    let alignment = alignment.ok_or_else(|| "`general.alignment` must be a power of two".to_string())?;
    Ok(alignment as usize)
}

/// Turns offsets into the data into positions in the file.
fn place(tensors: &mut [TensorInfo], data: usize, alignment: usize, length: usize) -> Result<(), String> {
    let mut names = BTreeSet::new();
    let mut spans = Vec::new();
    for tensor in tensors.iter_mut() {
        let name = &tensor.name;
        if !tensor.start.is_multiple_of(alignment) {
            return Err(format!("tensor `{name}` does not start at a multiple of {alignment}"));
        }
        // The size of a type that is not known can't be told: such a tensor is refused when its values are asked for.
        let bytes = match tensor.stored.bytes(&tensor.shape) {
            Some(bytes) => bytes,
            None if !tensor.stored.is_known() => 0,
            None => {
                let (stored, shape) = (tensor.stored.name(), &tensor.shape);
                return Err(format!("tensor `{name}`: {stored} can't hold the shape {shape:?}"));
            }
        };
        let start = data.checked_add(tensor.start);
        let end = start.and_then(|it| it.checked_add(bytes)).filter(|it| *it <= length);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(format!("tensor `{name}` does not end within the file's {length} bytes"));
        };
        if !names.insert(name.clone()) {
            return Err(format!("tensor `{name}` is there twice"));
        }
        tensor.start = start;
        spans.push((start..end, name.as_str()));
    }
    apart(spans)
}

/// Whether no two tensors share bytes. A span of no bytes, of a type that is not known, shares none.
fn apart(mut spans: Vec<(Range<usize>, &str)>) -> Result<(), String> {
    spans.retain(|it| !it.0.is_empty());
    spans.sort_unstable_by_key(|it| it.0.start);
    // Of spans in order that do not overlap, each ends before the next starts: neighbours are enough.
    match spans.windows(2).find(|it| it[0].0.end > it[1].0.start) {
        Some(two) => Err(format!("tensors `{}` and `{}` share bytes of the file", two[0].1, two[1].1)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_that_share_bytes_are_refused() {
        let tensor = |name: &str, values: usize, stored: u32, start: usize| TensorInfo {
            name: name.to_string(),
            shape: vec![values],
            stored: TensorType(stored),
            start,
        };
        let placed = |mut tensors: Vec<TensorInfo>| place(&mut tensors, 64, 32, 1024);
        assert_eq!(placed(vec![tensor("b", 8, 0, 32), tensor("a", 8, 0, 0)]), Ok(()));
        // How many bytes a type takes that is not known can't be told.
        assert_eq!(placed(vec![tensor("a", 16, 0, 0), tensor("b", 256, 10, 32)]), Ok(()));
        let told = placed(vec![tensor("b", 8, 0, 32), tensor("a", 9, 0, 0)]).unwrap_err();
        assert_eq!(told, "tensors `a` and `b` share bytes of the file");
    }
}
