//! What text metrics count, for the standard evaluators and rewards: sacrebleu's tokenisers, BLEU and chrF, rouge-score's
//! ROUGE, diversity, calibration, and confidence intervals by bootstrap. No plugin itself.
//!
//! Numbers are those of sacrebleu 2.6 and rouge-score 0.1.2 to 1e-9, in every script: `tests/golden.rs` compares with
//! what these programs print. A metric of a whole corpus is a function of sums of a sample's statistics, so that a
//! bootstrap re-computes it from sums: `statistics(hypothesis, references)` of one sample, `score(&sums)` of all.
//!
//! ```
//! use text_metrics::{Bleu, Bootstrap, summed};
//!
//! let bleu = Bleu::default();
//! let samples = [("the cat sat on the mat", "the cat sat on a mat"), ("a dog barked at us", "a dog barked at us")];
//! let rows: Vec<_> = samples.iter().map(|(answer, reference)| bleu.statistics(answer, &[reference])).collect();
//! let score = bleu.score(&summed(&rows));
//! let [interval] = Bootstrap::default().sums(&rows, |sums| [bleu.score(sums).score]);
//! let (low, high) = interval.unwrap();
//! assert!(low <= score.score && score.score <= high);
//! ```

mod answers;
mod bleu;
mod bootstrap;
mod calibration;
#[cfg(not(target_family = "wasm"))]
pub mod cases;
mod chrf;
mod diversity;
mod evaluation;
mod ngrams;
mod porter;
mod rouge;
mod tokenize;

pub use answers::{bag_f1, multilingual_words, squad_words};
pub use bleu::{Bleu, BleuScore, Smoothing};
pub use bootstrap::{Bootstrap, percentile, summed};
pub use calibration::{Bins, Calibration};
pub use chrf::Chrf;
pub use diversity::{Distinct, self_bleu};
pub use evaluation::{ModelName, counted, higher_is_better, lower_is_better, mean, one, references, strings};
pub use porter::stem;
pub use rouge::{Overlap, Rouge, RougeType};
pub use tokenize::{Tokenizer, is_space, words};
