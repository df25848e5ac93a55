//! How the standard plugins take texts apart. Scripts that put no space between words are treated as such everywhere.

pub mod extract;
mod find;
pub mod json;
pub mod number;
pub mod numerals;
mod scan;
mod script;
mod words;

pub use script::{half_width, is_ideographic, narrow};
pub use words::{each_token, lcs_f1, sentences, tokens, word_count, word_starts, words};

/// 20,000 texts of fewer than `most` parts, drawn from a stream that is always the same.
#[cfg(test)]
fn drawn_texts(parts: &[&str], most: usize) -> impl Iterator<Item = String> {
    let mut state = 1u64;
    (0..20_000).map(move |number| {
        let mut draw = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            parts[(state >> 33) as usize % parts.len()]
        };
        (0..number % most).map(|_| draw()).collect()
    })
}
