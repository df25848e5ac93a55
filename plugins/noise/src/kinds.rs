//! The errors, one by one.

use fthost_plugin_sdk::plugin_config;
use row_tools::random::Draws;
use text_tools::is_ideographic;
use unicode_segmentation::UnicodeSegmentation;

use crate::protect;

/// An error that people make.
#[plugin_config]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A letter beside the right one on an English keyboard.
    Keyboard,
    /// Two neighbouring letters in the wrong order.
    Swap,
    /// A letter is missing; the first of a word stays.
    Drop,
    /// A letter stands twice.
    Repeat,
    /// A capital letter is small, or the other way round.
    Case,
    /// A space is missing, or one too many stands in a word of Latin letters.
    Space,
    /// A word or character that sounds the same (their and there, 的 and 地).
    Homophone,
}

impl Kind {
    /// All but homophones, which change what is said more than a reader would forgive.
    pub const USUAL: [Self; 6] =
        [Self::Keyboard, Self::Swap, Self::Drop, Self::Repeat, Self::Case, Self::Space];
}

const ROWS: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];

const HOMOPHONES: [&[&str]; 9] = [
    &["their", "there"],
    &["your", "you're"],
    &["its", "it's"],
    &["to", "too", "two"],
    &["then", "than"],
    &["hear", "here"],
    &["know", "no"],
    &["whether", "weather"],
    &["which", "witch"],
];

const CHARACTERS: [&str; 7] = ["的地得", "在再", "做作", "他她它", "那哪", "像象", "以已"];

/// Letters beside `letter` on the keyboard: in its row, and above and below it.
fn neighbours(letter: char) -> Vec<char> {
    let lower = letter.to_ascii_lowercase();
    let Some(row) = ROWS.iter().position(|it| it.contains(lower)) else { return Vec::new() };
    let at = ROWS[row].find(lower).unwrap_or(0);
    let letter_at = |row: usize, at: usize| ROWS.get(row)?.chars().nth(at);
    let beside = [at.checked_sub(1).and_then(|it| letter_at(row, it)), letter_at(row, at + 1)];
    let above = row.checked_sub(1).map_or([None, None], |it| [letter_at(it, at), letter_at(it, at + 1)]);
    let below = [letter_at(row + 1, at), at.checked_sub(1).and_then(|it| letter_at(row + 1, it))];
    let same_case = |it: char| if letter.is_ascii_uppercase() { it.to_ascii_uppercase() } else { it };
    beside.into_iter().chain(above).chain(below).flatten().map(same_case).collect()
}

/// A text of graphemes with what is left alone.
struct Typed<'a> {
    graphemes: Vec<(usize, &'a str)>,
    text: &'a str,
    mask: Vec<bool>,
}

impl<'a> Typed<'a> {
    /// The letter at a place that may be changed; letters with marks of their own are none.
    fn letter(&self, at: usize) -> Option<char> {
        let (byte, grapheme) = self.graphemes.get(at)?;
        let mut characters = grapheme.chars();
        let first = characters.next().filter(|it| it.is_alphabetic())?;
        (characters.next().is_none() && !self.mask[*byte]).then_some(first)
    }

    fn is_letter(&self, at: Option<usize>) -> bool {
        at.is_some_and(|it| self.letter(it).is_some())
    }

