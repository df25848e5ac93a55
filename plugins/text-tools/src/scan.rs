//! Looking through bytes by the block: in the sandbox each turn of a loop pays for its limits, so that a turn looks at
//! many bytes, without a branch each.

use std::ops::Range;

const BLOCK: usize = 16;

/// Where the first byte beyond ASCII is.
pub(crate) fn beyond_ascii(bytes: &[u8]) -> Option<usize> {
    let blocks = bytes.as_chunks::<{ 4 * BLOCK }>().0;
    let is_ascii = |block: &[u8; 4 * BLOCK]| block.iter().fold(0, |all, it| all | it).is_ascii();
    let begin = blocks.iter().position(|it| !is_ascii(it)).unwrap_or(blocks.len()) * 4 * BLOCK;
    bytes[begin..].iter().position(|it| !it.is_ascii()).map(|it| begin + it)
}

/// Whether all is ASCII.
pub(crate) fn is_ascii(text: &str) -> bool {
    beyond_ascii(text.as_bytes()).is_none()
}

/// The last place that is right `here`. Looked at are only blocks in which `may_be` accepts a byte, with the byte before
/// it (0 before the first): it must accept that of every place that is right.
pub(crate) fn last_place(
    bytes: &[u8],
    may_be: impl Fn(u8, u8) -> bool,
    here: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut end = bytes.len();
    while let Some(block) = bytes[..end].last_chunk::<{ BLOCK + 1 }>() {
        if block.iter().zip(&block[1..]).fold(false, |any, (before, it)| any | may_be(*before, *it))
            && let Some(at) = (end - BLOCK..end).rev().find(|at| here(*at))
        {
            return Some(at);
        }
        end -= BLOCK;
    }
    (0..end).rev().find(|at| here(*at))
}

/// Eight bytes of ASCII, of which a class is told at once: bit 7 of each byte in it is set.
#[derive(Clone, Copy)]
pub(crate) struct Eight(u64);

impl Eight {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * Self::ONES;

    fn at_least(self, byte: u8) -> u64 {
        (self.0 + u64::from(0x80 - byte) * Self::ONES) & Self::HIGH
    }

    fn between(self, first: u8, last: u8) -> u64 {
        self.at_least(first) & !self.at_least(last + 1)
    }

    /// Letters, digits and `_`.
    pub(crate) fn word(self) -> u64 {
        let small = Self(self.0 | (0x20 * Self::ONES));
        small.between(b'a', b'z') | self.between(b'0', b'9') | self.between(b'_', b'_')
    }

    /// Everything but white space.
    pub(crate) fn no_space(self) -> u64 {
        !(self.between(b' ', b' ') | self.between(b'\t', b'\r')) & Self::HIGH
    }
}

/// Calls `found` with each run of bytes of a class, which holds no space. All bytes are ASCII.
pub(crate) fn each_run(ascii: &[u8], class: impl Fn(Eight) -> u64, mut found: impl FnMut(Range<usize>)) {
    const BYTES: usize = 64;
    // Where a run began that goes on in the next block.
    let mut open = None;
    for (number, block) in ascii.chunks(BYTES).enumerate() {
        let first = number * BYTES;
        let mut padded = [b' '; BYTES];
        let block = block.try_into().unwrap_or_else(|_| {
            padded[..block.len()].copy_from_slice(block);
            &padded
        });
        // A bit a byte: the product brings the eight high bits together.
        let mut bits = block.as_chunks::<8>().0.iter().rev().fold(0u64, |bits, eight| {
            let high = class(Eight(u64::from_le_bytes(*eight))) >> 7;
            bits << 8 | high.wrapping_mul(0x0102_0408_1020_4080) >> 56
        });
        if let Some(begin) = open {
            let length = bits.trailing_ones() as usize;
            if length == BYTES {
                continue;
            }
            found(begin..first + length);
            open = None;
            bits &= u64::MAX << length;
        }
        while bits != 0 {
            let begin = bits.trailing_zeros() as usize;
            let end = begin + (bits >> begin).trailing_ones() as usize;
            if end == BYTES {
                open = Some(first + begin);
                break;
            }
            found(first + begin..first + end);
            bits &= u64::MAX << end;
        }
    }
    if let Some(begin) = open {
        found(begin..ascii.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_wherever_blocks_end() {
        for length in 0..50 {
            for place in 0..length {
                let mut text = vec![b'a'; length];
                text[place] = b'x';
                let found = last_place(&text, |_, it| it == b'x', |at| text[at] == b'x');
                assert_eq!(found, Some(place), "{length}");
                let after =
                    last_place(&text, |before, _| before == b'x', |at| at > 0 && text[at - 1] == b'x');
                assert_eq!(after, Some(place + 1).filter(|it| *it < length), "{length}");
            }
        }
    }

    #[test]
    fn runs_are_those_of_a_byte_at_a_time() {
        let is_word = |it: &u8| it.is_ascii_alphanumeric() || *it == b'_';
        let no_space = |it: &u8| !char::from(*it).is_whitespace();
        for step in 1..200usize {
            // Every byte of ASCII, in an order of its own each time.
            let text: Vec<u8> = (0..step).map(|it| (it * step * 7 % 128) as u8).collect();
            for (class, wanted) in [
                (Eight::word as fn(Eight) -> u64, &is_word as &dyn Fn(&u8) -> bool),
                (Eight::no_space, &no_space),
            ] {
                let mut found = vec![false; text.len()];
                each_run(&text, class, |run| {
                    assert!(run.start == 0 || !wanted(&text[run.start - 1]));
                    assert!(run.end == text.len() || !wanted(&text[run.end]));
                    found[run].fill(true);
                });
                assert_eq!(found, text.iter().map(wanted).collect::<Vec<_>>(), "{step}");
            }
        }
    }
}
