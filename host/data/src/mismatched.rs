//! Prompts with completions that are not their own: what Kahneman-Tversky optimisation estimates a divergence from.
//!
//! <https://arxiv.org/abs/2402.01306>, section 4.1; which completion a prompt is given is TRL's choice.

use crate::batch::{IGNORED, Sequence, TokenRow};

/// The prompt of each row with the completion of the row before it, the first's with the last's; cut to `max_length` tokens
/// as rows are. Nothing of fewer than two rows: there is no other completion.
///
/// A row's prompt are its tokens before the first that is supervised, its completion is what follows.
pub fn mismatched<R: TokenRow>(rows: &[R], max_length: usize) -> Vec<Sequence> {
    if rows.len() < 2 {
        return Vec::new();
    }
    let before = |index: usize| &rows[(index + rows.len() - 1) % rows.len()];
    (0..rows.len()).map(|index| joined(&rows[index], before(index), max_length)).collect()
}

/// The prompt of `asked` and the completion of `answered`.
fn joined<R: TokenRow>(asked: &R, answered: &R, max_length: usize) -> Sequence {
    let (prompt, from) = (asked.unlabelled(0), answered.unlabelled(0));
    let mut labels = Vec::new();
    answered.extend_labels(&mut labels);
    let mut input_ids = [&asked.input_ids()[..prompt], &answered.input_ids()[from..]].concat();
    let mut labels = [&vec![IGNORED; prompt][..], &labels[from..]].concat();
    input_ids.truncate(max_length);
    labels.truncate(max_length);
    Sequence { input_ids, labels, cut: 0, judgement: 0.0, origin: asked.origin() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::Origin;

    fn row(prompt: &[u32], completion: &[u32], line: u64) -> Sequence {
        let labels = prompt.iter().map(|_| IGNORED).chain(completion.iter().map(|it| i64::from(*it)));
        Sequence {
            labels: labels.collect(),
            input_ids: [prompt, completion].concat(),
            cut: 0,
            judgement: 1.0,
            origin: Arc::new(Origin { source: "rows.jsonl".into(), line }),
        }
    }

    #[test]
    fn each_prompt_is_given_the_completion_of_the_row_before() {
        let rows = [row(&[1], &[11], 1), row(&[2, 2], &[12, 12, 12], 2), row(&[3, 3, 3], &[13, 13], 3)];
        let mut expected =
            [row(&[1], &[13, 13], 1), row(&[2, 2], &[11], 2), row(&[3, 3, 3], &[12, 12, 12], 3)];
        expected.iter_mut().for_each(|it| it.judgement = 0.0);
        assert_eq!(mismatched(&rows, 8), expected);
        // The rows have five tokens at most; of the last one here a token is cut off.
        let cut = mismatched(&rows, 5);
        assert_eq!(cut[..2], expected[..2]);
        assert_eq!((&cut[2].input_ids[..], &cut[2].labels[3..]), (&[3, 3, 3, 12, 12][..], &[12, 12][..]));
    }

    #[test]
    fn one_row_has_no_other_completion() {
        assert_eq!(mismatched(&[row(&[1], &[11], 1)], 8), []);
        assert_eq!(mismatched::<Sequence>(&[], 8), []);
    }
}
