//! Oracle: sacrebleu 2.6.0 and rouge-score 0.1.2, in float64 as here; `tests/golden/generate/text_metrics.py`. The order of
//! additions differs in places, so 1e-9 of figures up to 100.

use std::collections::BTreeMap;

use serde::Deserialize;
use text_metrics::{
    Bins, Bleu, Bootstrap, Chrf, Distinct, Rouge, RougeType, Tokenizer, bag_f1, multilingual_words,
    self_bleu, stem, summed,
};

const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Golden {
    bleu_options: Vec<Bleu>,
    chrf_options: Vec<Chrf>,
    rouge_options: Vec<Rouge>,
    pairs: Vec<Pair>,
    corpora: Vec<Corpus>,
    stems: String,
    diversity: Vec<Group>,
    calibration: Calibration,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    answer: String,
    reference: String,
    exact: f64,
    f1: f64,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    answer: String,
    references: Vec<String>,
    tokens: BTreeMap<String, Vec<String>>,
    bleu: Vec<f64>,
    chrf: Vec<f64>,
    rouge: Vec<BTreeMap<String, [f64; 3]>>,
}

#[derive(Deserialize)]
struct Corpus {
    name: String,
    pairs: Vec<String>,
    bleu: Vec<f64>,
    chrf: Vec<f64>,
    bleu_interval: (f64, f64),
    chrf_interval: (f64, f64),
}

#[derive(Deserialize)]
struct Group {
    tokenizer: Tokenizer,
    effective_order: bool,
    texts: Vec<String>,
    distinct: Vec<f64>,
    self_bleu: Vec<f64>,
}

#[derive(Deserialize)]
struct Calibration {
    confidences: Vec<f64>,
    right: Vec<bool>,
    bins: Vec<Binned>,
}

#[derive(Deserialize)]
struct Binned {
    bins: usize,
    expected_error: f64,
    maximum_error: f64,
    brier: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../tests/golden/text_metrics.json")).expect("the golden is JSON")
}

/// Collects what differs, so that one run shows all of it.
#[derive(Default)]
struct Differences(Vec<String>, usize);

impl Differences {
    fn compare(&mut self, what: impl FnOnce() -> String, found: f64, expected: f64) {
        self.1 += 1;
        if (found - expected).abs() > TOLERANCE || found.is_nan() {
            self.0.push(format!("{}: {found}, expected {expected}", what()));
        }
    }

    fn finish(self, at_least: usize) {
        assert!(self.1 >= at_least, "only {} figures compared", self.1);
        assert!(self.0.is_empty(), "{} of {} differ:\n{}", self.0.len(), self.1, self.0.join("\n"));
    }
}

fn tokenizer(name: &str) -> Tokenizer {
    serde_json::from_value(name.into()).expect("a tokeniser")
}

#[test]
fn words_are_sacrebleus() {
    let mut compared = 0;
    for pair in golden().pairs {
        for (name, expected) in &pair.tokens {
            assert_eq!(tokenizer(name).words(&pair.answer), *expected, "{}: {name}", pair.name);
            compared += 1;
        }
    }
    assert!(compared >= 300, "{compared}");
}

#[test]
fn sentence_bleu_is_sacrebleus() {
    let golden = golden();
    let mut differences = Differences::default();
    for pair in &golden.pairs {
        for (bleu, expected) in golden.bleu_options.iter().zip(&pair.bleu) {
            let found = bleu.score(&bleu.statistics(&pair.answer, &pair.references)).score;
            differences.compare(|| format!("{}: {bleu:?}", pair.name), found, *expected);
        }
    }
    differences.finish(1000);
}

#[test]
fn sentence_chrf_is_sacrebleus() {
    let golden = golden();
    let mut differences = Differences::default();
    for pair in &golden.pairs {
        for (chrf, expected) in golden.chrf_options.iter().zip(&pair.chrf) {
            let found = chrf.sentence(&pair.answer, &pair.references);
            differences.compare(|| format!("{}: {chrf:?}", pair.name), found, *expected);
        }
    }
    differences.finish(500);
}

