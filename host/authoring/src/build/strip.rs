//! Takes names, producers and debugging sections out of a component and the modules in it.
//!
//! The format (<https://webassembly.github.io/spec/core/binary/modules.html>, and the component model's `Binary.md`): a
//! preamble of eight bytes, then sections, each an id, a length in LEB128 and its contents. Section 0 is custom in modules
//! and components alike; sections 1 and 4 of a component are a whole module and a whole component.

const PREAMBLE: usize = 8;
const MAGIC: &[u8] = b"\0asm";

/// `bytes` without custom sections; `None` where they are no WebAssembly.
pub(super) fn stripped(bytes: &[u8]) -> Option<Vec<u8>> {
    let preamble = bytes.get(..PREAMBLE)?;
    if &preamble[..4] != MAGIC {
        return None;
    }
    // The layer of the preamble: 1 is a component.
    let is_component = preamble[6] == 1;
    let mut kept = preamble.to_vec();
    let mut rest = &bytes[PREAMBLE..];
    while let Some((&id, after)) = rest.split_first() {
        let (length, contents) = leb128(after)?;
        let contents = contents.get(..length)?;
        rest = &after[(after.len() - leb128(after)?.1.len()) + length..];
        let nested = is_component && (id == 1 || id == 4);
        let contents = match id {
            0 => continue,
            _ if nested => stripped(contents)?,
            _ => contents.to_vec(),
        };
        kept.push(id);
        write_leb128(contents.len(), &mut kept);
        kept.extend(contents);
    }
    Some(kept)
}

/// A number of at most 32 bits, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

fn write_leb128(mut value: usize, into: &mut Vec<u8>) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return into.push(byte);
        }
        into.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_sections_go_from_a_component_and_from_the_modules_in_it() {
        let text = r#"(component
            (core module $inner (@custom "producers" "who made it") (func $named (export "f")))
            (core instance $made (instantiate $inner))
            (@custom "note" "for nobody"))"#;
        let bytes = wat::parse_str(text).unwrap();
        let kept = stripped(&bytes).unwrap();
        let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|it| it == text.as_bytes());
        for gone in ["who made it", "for nobody", "named"] {
            assert!(holds(&bytes, gone) && !holds(&kept, gone), "{gone}");
        }
        assert_eq!(stripped(&kept).unwrap(), kept);
    }

    #[test]
    fn what_is_no_webassembly_is_not_touched() {
        assert!(stripped(b"").is_none() && stripped(b"#!/bin/sh\n").is_none());
        let bytes = wat::parse_str("(component (core module))").unwrap();
        assert!((9..bytes.len()).any(|cut| stripped(&bytes[..cut]).is_none()));
    }
}
