//! The CPU's forward and backward of the head's loss, in chunks of rows.
//!
//! With `z = h w^T`, `m` the largest of a row of `z`, `e = exp(z - m)` and `s` the row's sum of `e`, the loss of a row is
//! `m + ln s - z[t]`, its gradient of `z` is `e / s`, less 1 at `t`. That is never written: the factor `1 / s` and the
//! target's share are applied to `[D]` values of a row instead of `[V]`, so that the logits, which fill no cache, are
//! passed over by the product that makes them, once by the loss, and by the products that take their gradient on.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{Softcap, row};
use crate::extension::Operation;
use crate::flex::{dims2, into_values, tensor, unfilled, values};
use crate::linear::stored::Stored;
use crate::linear::weight::stored;
use crate::matrix::{Into, Matrix, MatrixMut, Threads, product};

/// Logits that exist at one time: 341 rows of a vocabulary of 49152, 64 MiB. Fewer read and pack the head's weight more often.
const LOGITS: usize = 1 << 24;

/// Hidden states and the head's weight, with one target a row.
struct Head<'a> {
    hidden: &'a [f32],
    weight: Stored<'a>,
    vocabulary: usize,
    width: usize,
    targets: &'a [u32],
    softcap: Option<Softcap>,
}

impl<'a> Head<'a> {
    fn new(
        hidden: &'a FlexTensor,
        weight: &'a FlexTensor,
        targets: &'a [u32],
        softcap: Option<Softcap>,
    ) -> Self {
        let [vocabulary, width] = dims2(weight);
        assert_eq!(dims2(hidden), [targets.len(), width], "hidden states, one row a target");
        assert!(targets.iter().all(|it| (*it as usize) < vocabulary), "targets are below {vocabulary}");
        Self { hidden: values(hidden), weight: stored(weight, None), vocabulary, width, targets, softcap }
    }

    /// The logits of a few rows at a time, bounded, with the rows' range and targets; `each` may overwrite them.
    fn for_each_chunk(&self, mut each: impl FnMut(std::ops::Range<usize>, &[u32], &mut [f32])) {
        let (rows, vocabulary, width) = (self.targets.len(), self.vocabulary, self.width);
        let most = (LOGITS / vocabulary).clamp(1, rows.max(1));
        let mut buffer = unfilled(most * vocabulary);
        for begin in (0..rows).step_by(most) {
            let range = begin..(begin + most).min(rows);
            let logits = &mut buffer[..range.len() * vocabulary];
            let hidden = Matrix::new(&self.hidden[range.start * width..range.end * width], width);
            self.weight.in_small_tiles(width, |first, tile| {
                let tile = Matrix::new(tile, width);
                let out = MatrixMut::strided(&mut logits[first..], range.len(), tile.rows(), vocabulary);
                product(out, Into::Overwrite, 1.0, hidden, tile.t(), Threads::All);
            });
            if let Some(softcap) = self.softcap {
                logits.par_chunks_exact_mut(vocabulary).for_each(|row| row::bound(row, softcap));
            }
            each(range.clone(), &self.targets[range], logits);
        }
    }

    fn gradients(&self, wanted: &[bool]) -> Gradients {
        Gradients {
            hidden: wanted[0].then(|| unfilled(self.hidden.len())),
            weight: wanted[1].then(|| unfilled(self.vocabulary * self.width)),
            scaled: Vec::new(),
        }
    }
}

/// What a row's gradient of the logits is: `of_all * e`, less `of_target` at the target.
#[derive(Debug, Clone, Copy)]
struct Factors {
    of_all: f32,
    of_target: f32,
}

/// Gradients that are wanted, filled chunk by chunk from the first row on.
struct Gradients {
    hidden: Option<Vec<f32>>,
    weight: Option<Vec<f32>>,
    /// A chunk's hidden states, each row multiplied by its `of_all`.
    scaled: Vec<f32>,
}

