//! What a training step asks of its ranks.

use std::env;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use fthost_data::Batch;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::flat::{Flat, on_device};
use super::mpi::Mpi;
use super::nccl::Nccl;
use super::{Collective, Ordered, Single};
use crate::device::DeviceKind;
use crate::error::{EngineError, Result};

/// Values of gradients that travel at a time: many small ones share a message, and no second copy of all is made.
const BUCKET: usize = 4 << 20;

/// What a step tells of some of its micro-batches, to which what it tells of others can be added.
pub trait Merge: Serialize + DeserializeOwned {
    /// Adds what `other` tells.
    fn merge(&mut self, other: Self);
}

/// One after the other.
impl<T: Serialize + DeserializeOwned> Merge for Vec<T> {
    fn merge(&mut self, other: Self) {
        self.extend(other);
    }
}

/// The ranks of a run; one alone unless set.
#[derive(Debug, Clone)]
pub struct Ranks {
    ordered: Arc<Ordered>,
    lockstep: bool,
}

/// A micro-batch that a rank computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which of the step's.
    pub index: usize,
    /// Whether what is found counts; otherwise it is another rank's, and computed to do what the others do.
    pub counts: bool,
}

impl Default for Ranks {
    fn default() -> Self {
        Self::new(Single)
    }
}

impl std::ops::Deref for Ranks {
    type Target = Ordered;

    fn deref(&self) -> &Self::Target {
        &self.ordered
    }
}

impl Ranks {
    /// Of what does things together.
    pub fn new(collective: impl Collective + 'static) -> Self {
        Self { ordered: Arc::new(Ordered::new(collective)), lockstep: false }
    }

    /// The same ranks, each of which computes as many micro-batches: passes ask for each other's weights.
    #[must_use]
    pub fn in_lockstep(self) -> Self {
        Self { lockstep: true, ..self }
    }

    /// Those that say the same `group`.
    ///
    /// # Errors
    /// As [`Collective::split`].
    pub fn of_group(&self, group: usize) -> Result<Self> {
        Ok(Self { ordered: Arc::new(self.part(group)?), lockstep: self.lockstep })
    }

    /// Whether there are others.
    pub fn are_many(&self) -> bool {
        self.size() > 1
    }

    /// Whether this is the rank that prints, logs and writes.
    pub fn is_first(&self) -> bool {
        self.global_rank() == 0
    }

