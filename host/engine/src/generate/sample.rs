//! From one sequence's logits to its next token, as transformers' logits processors do it.

use fthost_kernels::{Softmax, most_likely};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::config::GenerateConfig;

/// Tokens that top-p sorts at first; most of a vocabulary never matters.
const SORTED_AT_FIRST: usize = 256;

/// A token that was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// The token.
    pub id: u32,
    /// Its log-probability in nats under the temperature alone; at temperature 0 under the logits as they are.
    pub logp: f32,
}

/// The next token after `seen` (prompt and completion) for the model's `logits`, `[V]`.
///
/// `None` where the logits hold NaN or +infinity.
pub(super) fn choose(
    logits: &[f32],
    seen: &[u32],
    config: &GenerateConfig,
    rng: &mut ChaCha8Rng,
) -> Option<Choice> {
    let temperature = if config.temperature > 0.0 { config.temperature } else { 1.0 };
    let softmax = Softmax::of(logits, 1.0 / temperature as f32);
    let normalizer = softmax.normalizer();
    if !normalizer.is_finite() {
        return None;
    }
    let (as_they_are, greedy) = (config.repetition_penalty == 1.0, config.temperature == 0.0);
    let id = match (as_they_are, greedy) {
        (true, true) => most_likely(logits),
        (true, false) if config.draws_from_all() => softmax.at(rng.random_range(0.0..1.0)),
        _ => {
            let mut scores = logits.to_vec();
            penalize(&mut scores, seen, config.repetition_penalty);
            if greedy {
                most_likely(&scores)
            } else {
                warp(&mut scores, config);
                Softmax::of(&scores, 1.0).at(rng.random_range(0.0..1.0))
            }
        }
    };
    let logp = f64::from(logits[id]) / temperature - normalizer;
    Some(Choice { id: id as u32, logp: logp as f32 })
}

/// Repetition penalty of every token in `seen`, once each however often it stands there.
pub fn penalize(scores: &mut [f32], seen: &[u32], penalty: f64) {
    if penalty == 1.0 {
        return;
    }
    let mut seen = seen.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        // A prompt may hold a token that the head does not.
        if let Some(score) = scores.get_mut(id as usize) {
            *score = if *score < 0.0 { *score * penalty as f32 } else { *score / penalty as f32 };
        }
    }
}

/// Temperature, then the filters, which set what may not be drawn to negative infinity. Needs a temperature > 0.
pub fn warp(scores: &mut [f32], config: &GenerateConfig) {
    if config.temperature != 1.0 {
        let factor = 1.0 / config.temperature as f32;
        scores.iter_mut().for_each(|it| *it *= factor);
    }
    if config.top_k > 0 {
        keep_top_k(scores, config.top_k);
    }
    if config.top_p < 1.0 {
        keep_top_p(scores, config.top_p);
    }
    if config.min_p > 0.0 {
        let bound = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max) + config.min_p.ln() as f32;
        drop_below(scores, bound);
    }
}

fn drop_below(scores: &mut [f32], bound: f32) {
    scores.iter_mut().filter(|it| **it < bound).for_each(|it| *it = f32::NEG_INFINITY);
}