impl Gradients {
    /// Takes on the rows `range` of `head` with their `exponentials`, `[rows, V]`.
    fn add(
        &mut self,
        head: &Head<'_>,
        range: std::ops::Range<usize>,
        exponentials: &[f32],
        factors: &[Factors],
    ) {
        let (width, vocabulary) = (head.width, head.vocabulary);
        let targets = &head.targets[range.clone()];
        let places = range.start * width..range.end * width;
        if let Some(gradient) = &mut self.hidden {
            let gradient = &mut gradient[places.clone()];
            let mut into = Into::Overwrite;
            head.weight.in_small_tiles(width, |first, tile| {
                let tile = Matrix::new(tile, width);
                let of_tile = Matrix::strided(&exponentials[first..], targets.len(), tile.rows(), vocabulary);
                product(MatrixMut::new(gradient, width), into, 1.0, of_tile, tile, Threads::All);
                into = Into::Add;
            });
            let mut room = unfilled(head.weight.room(width));
            for ((row, target), factors) in gradient.chunks_exact_mut(width).zip(targets).zip(factors) {
                let of_target = head.weight.widened(width, *target as usize, 1, &mut room);
                for (value, weight) in row.iter_mut().zip(of_target) {
                    *value = factors.of_all * *value - factors.of_target * weight;
                }
            }
        }
        if let Some(gradient) = &mut self.weight {
            let hidden = &head.hidden[places];
            self.scaled.clear();
            for (row, factors) in hidden.chunks_exact(width).zip(factors) {
                self.scaled.extend(row.iter().map(|it| factors.of_all * it));
            }
            let into = if range.start == 0 { Into::Overwrite } else { Into::Add };
            let (scaled, exponentials) =
                (Matrix::new(&self.scaled, width), Matrix::new(exponentials, vocabulary));
            product(MatrixMut::new(gradient, width), into, 1.0, exponentials.t(), scaled, Threads::All);
            for ((row, target), factors) in hidden.chunks_exact(width).zip(targets).zip(factors) {
                let begin = *target as usize * width;
                for (value, hidden) in gradient[begin..begin + width].iter_mut().zip(row) {
                    *value -= factors.of_target * hidden;
                }
            }
        }
    }

    /// In the order of the operations' inputs. Where there was no row, nothing has been written: the weight's is zero.
    fn finish(self, hidden: &[usize], weight: &[usize]) -> [Option<FlexTensor>; 2] {
        let of_weight = |values: Vec<f32>| if hidden[0] == 0 { vec![0.0; values.len()] } else { values };
        [self.hidden.map(|it| tensor(it, hidden)), self.weight.map(|it| tensor(of_weight(it), weight))]
    }
}

/// The loss: inputs `hidden` and `weight`, output `[loss_sum, correct, entropy_sum]`, of which the first has a gradient.
///
/// Gradients are formed in forward, while a chunk's logits are there, for an upstream gradient of 1.
#[derive(Debug)]
pub(super) struct Loss {
    pub targets: Vec<u32>,
    pub softcap: Option<Softcap>,
}

impl Operation for Loss {
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [hidden, weight] = <[_; 2]>::try_from(inputs).expect("hidden and weight");
        let head = Head::new(&hidden, &weight, &self.targets, self.softcap);
        let mut gradients = head.gradients(wanted);
        let keep = wanted.contains(&true);
        let mut sums = [0.0f64; 3];
        head.for_each_chunk(|range, targets, logits| {
            let rows = logits.par_chunks_exact_mut(head.vocabulary).zip(targets);
            // A bounded logit is needed once more for its gradient, and no factor of the row says that.
            let exponentials = keep && self.softcap.is_none();
            let found: Vec<row::Found> =
                rows.map(|(row, target)| row::loss(row, *target, exponentials)).collect();
            for row in &found {
                let [loss, correct, entropy] = &mut sums;
                *loss += row.loss;
                *correct += f64::from(u8::from(row.correct));
                *entropy += row.entropy;
            }
            if keep {
                let factors: Vec<Factors> = match self.softcap {
                    Some(softcap) => {
                        let rows = logits.par_chunks_exact_mut(head.vocabulary).zip(targets).zip(&found);
                        let one = |((row, target), it): ((&mut [f32], &u32), &row::Found)| {
                            let of_target = row::slope(row[*target as usize], softcap);
                            row::bound_gradient(row, it.log_sum(), 1.0, 0.0, 0.0, softcap);
                            Factors { of_all: 1.0, of_target }
                        };
                        rows.map(one).collect()
                    }
                    None => {
                        let one = |it: &row::Found| Factors { of_all: (1.0 / it.sum) as f32, of_target: 1.0 };
                        found.iter().map(one).collect()
                    }
                };
                gradients.add(&head, range, logits, &factors);
            }
        });
        let output = tensor(sums.map(|it| it as f32).to_vec(), &[3]);
        let saved = gradients.finish(hidden.layout().shape(), weight.layout().shape());
        (output, saved.into_iter().flatten().collect())
    }

    fn backward(
        &self,
        saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let upstream = values(&gradient)[0];
        let mut saved = saved.into_iter();
        let scaled =
            |wanted: &bool| wanted.then(|| times(saved.next().expect("one a wanted input"), upstream));
        wanted.iter().map(scaled).collect()
    }
}

