//! How the standard plugins take texts apart. Scripts that put no space between words are treated as such everywhere.

pub mod extract;
pub mod number;
pub mod numerals;
mod script;
mod words;

pub use script::{half_width, is_ideographic};
pub use words::{lcs_f1, ngrams, sentences, tokens, word_starts, words};
