//! How many different n-grams there are. Words become numbers first, so that n-grams are compared as numbers; hashes only
//! say where to look.

use std::ops::Range;

/// Numbers of what was seen, found by hash: open addressing, at most half full.
struct Table {
    /// A number plus 1; 0 where nothing was seen.
    slots: Vec<u32>,
    shift: u32,
}

impl Table {
    /// Of at most `items` different ones.
    fn new(items: usize) -> Self {
        let slots = (2 * items).next_power_of_two().max(2);
        Self { slots: vec![0; slots], shift: 64 - slots.trailing_zeros() }
    }

    /// The number of the one with this hash that is the `same`, or else `next`, which it has from now on.
    fn number(&mut self, hash: u64, next: u32, same: impl Fn(u32) -> bool) -> u32 {
        let mut at = (hash >> self.shift) as usize;
        loop {
            match self.slots[at] {
                0 => {
                    self.slots[at] = next + 1;
                    return next;
                }
                seen if same(seen - 1) => return seen - 1,
                _ => at = (at + 1) % self.slots.len(),
            }
        }
    }
}

/// Mixes `item` into a hash, whose high bits depend on everything so far.
fn mixed(hash: u64, item: u64) -> u64 {
    (hash.rotate_left(32) ^ item).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Of up to eight bytes a number that no others of this length have; of more their first and last eight.
fn key(text: &[u8], token: Range<usize>) -> u64 {
    let eight = |begin: usize| text.get(begin..begin + 8)?.first_chunk().map(|it| u64::from_le_bytes(*it));
    if token.len() > 8 {
        return eight(token.start).unwrap_or(0) ^ eight(token.end - 8).unwrap_or(0).rotate_left(32);
    }
    match eight(token.start) {
        Some(eight) => eight & u64::MAX >> (64 - 8 * token.len()),
        // At the text's end.
        None => text[token].iter().rev().fold(0, |key, byte| key << 8 | u64::from(*byte)),
    }
}

/// The tokens of a text as numbers from 0 on: equal ones have one number.
pub fn numbered(text: &str) -> Vec<u32> {
    // A token takes two bytes with its space, except for the last; an ideograph takes three.
    let most = text.len().div_ceil(2);
    let mut table = Table::new(most);
    let mut different: Vec<(u64, &[u8])> = Vec::with_capacity(most / 2);
    let mut numbers = Vec::with_capacity(most / 2);
    let text_bytes = text.as_bytes();
    text_tools::each_token(text, |place| {
        let key = key(text_bytes, place.clone());
        let token = &text_bytes[place];
        let mut hash = mixed(key, token.len() as u64);
        if token.len() > 16 {
            hash = token.iter().fold(hash, |hash, byte| mixed(hash, u64::from(*byte)));
        }
        let next = different.len() as u32;
        let number = table.number(hash, next, |it| {
            let (other_key, other) = different[it as usize];
            other_key == key && other.len() == token.len() && (token.len() <= 8 || other == token)
        });
        if number == next {
            different.push((key, token));
        }
        numbers.push(number);
    });
    numbers
}

/// How many different runs of `n` items there are.
pub fn ngrams(items: &[u32], n: usize) -> usize {
    let bits = items.iter().fold(0, |all, it| all | it).checked_ilog2().map_or(1, |it| it + 1);
    if n.saturating_mul(bits as usize) <= 64 { packed(items, n, bits) } else { long(items, n) }
}

/// Of runs that fit into 64 bits, with so many bits an item.
fn packed(items: &[u32], n: usize, bits: u32) -> usize {
    let kept = u64::MAX >> (64 - n as u32 * bits);
    let mut table = Table::new(items.len());
    let mut different: Vec<u64> = Vec::with_capacity(items.len());
    let mut ngram = 0;
    for (at, item) in items.iter().enumerate() {
        ngram = (ngram << bits | u64::from(*item)) & kept;
        let next = different.len() as u32;
        if at + 1 >= n && table.number(mixed(0, ngram), next, |it| different[it as usize] == ngram) == next {
            different.push(ngram);
        }
    }
    different.len()
}

/// Of runs of any length.
fn long(items: &[u32], n: usize) -> usize {
    let mut table = Table::new(items.len());
    // Where each different one stands first.
    let mut first: Vec<u32> = Vec::new();
    for (at, ngram) in items.windows(n).enumerate() {
        let hash = ngram.iter().fold(0, |hash, item| mixed(hash, u64::from(*item)));
        let next = first.len() as u32;
        let seen = |it: u32| {
            let begin = first[it as usize] as usize;
            items[begin..begin + n] == *ngram
        };
        if table.number(hash, next, seen) == next {
            first.push(at as u32);
        }
    }
    first.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Oracle: a set of the n-grams themselves.
    #[test]
    fn as_many_ngrams_are_different_as_a_set_holds() {
        let texts = [
            "",
            "a",
            "a a a",
            "a b a b c a b",
            "哈哈哈 哈哈",
            "the cat the cat sat on the cat ".repeat(40).leak(),
        ];
        for text in texts {
            let tokens = text_tools::tokens(text);
            let numbers = numbered(text);
            for n in [1, 2, 3, 4, 5, 9, 20, 70] {
                let expected: HashSet<&[&str]> = tokens.windows(n).collect();
                assert_eq!(ngrams(&numbers, n), expected.len(), "{text}: {n}");
                assert_eq!(long(&numbers, n), expected.len(), "{text}: {n}");
            }
        }
    }
}