    /// Which of the micro-batches of a step this rank computes, in their order: the longest first, each goes to the rank that has
    /// least to do so far. In lockstep every rank has as many, and those that are computed at a time are of about one length.
    pub fn turns<'b>(&self, batches: impl IntoIterator<Item = &'b Batch>) -> Vec<Turn> {
        self.turns_of(&batches.into_iter().map(Batch::len).collect::<Vec<usize>>())
    }

    /// As [`Ranks::turns`], of so many tokens each.
    fn turns_of(&self, tokens: &[usize]) -> Vec<Turn> {
        let mut by_length: Vec<usize> = (0..tokens.len()).collect();
        by_length.sort_by_key(|&it| (std::cmp::Reverse(tokens[it]), it));
        if self.lockstep {
            let own = by_length.chunks(self.size()).map(|it| match it.get(self.global_rank()) {
                Some(&index) => Turn { index, counts: true },
                None => Turn { index: it[it.len() - 1], counts: false },
            });
            return own.collect();
        }
        let mut loads = vec![0; self.size()];
        let mut own = Vec::new();
        for index in by_length {
            let idlest = (0..loads.len()).min_by_key(|&it| (loads[it], it)).expect("one rank at least");
            loads[idlest] += tokens[index];
            if idlest == self.global_rank() {
                own.push(Turn { index, counts: true });
            }
        }
        own.sort_unstable_by_key(|it| it.index);
        own
    }

    /// Which of `count` things, in their order, are this rank's: a run of them, and none has more than one more than another.
    pub fn stretch(&self, count: usize) -> Range<usize> {
        let begin = |rank: usize| rank * count / self.size();
        begin(self.global_rank())..begin(self.global_rank() + 1)
    }

    /// What `of` says of each of `batches`, which it is given with its place, in their order; each rank asks about its share of them,
    /// and all are told the same.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    pub fn each<'b, T: Serialize + DeserializeOwned>(
        &self,
        batches: impl IntoIterator<Item = &'b Batch>,
        mut of: impl FnMut(usize, &Batch) -> T,
    ) -> Result<Vec<T>> {
        let batches: Vec<&Batch> = batches.into_iter().collect();
        let mut own = Vec::new();
        for Turn { index, counts } in self.turns(batches.iter().copied()) {
            let found = of(index, batches[index]);
            if counts {
                own.push((index, found));
            }
        }
        let mut all = self.merged(own)?;
        all.sort_unstable_by_key(|it| it.0);
        Ok(all.into_iter().map(|it| it.1).collect())
    }

    /// What every rank calls its `own`, of one length, in their order.
    fn of_all(&self, own: &[u8]) -> Result<Vec<u8>> {
        let mut all = vec![0; own.len() * self.size()];
        all[self.global_rank() * own.len()..][..own.len()].copy_from_slice(own);
        self.all_gather(&mut all)?;
        Ok(all)
    }

    /// The sums of all ranks' `values`, in the order of ranks, in f64.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    pub fn sum<const N: usize>(&self, values: [f64; N]) -> Result<[f64; N]> {
        let own: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        let all = self.of_all(&own)?;
        let mut sums = [0.0; N];
        for of_rank in all.chunks_exact(own.len().max(1)) {
            let (values, _) = of_rank.as_chunks::<8>();
            sums.iter_mut().zip(values).for_each(|(sum, it)| *sum += f64::from_le_bytes(*it));
        }
        Ok(sums)
    }

    /// What all ranks tell, merged in their order.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    pub fn merged<T: Merge>(&self, own: T) -> Result<T> {
        if !self.are_many() {
            return Ok(own);
        }
        let mut bytes = Vec::new();
        ciborium::into_writer(&own, &mut bytes).expect("numbers and names are written");
        // All are of one length on their way.
        let lengths = self.of_all(&(bytes.len() as u64).to_le_bytes())?;
        let (lengths, _) = lengths.as_chunks::<8>();
        let lengths: Vec<usize> = lengths.iter().map(|it| u64::from_le_bytes(*it) as usize).collect();
        let longest = lengths.iter().copied().max().unwrap_or_default();
        bytes.resize(longest, 0);
        let all = self.of_all(&bytes)?;
        let told = all.chunks_exact(longest).zip(&lengths);
        let told =
            told.map(|(it, length)| ciborium::from_reader(&it[..*length]).expect("as a rank wrote it"));
        Ok(told
            .reduce(|mut all: T, it| {
                all.merge(it);
                all
            })
            .unwrap_or(own))
    }

    /// Refuses to go on where ranks differ in one of the values, each beside its name.
    ///
    /// # Errors
    /// [`EngineError::RanksDiffer`] on a rank whose value is not the first's; as [`Collective::barrier`].
    pub fn agree(&self, values: &[(&'static str, String)]) -> Result<()> {
        let told = self.merged(vec![values.iter().map(|it| it.1.clone()).collect::<Vec<_>>()])?;
        let Some(first) = told.first() else { return Ok(()) };
        let differing = values.iter().zip(first).find(|((_, own), first)| own != *first);
        differing.map_or(Ok(()), |((what, own), first)| {
            let (rank, own, first) = (self.global_rank(), own.clone(), first.clone());
            Err(EngineError::RanksDiffer { what, rank, own, first })
        })
    }

    /// Whether any rank says so.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    pub fn any(&self, holds: bool) -> Result<bool> {
        Ok(self.sum([f64::from(u8::from(holds))])? != [0.0])
    }

    /// The sums of all ranks' `gradients`, of which each has as many, flat and of the same lengths.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    pub fn reduce(&self, gradients: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>> {
        if !self.are_many() {
            return Ok(gradients);
        }
        let mut reduced = Vec::with_capacity(gradients.len());
        let mut gradients = gradients.into_iter().peekable();
        while let Some(device) = gradients.peek().map(Tensor::device) {
            let (mut places, mut bucket, mut end) = (Vec::new(), Vec::new(), 0);
            while let Some(gradient) = gradients.next_if(|_| end < BUCKET) {
                places.push((end, gradient.dims()[0]));
                bucket.push(gradient);
                end += places[places.len() - 1].1;
            }
            let placed = places.iter().map(|it| it.0).zip(bucket);
            let in_device = on_device(&**self, &device).map(|_| &device);
            let sums = self.sums(Flat::of(placed, end, in_device))?;
            reduced.extend(sums.cut(places, &device));
        }
        Ok(reduced)
    }
}

/// How many processes the launcher of this one says that it has started, and which launcher that is.
pub fn launched() -> Option<(&'static str, usize)> {
    let size = |key: &str| env::var(key).ok()?.parse().ok();
    // One may have started another, a single time.
    let told = LAUNCHERS.into_iter().filter_map(|(launcher, key)| Some((launcher, size(key)?)));
    told.reduce(|most, it| if it.1 > most.1 { it } else { most })
}

/// Launchers, and the variable in which each says how many processes there are.
pub const LAUNCHERS: [(&str, &str); 5] = [
    ("mpirun", "OMPI_COMM_WORLD_SIZE"),
    ("mpiexec", "PMI_SIZE"),
    ("mpirun_rsh", "MV2_COMM_WORLD_SIZE"),
    ("srun", "SLURM_STEP_NUM_TASKS"),
    ("torchrun", "WORLD_SIZE"),
];

