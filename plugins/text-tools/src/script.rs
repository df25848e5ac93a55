//! Which script a character belongs to, as far as taking texts apart needs it.

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
pub fn half_width(text: &str) -> String {
    let narrow = |it: char| match u32::from(it) {
        code @ 0xFF01..=0xFF5E => char::from_u32(code - 0xFEE0).unwrap_or(it),
        0x3000 | 0x00A0 | 0x2009 | 0x202F => ' ',
        0x2212 | 0xFE63 => '-',
        0xFFE5 => '¥',
        _ => it,
    };
    text.chars().map(narrow).collect()
}

/// Whether a number can't begin with this ASCII character; beyond ASCII there are numerals and signs.
pub(crate) fn begins_no_number(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_digit() && !b"+-.$\\".contains(&byte)
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
