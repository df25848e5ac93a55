//! Gradients summed over micro-batches and over ranks, part by part.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::state::TrainState;
use crate::error::Result;
use crate::models::{CausalLm, Part};
use crate::parallel::{Flat, Pending};
use crate::shard::{Shards, Zero};

/// Sums over the micro-batches of a rank; of a model whose gradients are shared, over those who share.
#[derive(Debug, Default)]
pub struct Sums {
    parts: BTreeMap<Part, Sum>,
    /// What is on its way to the sum of its part.
    coming: Option<(Part, Pending)>,
}

#[derive(Debug, Clone)]
enum Sum {
    /// Of everything that is trained of the part, in the order of its visitor, flat each.
    All(Vec<Tensor<1>>),
    /// Of this rank's stretch.
    Own(Flat),
}

/// The shards of `model`, if its gradients are summed up and cut as they come.
fn cut_at_once(model: &CausalLm) -> Option<&Shards> {
    model.shards.as_deref().filter(|it| it.mesh.config.zero > Zero::One)
}

impl Sums {
    /// Adds the gradients of a part of `model`, in the order of its visitor.
    pub(super) fn add(&mut self, model: &CausalLm, part: Part, gradients: Vec<Tensor<1>>) {
        if gradients.is_empty() {
            return;
        }
        if let Some(shards) = cut_at_once(model) {
            // The one before it has had the time that this part took: there are never more than two.
            self.settle();
            self.coming = Some((part, shards.reduce(part, gradients)));
            return;
        }
        match self.parts.get_mut(&part) {
            Some(Sum::All(sums)) => {
                let before = std::mem::take(sums);
                *sums = before.into_iter().zip(gradients).map(|(sum, it)| sum + it).collect();
            }
            _ => drop(self.parts.insert(part, Sum::All(gradients))),
        }
    }

    /// Waits for what is on its way.
    fn settle(&mut self) {
        let Some((part, coming)) = self.coming.take() else { return };
        let coming = coming.wait();
        match self.parts.get_mut(&part) {
            Some(Sum::Own(sums)) => sums.add(coming),
            _ => drop(self.parts.insert(part, Sum::Own(coming))),
        }
    }

    /// The sums, in the order of [`CausalLm::visit_trained`]; of a model that nobody shares.
    pub fn values(&self) -> Vec<Tensor<1>> {
        let of = |sum: &Sum| match sum {
            Sum::All(values) => values.clone(),
            Sum::Own(_) => unreachable!("the model is shared"),
        };
        self.parts.values().flat_map(of).collect()
    }

    /// The sums of those who share, for what this rank updates of `model`.
    fn own(mut self, model: &CausalLm, shards: &Shards) -> Result<Vec<Tensor<1>>> {
        self.settle();
        let mut own = Vec::new();
        for part in shards.trained_parts() {
            let sums = match self.parts.remove(&part) {
                Some(Sum::Own(sums)) => sums,
                Some(Sum::All(sums)) => shards.reduce(part, sums).wait(),
                // Of a rank without a micro-batch.
                None if cut_at_once(model).is_none() => shards.reduce(part, Vec::new()).wait(),
                None => shards.own_zeros(part),
            };
            let sums = shards.mesh.replicate.sums(sums)?;
            own.extend(shards.cut(part, sums));
        }
        Ok(own)
    }
}

/// The sums of all ranks, in the order of [`TrainState::visit_own`], of the model and of a value model.
pub(super) fn summed(state: &mut TrainState, [of_model, of_values]: [Sums; 2]) -> Result<Vec<Tensor<1>>> {
    if let Some(shards) = state.model.shards.clone() {
        let mut own = of_model.own(&state.model, &shards)?;
        if let Some(values) = &state.value_model {
            let shards = values.shards.clone().expect("it is shared as the model is");
            own.extend(of_values.own(values, &shards)?);
        }
        return Ok(own);
    }
    let mut gradients: Vec<Tensor<1>> = [of_model, of_values].iter().flat_map(Sums::values).collect();
    if gradients.is_empty() {
        // Of a rank without a micro-batch.
        let device = state.model.device();
        state.visit_own(&mut |_, it| gradients.push(Tensor::zeros([it.length()], &device)));
    }
    state.ranks.reduce(gradients)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::parallel::lonely::Lonely;

    /// A part's gradients are on their way while the next part's are made; when those are there, they are waited for.
    #[test]
    fn gradients_are_sent_without_waiting() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/train/model");
        let mut model = crate::checkpoint::load_model(&folder, &burn::tensor::Device::flex()).unwrap();
        let lonely = Lonely::new(0, 2);
        lonely.share(&mut model);
        let gradients = |model: &mut CausalLm, part: Part| {
            let mut all = Vec::new();
            part.visit_trained(model, &mut |_, it| {
                all.push(Tensor::ones([it.length()], &burn::tensor::Device::flex()));
            });
            all
        };
        let [last, first] = [1, 0].map(|it| (Part::Block(it), gradients(&mut model, Part::Block(it))));
        lonely.hold(true);
        let (told, heard) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sums = Sums::default();
                sums.add(&model, last.0, last.1);
                told.send("the last is sent").unwrap();
                sums.add(&model, first.0, first.1);
                told.send("the first is sent").unwrap();
            });
            let while_held = [10_000, 200].map(|it| heard.recv_timeout(Duration::from_millis(it)).ok());
            lonely.hold(false);
            assert_eq!(while_held, [Some("the last is sent"), None], "never more than two are there");
            assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok("the first is sent"));
        });
    }
}