fn times(unit: FlexTensor, upstream: f32) -> FlexTensor {
    if upstream == 1.0 {
        return unit;
    }
    /// Values of a task.
    const TASK: usize = 64 * 1024;
    let shape = unit.layout().shape().to_vec();
    let mut scaled = into_values(unit);
    scaled.par_chunks_mut(TASK).for_each(|it| it.iter_mut().for_each(|it| *it *= upstream));
    tensor(scaled, &shape)
}

/// The log-probabilities: inputs `hidden` and `weight`, output `[2, S]`: log-probabilities and entropies. Backward computes
/// the logits again.
///
/// With `p` the probabilities of a row and `H` their entropy, the gradient of `H` by a logit is `-p (ln p + H)`. It is
/// written only where somebody asks for it: it differs from token to token, so that no factor of the row says it.
#[derive(Debug)]
pub(super) struct Logps {
    pub targets: Vec<u32>,
    pub softcap: Option<Softcap>,
}

impl Operation for Logps {
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [hidden, weight] = <[_; 2]>::try_from(inputs).expect("hidden and weight");
        let head = Head::new(&hidden, &weight, &self.targets, self.softcap);
        let (mut logps, mut entropies, mut log_sums) = (Vec::new(), Vec::new(), Vec::new());
        head.for_each_chunk(|_, targets, logits| {
            let rows = logits.par_chunks_exact_mut(head.vocabulary).zip(targets);
            let found: Vec<row::Found> = rows.map(|(row, target)| row::loss(row, *target, false)).collect();
            logps.extend(found.iter().map(|it| -it.loss as f32));
            entropies.extend(found.iter().map(|it| it.entropy as f32));
            log_sums.extend(found.iter().map(row::Found::log_sum));
        });
        let rows = [self.targets.len()];
        let saved = match wanted.contains(&true) {
            true => vec![hidden, weight, tensor(log_sums, &rows), tensor(entropies.clone(), &rows)],
            false => Vec::new(),
        };
        logps.extend(entropies);
        (tensor(logps, &[2, self.targets.len()]), saved)
    }

    fn backward(
        &self,
        saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [hidden, weight, log_sums, entropies] = <[_; 4]>::try_from(saved).expect("what forward kept");
        let (upstream, of_entropy) = values(&gradient).split_at(self.targets.len());
        let (log_sums, entropies) = (values(&log_sums), values(&entropies));
        let wants_entropy = of_entropy.iter().any(|it| *it != 0.0);
        let head = Head::new(&hidden, &weight, &self.targets, self.softcap);
        let mut gradients = head.gradients(wanted);
        head.for_each_chunk(|range, targets, logits| {
            let rows = logits.par_chunks_exact_mut(head.vocabulary).zip(range.clone()).zip(targets);
            let one = |((row, at), target): ((&mut [f32], usize), &u32)| {
                let (log_sum, [upstream, entropy, of_entropy]) =
                    (log_sums[at], [upstream[at], entropies[at], of_entropy[at]]);
                if let Some(softcap) = self.softcap {
                    let slope = row::slope(row[*target as usize], softcap);
                    row::bound_gradient(row, log_sum, upstream, entropy, of_entropy, softcap);
                    return Factors { of_all: -1.0, of_target: -upstream * slope };
                }
                if wants_entropy {
                    row::gradient(row, log_sum, upstream, entropy, of_entropy);
                    return Factors { of_all: -1.0, of_target: -upstream };
                }
                row::probabilities(row, log_sum);
                Factors { of_all: -upstream, of_target: -upstream }
            };
            let factors: Vec<Factors> = rows.map(one).collect();
            gradients.add(&head, range, logits, &factors);
        });
        gradients.finish(hidden.layout().shape(), weight.layout().shape()).into()
    }
}
