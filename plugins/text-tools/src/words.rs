//! Words, sentences and runs of them.

use unicode_segmentation::UnicodeSegmentation;

use crate::is_ideographic;

/// What stands between spaces, and each Han or kana character by itself: what n-grams are made of.
///
/// Text without such characters is split as Python's `str.split` does.
pub fn tokens(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    for piece in text.split_whitespace() {
        let mut begin = 0;
        for (at, character) in piece.char_indices().filter(|it| is_ideographic(it.1)) {
            if begin < at {
                all.push(&piece[begin..at]);
            }
            begin = at + character.len_utf8();
            all.push(&piece[at..begin]);
        }
        if begin < piece.len() {
            all.push(&piece[begin..]);
        }
    }
    all
}

/// Words as Unicode's annex 29 finds them, without punctuation; a Han or kana character is a word.
pub fn words(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    for word in text.unicode_words() {
        // Annex 29 keeps runs of katakana together.
        if word.chars().any(is_ideographic) { all.extend(tokens(word)) } else { all.push(word) }
    }
    all
}

/// Where each of [`words`] begins, in bytes.
pub fn word_starts(text: &str) -> Vec<usize> {
    let origin = text.as_ptr() as usize;
    words(text).into_iter().map(|it| it.as_ptr() as usize - origin).collect()
}

/// Abbreviations that a capital letter may follow within a sentence.
const ABBREVIATIONS: [&str; 28] = [
    "mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "e.g.", "i.e.", "no.", "fig.", "eq.", "al.", "cf.",
    "jr.", "sr.", "inc.", "ltd.", "co.", "gen.", "sen.", "rep.", "gov.", "capt.", "col.", "approx.", "dept.",
    "vol.",
];

fn goes_on(sentence: &str) -> bool {
    if sentence.ends_with(['\n', '\r', '\u{2029}']) {
        return false;
    }
    let Some(last) = sentence.trim_end().rsplit(char::is_whitespace).next() else { return false };
    let last = last.trim_start_matches(['(', '[', '"', '“']);
    // A capital letter with a full stop is an initial.
    let initial =
        last.len() == 2 && last.ends_with('.') && last.starts_with(|it: char| it.is_ascii_uppercase());
    initial || ABBREVIATIONS.contains(&last.to_lowercase().as_str())
}

/// Sentences with the space that follows each; their concatenation is the text. Ends are those of Unicode's annex 29,
/// which knows `。！？`; common abbreviations, initials and what goes on in lower case do not end one, a line feed does.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut begin, mut end) = (0, 0);
    for piece in text.split_sentence_bounds() {
        end += piece.len();
        let lower = text[end..].starts_with(char::is_lowercase) && !text[..end].ends_with(['\n', '\r']);
        if !lower && !goes_on(&text[begin..end]) {
            all.push(&text[begin..end]);
            begin = end;
        }
    }
    if begin < end {
        all.push(&text[begin..end]);
    }
    all
}

/// Every run of `n` items, in order; none where there are fewer.
pub fn ngrams<T>(items: &[T], n: usize) -> impl Iterator<Item = &[T]> {
    items.windows(n.max(1))
}

/// ROUGE-L's F1 of two sequences: the longest common subsequence over the mean of the lengths; 0 where one is empty.
pub fn lcs_f1<T: PartialEq>(a: &[T], b: &[T]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 0.0;
    }
    let mut row = vec![0usize; b.len() + 1];
    for item in a {
        let mut diagonal = 0;
        for (at, other) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if item == other { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    2.0 * row[b.len()] as f64 / (a.len() + b.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_python_s_split_and_single_ideographs() {
        assert_eq!(tokens(" Hello,  world!\n"), ["Hello,", "world!"]);
        assert_eq!(tokens("用GPT-4写 代码。"), ["用", "GPT-4", "写", "代", "码", "。"]);
    }

    #[test]
    fn words_have_no_punctuation_and_numbers_stay_whole() {
        assert_eq!(words("It can't be 3.14, (no)!"), ["It", "can't", "be", "3.14", "no"]);
        assert_eq!(words("我爱カタ。한국 말"), ["我", "爱", "カ", "タ", "한국", "말"]);
        assert_eq!(word_starts("a, bc"), [0, 3]);
    }

    #[test]
    fn sentences_end_where_readers_end_them() {
        let text = "Dr. Smith paid $3.50. He left! \"Why?\" she asked.\nNext";
        assert_eq!(sentences(text), ["Dr. Smith paid $3.50. ", "He left! ", "\"Why?\" she asked.\n", "Next"]);
        assert_eq!(sentences("今天下雨。你好吗？我很好！"), ["今天下雨。", "你好吗？", "我很好！"]);
        assert_eq!(sentences("他说：“好。”然后走了。"), ["他说：“好。”", "然后走了。"]);
        assert_eq!(sentences("J. R. Tolkien wrote. End"), ["J. R. Tolkien wrote. ", "End"]);
        assert!(sentences("").is_empty());
    }

    #[test]
    fn the_longest_common_subsequence_is_rouge_l() {
        // rouge-score's own example: "police killed the gunman", "police kill the gunman": 3 of 4 and 4.
        let (a, b) = (tokens("police killed the gunman"), tokens("police kill the gunman"));
        assert!((lcs_f1(&a, &b) - 0.75).abs() < 1e-12);
        assert_eq!(lcs_f1(&tokens("a b"), &[]), 0.0);
        assert_eq!(ngrams(&[1, 2, 3], 2).collect::<Vec<_>>(), [&[1, 2], &[2, 3]]);
        assert_eq!(ngrams(&[1], 2).count(), 0);
    }
}