/// Ties with the last one kept are kept too.
fn keep_top_k(scores: &mut [f32], k: usize) {
    if k >= scores.len() {
        return;
    }
    let mut sorted = scores.to_vec();
    let (_, &mut bound, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    drop_below(scores, bound);
}

/// A token stays while those more likely than it have less than `p` together; the most likely one always stays.
fn keep_top_p(scores: &mut [f32], p: f64) {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |score: f32| f64::from(score - top).exp();
    let bound = p * scores.iter().map(|it| weight(*it)).sum::<f64>();
    let mut order: Vec<u32> =
        (0..scores.len() as u32).filter(|id| scores[*id as usize] > f32::NEG_INFINITY).collect();
    let descending =
        |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then_with(|| a.cmp(b));
    let (mut kept, mut above, mut sorted) = (0, 0.0, 0);
    while kept == sorted && sorted < order.len() {
        // Twice as many as before: the few most likely tokens usually decide.
        let next = (sorted * 2).max(SORTED_AT_FIRST).min(order.len());
        if next < order.len() {
            order[sorted..].select_nth_unstable_by(next - sorted - 1, descending);
        }
        order[sorted..next].sort_unstable_by(descending);
        sorted = next;
        while kept < sorted && (kept == 0 || above < bound) {
            above += weight(scores[order[kept] as usize]);
            kept += 1;
        }
    }
    order[kept..].iter().for_each(|id| scores[*id as usize] = f32::NEG_INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const OFF: f32 = f32::NEG_INFINITY;

    fn sampling() -> GenerateConfig {
        GenerateConfig { temperature: 1.0, ..GenerateConfig::default() }
    }

    fn warped(scores: &[f32], config: GenerateConfig) -> Vec<f32> {
        let mut scores = scores.to_vec();
        warp(&mut scores, &config);
        scores
    }

    #[test]
    fn top_k_keeps_ties_with_the_last_one() {
        let config = GenerateConfig { top_k: 2, ..sampling() };
        assert_eq!(warped(&[1.0, 3.0, 2.0, 2.0], config), [OFF, 3.0, 2.0, 2.0]);
    }

    /// Probabilities 0.5, 0.3, 0.2: 0.8 is reached by the second, so the third goes; above 0.8 it stays.
    #[test]
    fn top_p_keeps_the_token_that_reaches_it() {
        let scores = [0.3f32.ln(), 0.5f32.ln(), 0.2f32.ln()];
        let kept = |top_p| warped(&scores, GenerateConfig { top_p, ..sampling() }).map_kept();
        assert_eq!(kept(0.01), [1]);
        assert_eq!(kept(0.51), [0, 1]);
        assert_eq!(kept(0.79), [0, 1]);
        assert_eq!(kept(0.81), [0, 1, 2]);
    }

    /// More tokens than are sorted at first, all alike: as many stay as reach the share.
    #[test]
    fn top_p_reaches_into_a_flat_distribution() {
        let kept = warped(&[0.25; 4000], GenerateConfig { top_p: 0.5, ..sampling() }).map_kept();
        assert_eq!(kept, (0..2000).collect::<Vec<_>>());
    }

    #[test]
    fn min_p_is_relative_to_the_most_likely() {
        let scores = [0.5f32.ln(), 0.3f32.ln(), 0.04f32.ln()];
        assert_eq!(warped(&scores, GenerateConfig { min_p: 0.1, ..sampling() }).map_kept(), [0, 1]);
    }

    #[test]
    fn a_repeated_token_is_penalized_once() {
        let mut scores = [2.0, -2.0, 1.0];
        penalize(&mut scores, &[0, 1, 0, 1, 9], 2.0);
        assert_eq!(scores, [1.0, -4.0, 1.0]);
    }

    /// 20000 draws from 0.1, 0.6, 0.3: four standard deviations of a share are below 0.014.
    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.1f32.ln(), 0.6f32.ln(), 0.3f32.ln()];
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut counts = [0.0f64; 3];
        for _ in 0..20_000 {
            let choice = choose(&logits, &[], &sampling(), &mut rng).unwrap();
            assert!((choice.logp - logits[choice.id as usize]).abs() < 1e-6);
            counts[choice.id as usize] += 1.0 / 20_000.0;
        }
        for (share, expected) in counts.iter().zip([0.1, 0.6, 0.3]) {
            assert!((share - expected).abs() < 0.014, "{counts:?}");
        }
    }

    #[test]
    fn logits_that_are_no_numbers_choose_nothing() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(choose(&[0.0, bad, 1.0], &[], &sampling(), &mut rng), None);
        }
        assert!(choose(&[0.0, OFF, 1.0], &[], &sampling(), &mut rng).is_some());
    }

    trait MapKept {
        fn map_kept(&self) -> Vec<usize>;
    }

    impl MapKept for Vec<f32> {
        /// The ids that may be drawn.
        fn map_kept(&self) -> Vec<usize> {
            (0..self.len()).filter(|id| self[*id] > OFF).collect()
        }
    }
}
