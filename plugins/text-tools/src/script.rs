//! Which script a character belongs to, as far as taking texts apart needs it.

use std::borrow::Cow;

use crate::scan::beyond_ascii;

/// Han and kana, which are written without spaces; each character counts as a word. Hangul has spaces.
pub fn is_ideographic(character: char) -> bool {
    matches!(u32::from(character),
        0x3005..=0x3007            // iteration mark, closing mark, zero
        | 0x3021..=0x3029          // Hangzhou numerals
        | 0x3040..=0x30FF          // hiragana, katakana
        | 0x31F0..=0x31FF          // katakana extensions
        | 0x3400..=0x4DBF          // extension A
        | 0x4E00..=0x9FFF          // unified ideographs
        | 0xF900..=0xFAFF          // compatibility ideographs
        | 0xFF66..=0xFF9F          // half-width katakana
        | 0x20000..=0x3FFFF) // extensions B and later
}

/// Full-width letters, digits and signs as their ASCII equals, the ideographic space as a space, the minus sign as a
/// hyphen. Everything else stays.
pub fn half_width(text: &str) -> Cow<'_, str> {
    let wide = |it: &(usize, char)| narrow(it.1) != it.1;
    let first = beyond_ascii(text.as_bytes())
        .and_then(|begin| text[begin..].char_indices().find(wide).map(|it| begin + it.0));
    let Some(first) = first else { return Cow::Borrowed(text) };
    let mut narrowed = String::with_capacity(text.len());
    let mut kept = 0;
    for (at, character) in text[first..].char_indices().filter(wide) {
        narrowed.push_str(&text[kept..first + at]);
        narrowed.push(narrow(character));
        kept = first + at + character.len_utf8();
    }
    narrowed.push_str(&text[kept..]);
    narrowed.into()
}

/// [`half_width`] of one character.
pub fn narrow(character: char) -> char {
    match u32::from(character) {
        code @ 0xFF01..=0xFF5E => char::from_u32(code - 0xFEE0).unwrap_or(character),
        0x3000 | 0x00A0 | 0x2009 | 0x202F => ' ',
        0x2212 | 0xFE63 => '-',
        0xFFE5 => '¥',
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_width_signs_become_ascii_and_nothing_else_changes() {
        assert_eq!(half_width("１２，３４５．６％　ＡＢ"), "12,345.6% AB");
        assert_eq!(half_width("−5 汉字 é"), "-5 汉字 é");
    }

    #[test]
    fn han_and_kana_are_words_of_their_own_and_hangul_is_not() {
        assert!("汉字ひらカタ〇々𠀀".chars().all(is_ideographic));
        assert!(!"한국어 abc 。，é".chars().any(is_ideographic));
    }
}
