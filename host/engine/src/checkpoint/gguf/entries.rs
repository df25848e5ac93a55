//! A file's head: metadata and places of tensors, as version 3 has them.

use super::TensorType;

/// Tensors start at multiples of this where a file says nothing else, as those written here do.
pub(super) const ALIGNMENT: usize = 32;

/// A metadata value to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A whole number of 32 bits.
    Whole(u32),
    /// A float of 32 bits.
    Number(f32),
    /// A truth value.
    Truth(bool),
    /// A text.
    Text(String),
    /// Whole numbers.
    Wholes(Vec<i32>),
    /// Floats.
    Numbers(Vec<f32>),
    /// Truth values.
    Truths(Vec<bool>),
    /// Texts.
    Texts(Vec<String>),
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        Self::Text(text.to_string())
    }
}

/// A tensor's name, shape (outermost dimension first) and type.
pub(super) struct Place<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub stored: TensorType,
    pub bytes: usize,
}

/// The head of a file, up to where the first tensor starts.
pub(super) fn head(entries: &[(String, Entry)], tensors: &[Place<'_>]) -> Vec<u8> {
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        text(&mut head, key);
        entry(&mut head, value);
    }
    let mut start = 0u64;
    for tensor in tensors {
        text(&mut head, tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|it| head.extend((*it as u64).to_le_bytes()));
        head.extend(tensor.stored.0.to_le_bytes());
        head.extend(start.to_le_bytes());
        start += tensor.bytes.next_multiple_of(ALIGNMENT) as u64;
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    head
}

fn text(head: &mut Vec<u8>, text: &str) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

/// A value behind the number of its type.
fn entry(head: &mut Vec<u8>, value: &Entry) {
    use super::parse::kind;
    fn array<T>(head: &mut Vec<u8>, kind: u32, values: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
        head.extend(kind::ARRAY.to_le_bytes());
        head.extend(kind.to_le_bytes());
        head.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|it| each(head, it));
    }
    let mut of = |kind: u32, bytes: &[u8]| {
        head.extend(kind.to_le_bytes());
        head.extend(bytes);
    };
    match value {
        Entry::Whole(it) => of(kind::U32, &it.to_le_bytes()),
        Entry::Number(it) => of(kind::F32, &it.to_le_bytes()),
        Entry::Truth(it) => of(kind::BOOL, &[u8::from(*it)]),
        Entry::Text(it) => {
            of(kind::STRING, &[]);
            text(head, it);
        }
        Entry::Wholes(all) => array(head, kind::I32, all, |head, it| head.extend(it.to_le_bytes())),
        Entry::Numbers(all) => array(head, kind::F32, all, |head, it| head.extend(it.to_le_bytes())),
        Entry::Truths(all) => array(head, kind::BOOL, all, |head, it| head.push(u8::from(*it))),
        Entry::Texts(all) => array(head, kind::STRING, all, |head, it| text(head, it)),
    }
}
