//! Porter's stemmer with the changes that NLTK makes to it, which rouge-score uses: Porter 1980,
//! <https://tartarus.org/martin/PorterStemmer/>; `nltk.stem.porter`, mode `NLTK_EXTENSIONS`. Crates at hand follow
//! Porter's own program, which stems `sky`, `dying` or `enjoy` otherwise.

const IRREGULAR: [(&str, &str); 15] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
];

/// Step 2: the ending is replaced where what is before it has a positive measure.
const STEP_2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: [(&str, &str); 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Step 4: these go where what is before them has a measure over 1.
const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize",
];

/// The stem of a word of lower-case ASCII letters and digits.
pub fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().chain(&[("succeed", "succeed")]).find(|it| it.0 == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 || !word.is_ascii() {
        return word.to_owned();
    }
    let word = plural(word);
    let word = past(&word);
    let word = final_y(word);
    let word = step_2(&word);
    let word = replaced(&word, &STEP_3, |stem| measure(stem) > 0);
    let word = step_4(&word);
    without_double_l(without_e(word))
}

/// Of each letter whether it is a consonant; `y` is one at the start and after a vowel.
fn consonants(word: &str) -> Vec<bool> {
    let mut consonants: Vec<bool> = Vec::with_capacity(word.len());
    for letter in word.bytes() {
        let consonant = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => consonants.last().is_none_or(|before| !before),
            _ => true,
        };
        consonants.push(consonant);
    }
    consonants
}

/// How often a consonant follows a vowel.
fn measure(stem: &str) -> usize {
    consonants(stem).windows(2).filter(|it| !it[0] && it[1]).count()
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).contains(&false)
}

fn ends_in_double_consonant(word: &str) -> bool {
    let letters = word.as_bytes();
    letters.len() >= 2
        && letters[letters.len() - 1] == letters[letters.len() - 2]
        && consonants(word).last() == Some(&true)
}

/// Consonant, vowel, consonant other than w, x, y; or NLTK's addition: just a vowel and a consonant.
fn ends_in_short_syllable(word: &str) -> bool {
    match consonants(word).as_slice() {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

/// The first rule whose ending the word has decides: it applies, or nothing does.
fn replaced(word: &str, rules: &[(&str, &str)], applies: impl Fn(&str) -> bool) -> String {
    for (ending, replacement) in rules {
        if let Some(stem) = word.strip_suffix(ending) {
            return if applies(stem) { format!("{stem}{replacement}") } else { word.to_owned() };
        }
    }
    word.to_owned()
}

fn plural(word: &str) -> String {
    if word.len() == 4 && word.ends_with("ies") {
        return word[..3].to_owned();
    }
    replaced(word, &[("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")], |_| true)
}

fn past(word: &str) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        return format!("{stem}{}", if word.len() == 4 { "ie" } else { "i" });
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 { format!("{stem}ee") } else { word.to_owned() };
    }
    let stem = ["ed", "ing"].iter().filter_map(|it| word.strip_suffix(it)).find(|it| has_vowel(it));
    let Some(stem) = stem else { return word.to_owned() };
    if let Some(ending) = ["at", "bl", "iz"].into_iter().find(|it| stem.ends_with(it)) {
        return format!("{}{ending}e", &stem[..stem.len() - 2]);
    }
    if ends_in_double_consonant(stem) {
        let kept = stem.ends_with(['l', 's', 'z']);
        return stem[..stem.len() - usize::from(!kept)].to_owned();
    }
    if measure(stem) == 1 && ends_in_short_syllable(stem) { format!("{stem}e") } else { stem.to_owned() }
}

fn final_y(word: String) -> String {
    match word.strip_suffix('y') {
        Some(stem) if stem.len() > 1 && consonants(stem).last() == Some(&true) => format!("{stem}i"),
        _ => word,
    }
}

fn step_2(word: &str) -> String {
    // NLTK takes `alli` off first, and what is left goes through the step again.
    if let Some(stem) = word.strip_suffix("alli")
        && measure(stem) > 0
    {
        return step_2(&format!("{stem}al"));
    }
    if STEP_2.iter().any(|it| word.ends_with(it.0)) {
        return replaced(word, &STEP_2, |stem| measure(stem) > 0);
    }
    // The l of `logi` counts to the stem, so that `geologi` and `theologi` are long enough.
    match word.strip_suffix("ogi") {
        Some(stem) if stem.ends_with('l') && measure(stem) > 0 => format!("{stem}og"),
        _ => word.to_owned(),
    }
}

fn step_4(word: &str) -> String {
    let Some(stem) = STEP_4.iter().find_map(|it| word.strip_suffix(it).map(|stem| (*it, stem))) else {
        return word.to_owned();
    };
    match stem {
        ("ion", stem) if !stem.ends_with(['s', 't']) => word.to_owned(),
        (_, stem) if measure(stem) > 1 => stem.to_owned(),
        _ => word.to_owned(),
    }
}

fn without_e(word: String) -> String {
    match word.strip_suffix('e') {
        Some(stem) if measure(stem) > 1 || measure(stem) == 1 && !ends_in_short_syllable(stem) => {
            stem.to_owned()
        }
        _ => word,
    }
}

fn without_double_l(mut word: String) -> String {
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
    word
}