/// The ranks that a launcher has started to train on devices of a `kind`; without one, this process alone. Those on CUDA find each
/// other by MPI or, of `torchrun`, by its variables, and do by NCCL what lies on their devices.
///
/// # Errors
/// Several processes, and no MPI that could be loaded, or one of another launcher; on CUDA no NCCL, or no device.
pub fn open(kind: DeviceKind) -> Result<Ranks> {
    let Some((launcher, size)) = launched().filter(|it| it.1 > 1) else { return Ok(Ranks::default()) };
    let is_cpu = kind == DeviceKind::Cpu;
    if launcher == "torchrun" {
        return match is_cpu {
            true => Err(EngineError::Launcher { launcher, size }),
            false => Ok(Ranks::new(Nccl::by_environment()?)),
        };
    }
    let mpi = Mpi::open()?;
    if mpi.size() != size {
        return Err(EngineError::OtherMpi { launcher, size, found: mpi.size(), library: mpi.name() });
    }
    Ok(if is_cpu { Ranks::new(mpi) } else { Ranks::new(Nccl::over(mpi)?) })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use fthost_data::{Origin, Sequence};

    use super::super::lonely::Lonely;
    use super::*;

    #[test]
    fn every_micro_batch_is_one_ranks_and_none_has_much_more_than_another() {
        for size in 1..5 {
            for tokens in [vec![], vec![7], vec![5, 5, 5], vec![100, 3, 50, 51, 49, 2, 1, 98]] {
                let shares: Vec<Vec<usize>> = (0..size)
                    .map(|rank| Ranks::new(Lonely::new(rank, size)).turns_of(&tokens))
                    .map(|it| it.iter().map(|it| it.index).collect())
                    .collect();
                let mut all: Vec<usize> = shares.concat();
                all.sort_unstable();
                assert_eq!(all, (0..tokens.len()).collect::<Vec<_>>());
                let loads: Vec<usize> =
                    shares.iter().map(|it| it.iter().map(|&it| tokens[it]).sum()).collect();
                let longest = tokens.iter().max().copied().unwrap_or_default();
                assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= longest, "{loads:?}");
            }
        }
    }

    #[test]
    fn in_lockstep_every_rank_has_as_many_and_none_counts_twice() {
        for size in 1..5 {
            for tokens in [vec![], vec![7], vec![5, 5, 5], vec![100, 3, 50, 51, 49, 2, 1, 98]] {
                let turns =
                    (0..size).map(|rank| Ranks::new(Lonely::new(rank, size)).in_lockstep().turns_of(&tokens));
                let turns: Vec<Vec<Turn>> = turns.collect();
                assert!(turns.iter().all(|it| it.len() == tokens.len().div_ceil(size)));
                let mut all: Vec<usize> =
                    turns.iter().flatten().filter(|it| it.counts).map(|it| it.index).collect();
                all.sort_unstable();
                assert_eq!(all, (0..tokens.len()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn parts_are_all_there_is_in_order() {
        for (size, count) in [(1, 7), (3, 7), (4, 2), (5, 0)] {
            let parts = (0..size).map(|rank| Ranks::new(Lonely::new(rank, size)).stretch(count));
            let parts: Vec<Range<usize>> = parts.collect();
            assert_eq!(parts.iter().cloned().flatten().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            let lengths = || parts.iter().map(ExactSizeIterator::len);
            assert!(lengths().max().unwrap() - lengths().min().unwrap() <= 1, "{parts:?}");
        }
    }

    fn batch_of(tokens: usize) -> Batch {
        let origin = Arc::new(Origin { source: "rows".into(), line: 1 });
        let (input_ids, labels) = (vec![1; tokens], vec![1; tokens]);
        Batch::new([&Sequence { input_ids, labels, cut: 0, judgement: 0.0, origin }])
    }

    #[test]
    fn a_process_alone_sums_to_itself() {
        let alone = Ranks::default();
        assert_eq!(alone.sum([1.5, -2.0]).unwrap(), [1.5, -2.0]);
        assert!(alone.any(true).unwrap() && !alone.any(false).unwrap());
        let turn = |index: usize| Turn { index, counts: true };
        assert_eq!(alone.turns_of(&[3, 9, 4]), [0, 1, 2].map(turn));
        assert_eq!(alone.stretch(5), 0..5);
        let batches = [3, 9].map(batch_of);
        assert_eq!(alone.each(&batches, |_, it| vec![it.len() as f32]).unwrap(), [[3.0], [9.0]]);
        assert!(alone.is_first() && !alone.are_many());
    }
}