#[test]
fn corpus_bleu_and_chrf_and_their_intervals_are_sacrebleus() {
    let golden = golden();
    let mut differences = Differences::default();
    for corpus in &golden.corpora {
        let pairs: Vec<&Pair> = corpus
            .pairs
            .iter()
            .map(|name| golden.pairs.iter().find(|it| it.name == *name).unwrap())
            .collect();
        let of_bleu = |bleu: &Bleu| -> Vec<_> {
            pairs.iter().map(|it| bleu.statistics(&it.answer, &it.references)).collect()
        };
        let of_chrf = |chrf: &Chrf| -> Vec<_> {
            pairs.iter().map(|it| chrf.statistics(&it.answer, &it.references)).collect()
        };
        for (bleu, expected) in golden.bleu_options.iter().zip(&corpus.bleu) {
            let found = bleu.score(&summed(&of_bleu(bleu))).score;
            differences.compare(|| format!("{}: {bleu:?}", corpus.name), found, *expected);
        }
        for (chrf, expected) in golden.chrf_options.iter().zip(&corpus.chrf) {
            let found = chrf.score(&summed(&of_chrf(chrf)));
            differences.compare(|| format!("{}: {chrf:?}", corpus.name), found, *expected);
        }
        if pairs.len() > 1 {
            let bootstrap = Bootstrap { resamples: 200, seed: 7 };
            let bleu = Bleu { tokenizer: Tokenizer::Zh, ..Bleu::default() };
            let chrf = Chrf { word_order: 2, ..Chrf::default() };
            let [of_bleu] = bootstrap.sums(&of_bleu(&bleu), |sums| [bleu.score(sums).score]);
            let [of_chrf] = bootstrap.sums(&of_chrf(&chrf), |sums| [chrf.score(sums)]);
            for (found, expected) in [(of_bleu, corpus.bleu_interval), (of_chrf, corpus.chrf_interval)] {
                let found = found.expect("an interval");
                differences.compare(|| format!("{}: low", corpus.name), found.0, expected.0);
                differences.compare(|| format!("{}: high", corpus.name), found.1, expected.1);
            }
        }
    }
    differences.finish(100);
}

#[test]
fn rouge_is_rouge_scores() {
    let golden = golden();
    let mut differences = Differences::default();
    for pair in &golden.pairs {
        for (rouge, expected) in golden.rouge_options.iter().zip(&pair.rouge) {
            for (name, [precision, recall, fmeasure]) in expected {
                let which: RougeType = serde_json::from_value(name.as_str().into()).unwrap();
                assert_eq!(which.name(), name);
                let found = rouge.score(which, &pair.answer, &pair.references);
                let what = |part| format!("{}: {name} {part}: {rouge:?}", pair.name);
                differences.compare(|| what("precision"), found.precision, *precision);
                differences.compare(|| what("recall"), found.recall, *recall);
                differences.compare(|| what("F"), found.fmeasure, *fmeasure);
            }
        }
    }
    differences.finish(5000);
}

#[test]
fn stems_are_nltks() {
    let stems = golden().stems;
    let words: Vec<&str> = stems.split(' ').collect();
    assert!(words.len() > 2000);
    let wrong: Vec<_> =
        words.chunks_exact(2).map(|it| (it[0], stem(it[0]), it[1])).filter(|it| it.1 != it.2).collect();
    assert!(wrong.is_empty(), "{} differ (word, found, expected): {wrong:?}", wrong.len());
}

#[test]
fn diversity_is_that_of_counting_and_sacrebleu() {
    let mut differences = Differences::default();
    for group in golden().diversity {
        let words: Vec<_> = group.texts.iter().map(|it| group.tokenizer.words(it)).collect();
        let all: Vec<usize> = (0..words.len()).collect();
        for (n, expected) in (1..).zip(group.distinct) {
            let found = Distinct::new(&words, n).share(&all);
            differences.compare(|| format!("distinct-{n}"), found, expected);
        }
        let (tokenizer, effective_order) = (group.tokenizer, group.effective_order);
        let bleu = Bleu { tokenizer, effective_order, ..Bleu::default() };
        for (found, expected) in self_bleu(&bleu, &group.texts).into_iter().zip(group.self_bleu) {
            differences.compare(|| "self-BLEU".into(), found, expected);
        }
    }
    differences.finish(20);
}

/// Oracle: numpy's `digitize` and means, in the same script.
#[test]
fn calibration_is_that_of_numpy() {
    let Calibration { confidences, right, bins } = golden().calibration;
    let mut differences = Differences::default();
    for expected in bins {
        let bins = Bins(expected.bins);
        let rows: Vec<_> = confidences.iter().zip(&right).map(|it| bins.statistics(*it.0, *it.1)).collect();
        let found = bins.score(&summed(&rows));
        differences.compare(|| "expected error".into(), found.expected_error, expected.expected_error);
        differences.compare(|| "maximum error".into(), found.maximum_error, expected.maximum_error);
        differences.compare(|| "Brier".into(), found.brier, expected.brier);
    }
    differences.finish(9);
}

/// Oracle: the normalisation of MLQA's evaluation (Lewis et al. 2020) written out in the same script, with Unicode's
/// categories of Python's `unicodedata`.
#[test]
fn multilingual_f1_is_that_of_bags_of_words_and_characters() {
    let mut differences = Differences::default();
    for pair in golden().answers {
        let words = [multilingual_words(&pair.answer), multilingual_words(&pair.reference)];
        let same = f64::from(u8::from(words[0] == words[1]));
        differences.compare(|| format!("{}: exact", pair.answer), same, pair.exact);
        differences.compare(|| format!("{}: F1", pair.answer), bag_f1(&words[0], &words[1]), pair.f1);
    }
    differences.finish(18);
}
