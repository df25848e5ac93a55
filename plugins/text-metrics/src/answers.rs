//! Short answers: which words they have after normalisation, and how many are shared.

use std::collections::HashMap;

use crate::tokenize::{is_punctuation, words};

/// SQuAD's normalisation (Rajpurkar et al. 2016, <https://arxiv.org/abs/1606.05250>), as words: lower case, no ASCII
/// punctuation, no English articles.
pub fn squad_words(text: &str) -> Vec<String> {
    let text: String = text.to_lowercase().chars().filter(|it| !it.is_ascii_punctuation()).collect();
    words(&text).filter(|it| !is_article(it)).map(str::to_owned).collect()
}

/// SQuAD's normalisation for every script, as MLQA's evaluation has it (Lewis et al. 2020,
/// <https://aclanthology.org/2020.acl-main.653>): punctuation of no script stays, and characters of Chinese, Japanese and
/// Korean are words of their own.
pub fn multilingual_words(text: &str) -> Vec<String> {
    let mut spaced = String::with_capacity(text.len() * 2);
    for it in text.to_lowercase().chars().filter(|it| !it.is_ascii_punctuation() && !is_punctuation(*it)) {
        if is_cjk(it) {
            spaced.extend([' ', it, ' ']);
        } else {
            spaced.push(it);
        }
    }
    words(&spaced).filter(|it| !is_article(it)).map(str::to_owned).collect()
}

/// Kana, Han and Hangul syllables.
fn is_cjk(it: char) -> bool {
    matches!(it,
        '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3134f}')
}

fn is_article(word: &str) -> bool {
    matches!(word, "a" | "an" | "the")
}

/// Harmonic mean of precision and recall over bags of words; where one side has no words, 1 if both have none.
pub fn bag_f1(answer: &[String], expected: &[String]) -> f64 {
    if answer.is_empty() || expected.is_empty() {
        return f64::from(u8::from(answer == expected));
    }
    let mut left: HashMap<&str, u64> = HashMap::new();
    for word in expected {
        *left.entry(word).or_default() += 1;
    }
    let mut hits = 0;
    for word in answer {
        if let Some(count @ 1..) = left.get_mut(word.as_str()) {
            (*count, hits) = (*count - 1, hits + 1);
        }
    }
    2.0 * f64::from(hits) / (answer.len() + expected.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chinese_answer_is_its_characters() {
        assert_eq!(
            multilingual_words("《红楼梦》，the Dream of 1792!"),
            ["红", "楼", "梦", "dream", "of", "1792"]
        );
        assert_eq!(squad_words("The 红楼梦。"), ["红楼梦。"]);
    }
}