    /// The word of Latin letters that begins at a place.
    fn word(&self, at: usize) -> Option<&'a str> {
        if self.is_letter(at.checked_sub(1)) || self.mask[self.graphemes[at].0] {
            return None;
        }
        let rest = &self.text[self.graphemes[at].0..];
        let end = rest.find(|it: char| !(it.is_ascii_alphabetic() || it == '\'')).unwrap_or(rest.len());
        (end > 0).then(|| &rest[..end])
    }

    /// What stands in the place of the graphemes from `at` on, and how many they are; `None` where the error does not
    /// fit.
    fn error(&self, kind: Kind, at: usize, draws: &mut Draws) -> Option<(String, usize)> {
        let letter = self.letter(at);
        let before = at.checked_sub(1);
        match kind {
            Kind::Keyboard => {
                let near = neighbours(letter?);
                (!near.is_empty()).then(|| (near[draws.below(near.len())].to_string(), 1))
            }
            Kind::Swap => {
                let next = self.letter(at + 1)?;
                let both = [letter?, next];
                let same_script = is_ideographic(both[0]) == is_ideographic(both[1]);
                (both[0] != next && same_script).then(|| (format!("{next}{}", both[0]), 2))
            }
            Kind::Drop => {
                letter?;
                (self.is_letter(before) && self.is_letter(Some(at + 1))).then(|| (String::new(), 1))
            }
            Kind::Repeat => letter.map(|it| (format!("{it}{it}"), 1)),
            Kind::Case => {
                let letter = letter?;
                let other: String = if letter.is_uppercase() {
                    letter.to_lowercase().collect()
                } else {
                    letter.to_uppercase().collect()
                };
                (other != letter.to_string()).then_some((other, 1))
            }
            Kind::Space => match letter {
                None => {
                    let between = self.is_letter(before) && self.is_letter(Some(at + 1));
                    (self.graphemes[at].1 == " " && between).then(|| (String::new(), 1))
                }
                Some(it) => {
                    let next = self.letter(at + 1)?;
                    (!is_ideographic(it) && !is_ideographic(next)).then(|| (format!("{it} "), 1))
                }
            },
            Kind::Homophone => self.homophone(at, draws),
        }
    }

    fn homophone(&self, at: usize, draws: &mut Draws) -> Option<(String, usize)> {
        if let Some(letter) = self.letter(at).filter(|it| is_ideographic(*it)) {
            let same = CHARACTERS.iter().find(|it| it.contains(letter))?;
            let others: Vec<char> = same.chars().filter(|it| *it != letter).collect();
            return Some((others[draws.below(others.len())].to_string(), 1));
        }
        let word = self.word(at)?;
        let same = HOMOPHONES.iter().find(|it| it.iter().any(|one| one.eq_ignore_ascii_case(word)))?;
        let others: Vec<&&str> = same.iter().filter(|it| !it.eq_ignore_ascii_case(word)).collect();
        let other = others[draws.below(others.len())];
        let mut letters = other.chars();
        let first = letters.next()?;
        let first = if word.starts_with(char::is_uppercase) { first.to_ascii_uppercase() } else { first };
        Some((format!("{first}{}", letters.as_str()), word.chars().count()))
    }
}

/// The text with errors: each character gets one with the probability `rate`, of a kind that fits it.
pub fn noisy(text: &str, kinds: &[Kind], rate: f64, draws: &mut Draws) -> String {
    let typed = Typed { graphemes: text.grapheme_indices(true).collect(), text, mask: protect::mask(text) };
    let mut changed = String::with_capacity(text.len() + 16);
    let mut at = 0;
    let mut dropped = false;
    while at < typed.graphemes.len() {
        let grapheme = typed.graphemes[at].1;
        let error = if draws.unit() < rate {
            // Another kind is tried where the first does not fit.
            let first = draws.below(kinds.len());
            (0..kinds.len()).find_map(|it| typed.error(kinds[(first + it) % kinds.len()], at, draws))
        } else {
            None
        };
        // Of two letters side by side one stays.
        match error.filter(|it| !(dropped && it.0.is_empty())) {
            Some((other, length)) => {
                dropped = other.is_empty();
                changed.push_str(&other);
                at += length;
            }
            None => {
                dropped = false;
                changed.push_str(grapheme);
                at += 1;
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn always(kind: Kind, text: &str) -> String {
        noisy(text, &[kind], 1.0, &mut Draws::new(1))
    }

    #[test]
    fn each_kind_makes_its_error() {
        assert_eq!(always(Kind::Swap, "abcd ef"), "badc fe");
        assert_eq!(always(Kind::Drop, "abcdef ab"), "acef ab");
        assert_eq!(always(Kind::Repeat, "ab c"), "aabb cc");
        assert_eq!(always(Kind::Case, "Ab, 12 é"), "aB, 12 É");
        assert_eq!(always(Kind::Space, "ab cd"), "a bc d");
        assert_eq!(always(Kind::Homophone, "Their cat knows"), "There cat knows");
        let keyboard = always(Kind::Keyboard, "Hello, 42!");
        assert!(
            keyboard.starts_with(char::is_uppercase) && keyboard.ends_with(", 42!") && keyboard.len() == 10
        );
        assert!(!keyboard.contains("Hello"), "{keyboard}");
    }

    #[test]
    fn han_characters_are_swapped_left_out_or_repeated_and_no_more() {
        assert_eq!(always(Kind::Swap, "我爱你们"), "爱我们你");
        assert_eq!(always(Kind::Drop, "我爱你们"), "我你们");
        assert_eq!(always(Kind::Homophone, "他做"), format!("{}作", always(Kind::Homophone, "他")));
        for kind in [Kind::Keyboard, Kind::Case, Kind::Space] {
            assert_eq!(always(kind, "我爱你们。"), "我爱你们。");
        }
    }

    #[test]
    fn what_is_protected_stays_whatever_the_kind() {
        let text = "{name} 3rd `code` a@b.c";
        for kind in Kind::USUAL {
            assert_eq!(always(kind, text), text, "{kind:?}");
        }
    }

    #[test]
    fn a_letter_with_its_mark_is_not_taken_apart() {
        assert_eq!(always(Kind::Swap, "e\u{301}a"), "e\u{301}a");
    }
}
