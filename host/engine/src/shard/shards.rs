//! What a rank has of a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;

use super::config::{Mesh, Offload, Zero};
use super::group::{Coming, Frozen, Trained, Whole, fill, hollow, layout_of};
use crate::models::{Block, CausalLm, Parameter, Part};
use crate::parallel::{Collective, Flat, Pending};

/// A rank's stretches of every part of a model.
///
/// Of a model whose weights are shared the tensors have shapes and nothing else. Otherwise they are there, and stretches are of
/// what is trained alone.
#[derive(Debug, Clone)]
pub struct Shards {
    /// Who has the others.
    pub mesh: Mesh,
    parts: BTreeMap<Part, PartShard>,
}

#[derive(Debug, Clone)]
struct PartShard {
    trained: Trained,
    frozen: Frozen,
}

/// Both groups of a part on their way.
pub(super) struct PartComing {
    trained: Coming,
    frozen: Coming,
}

/// Both groups of a part; what has no parameter is not there.
pub(super) struct PartWhole {
    trained: Option<Whole>,
    frozen: Option<Whole>,
}

impl PartComing {
    pub(super) fn wait(self) -> PartWhole {
        // In the order in which they were begun.
        let trained = self.trained.wait();
        PartWhole { trained, frozen: self.frozen.wait() }
    }
}

impl Shards {
    /// Of no part yet.
    pub(crate) fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone(), parts: BTreeMap::new() }
    }

    /// Takes this rank's stretches of a part of `model`, which is as it is to be trained from now on; where weights are shared,
    /// the part is hollow then. What is as it was stays.
    ///
    /// All ranks do the same: what has to be split another way than before is gathered first.
    pub(crate) fn take(&mut self, model: &mut CausalLm, part: Part) {
        let (shard, shares_weights) = (self.mesh.shard.clone(), self.mesh.shares_weights());
        let frozen = match shares_weights {
            true => layout_of(&shard, |visit| part.visit_frozen(model, visit)),
            false => layout_of(&shard, |_| ()),
        };
        let trained = layout_of(&shard, |visit| part.visit_trained(model, visit));
        let before = self.parts.remove(&part);
        let kept = before.as_ref().map(|it| (it.trained.layout == trained, it.frozen.layout == frozen));
        if kept == Some((true, true)) {
            self.parts.extend(before.map(|it| (part, it)));
            return;
        }
        let (rank, offloads) = (shard.global_rank(), self.mesh.config.offload == Offload::All);
        let frozen = match before {
            Some(before) if before.frozen.layout == frozen && before.trained.layout.entries.is_empty() => {
                before.frozen
            }
            before => {
                if let Some(before) = before.filter(|_| shares_weights) {
                    // By the names that they had: what is trained now was frozen, or the other way round.
                    before.gather(&shard).wait().restore(&before, model, part);
                }
                Frozen::new(frozen, rank, (&model.device(), offloads), |visit| {
                    if shares_weights {
                        part.visit_frozen(model, visit);
                    }
                })
            }
        };
        let device = model.device();
        let trained =
            Trained::new(trained, rank, (&device, offloads), |visit| part.visit_trained(model, visit));
        if shares_weights {
            part.visit_trained(model, &mut |_, it| hollow(it));
            part.visit_frozen(model, &mut |_, it| hollow(it));
        }
        self.parts.insert(part, PartShard { trained, frozen });
    }

    fn part(&self, part: Part) -> &PartShard {
        &self.parts[&part]
    }

    /// Begins to gather a part.
    pub(super) fn gather(&self, part: Part) -> PartComing {
        self.part(part).gather(&self.mesh.shard)
    }

    /// Has `block`, the hollow one at `index` of `model`, be `whole`.
    pub(super) fn fill_block(&self, model: &CausalLm, index: usize, whole: &PartWhole, block: &mut Block) {
        let (device, path, shard) = (model.device(), model.block_path(index), self.part(Part::Block(index)));
        if let Some(trained) = &whole.trained {
            fill(&shard.trained.layout, trained, &device, |visit| {
                block.visit_trained(&model.trained, &path, visit);
            });
        }
        if let Some(frozen) = &whole.frozen {
            fill(&shard.frozen.layout, frozen, &device, |visit| {
                block.visit_base(&path, &mut model.trained.others(visit));
            });
        }
    }

    /// Has a part of `model` be `whole`.
    pub(super) fn fill(&self, model: &mut CausalLm, part: Part, whole: &PartWhole) {
        let (device, shard) = (model.device(), self.part(part));
        if let Some(trained) = &whole.trained {
            fill(&shard.trained.layout, trained, &device, |visit| part.visit_trained(model, visit));
        }
        if let Some(frozen) = &whole.frozen {
            fill(&shard.frozen.layout, frozen, &device, |visit| part.visit_frozen(model, visit));
        }
    }

    /// This rank's piece of everything that is trained, in the order of [`CausalLm::visit_trained`].
    fn visit_trained(&mut self, visit: &mut dyn FnMut(&str, usize, Parameter<'_>)) {
        self.parts.values_mut().for_each(|it| it.trained.visit(visit));
    }

    /// Begins to sum up the gradients of a part, which stand in the order of its visitor, over those who share: this rank's
    /// stretch of the sums will come.
    pub(crate) fn reduce(&self, part: Part, gradients: Vec<Tensor<1>>) -> Pending {
        let flat = self.part(part).trained.flat(gradients);
        self.mesh.shard.begin_reduce_scatter(flat)
    }

    /// What this rank's stretch of sums of a part has for each of its pieces.
    pub(crate) fn cut(&self, part: Part, own: Flat) -> Vec<Tensor<1>> {
        self.part(part).trained.cut(own)
    }

    /// Every part of which something is trained.
    pub(crate) fn trained_parts(&self) -> impl Iterator<Item = Part> {
        self.parts.iter().filter(|it| !it.1.trained.layout.entries.is_empty()).map(|it| *it.0)
    }

    /// Gathers what is trained of a part of `model`, of which this rank has no stretch any more.
    fn let_go_of_trained(&mut self, model: &mut CausalLm, part: Part) {
        let (device, ranks) = (model.device(), self.mesh.shard.clone());
        let shard = self.parts.get_mut(&part).expect("every part is shared");
        if let Some(whole) = shard.trained.gather(&ranks).wait() {
            fill(&shard.trained.layout, &whole, &device, |visit| part.visit_trained(model, visit));
        }
        shard.trained = Trained::new(layout_of(&ranks, |_| ()), 0, (&device, false), |_| ());
    }

    /// Zeros, as many as this rank's stretch of what is trained of a part has words.
    pub(crate) fn own_zeros(&self, part: Part) -> Flat {
        self.part(part).trained.own_zeros()
    }
}

impl PartShard {
    fn gather(&self, ranks: &crate::parallel::Ranks) -> PartComing {
        PartComing { trained: self.trained.gather(ranks), frozen: self.frozen.gather(ranks) }
    }
}

impl PartWhole {
    /// Has everything of a part of `model` that was in `shard` be whole again, whatever is trained now.
    fn restore(&self, shard: &PartShard, model: &mut CausalLm, part: Part) {
        let device = model.device();
        for (layout, whole) in [(&shard.trained.layout, &self.trained), (&shard.frozen.layout, &self.frozen)]
        {
            let Some(whole) = whole else { continue };
            let mut restore = |name: &str, parameter: Parameter<'_>| {
                if let Some(entry) = layout.entries.iter().find(|it| it.name == name) {
                    super::group::put(layout, entry, whole, parameter, &device);
                }
            };
            part.visit_trained(model, &mut restore);
            part.visit_frozen(model, &mut restore);
        }
    }
}

impl CausalLm {
    /// Shares the model as it is to be trained with the ranks of `mesh`: once it is loaded, and again when something else is
    /// trained of it.
    pub fn share(&mut self, mesh: &Mesh) {
        let shards = self.shards.take();
        let mut shards = shards.map_or_else(|| Shards::new(mesh), Arc::unwrap_or_clone);
        Part::all(self.blocks.len()).for_each(|part| shards.take(self, part));
        self.shards = Some(Arc::new(shards));
    }

    /// Whether other ranks have a share of it.
    pub fn is_shared(&self) -> bool {
        self.shards.is_some()
    }

    /// Whether its tensors have shapes and nothing else.
    pub fn is_hollow(&self) -> bool {
        self.shared_weights().is_some()
    }

    /// What this rank has of weights that are shared.
    pub(crate) fn shared_weights(&self) -> Option<&Shards> {
        self.shards.as_deref().filter(|it| it.mesh.shares_weights())
    }

    /// Gathers parts, one after the other, into `model`, which is this one or a clone; where it is not to have them, they are let go
    /// of. All ranks ask for it together.
    fn gather_into(&self, model: &mut Self, parts: impl IntoIterator<Item = Part>, keeps: bool) {
        let Some(shards) = self.shared_weights() else { return };
        for part in parts {
            let whole = shards.gather(part).wait();
            if keeps {
                shards.fill(model, part, &whole);
            }
        }
    }

    /// The model with all of its weights, which nobody shares: all ranks ask for it together.
    pub fn whole(&self) -> Self {
        let mut model = Self { shards: None, ..self.clone() };
        self.gather_into(&mut model, Part::all(self.blocks.len()), true);
        model
    }

    /// As [`CausalLm::whole`], on the first rank alone; the others take part, and are never given more than a part of it. A model
    /// whose weights nobody shares is there on every rank.
    pub fn whole_on_first(&self) -> Option<Self> {
        let keeps = self.shared_weights().is_none_or(|it| it.mesh.is_first());
        let mut model = Self { shards: None, ..self.clone() };
        self.gather_into(&mut model, Part::all(self.blocks.len()), keeps);
        keeps.then_some(model)
    }

    /// The model with all weights of a part; the others stay as they are. All ranks ask for it together.
    pub(crate) fn with_part(&self, part: Part) -> Self {
        let mut model = self.clone();
        self.gather_into(&mut model, [part], true);
        model
    }

    /// The model with everything that is trained of it, as an adapter is saved; what is frozen stays as it is. All ranks ask for it
    /// together.
    #[must_use]
    pub fn with_trained(&self) -> Self {
        let mut model = self.clone();
        model.gather_trained();
        model
    }

    /// What this rank updates: its pieces where the model is shared, otherwise everything that is trained.
    pub fn visit_own(&mut self, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        self.visit_stretches(&mut |name, _, parameter| visit(name, parameter));
    }

    /// As [`CausalLm::visit_own`], each with the place of its first value among the parameter's.
    pub fn visit_stretches(&mut self, visit: &mut dyn FnMut(&str, usize, Parameter<'_>)) {
        match &mut self.shards {
            Some(shards) => Arc::make_mut(shards).visit_trained(visit),
            None => self.visit_trained(&mut |name, parameter| visit(name, 0, parameter)),
        }
    }

    /// Gathers what is trained and lets go of this rank's stretches of it: [`CausalLm::share`] takes them again. What is frozen
    /// stays as it is. All ranks ask for it together.
    pub(crate) fn gather_trained(&mut self) {
        let Some(shards) = self.shards.take() else { return };
        let mut shards = Arc::unwrap_or_clone(shards);
        for part in Part::all(self.blocks.len()) {
            shards.let_go_of_trained(self, part);
        }
        self.shards = Some(Arc::new(shards));
    }

    /// Lets go of whole trained weights of which this rank has stretches as well.
    pub(crate) fn hollow_beside_stretches(&mut self) {
        if self.is_shared() && !self.is_hollow() {
            let parts = Part::all(self.blocks.len());
            parts.for_each(|part| part.visit_trained(self, &mut |_, it| hollow(it)));
        }
    }

    /// Has the weights be what their pieces are after an update, where they are there on every rank.
    pub(crate) fn refill(&mut self) {
        let Some(shards) = self.shards.clone().filter(|it| it.mesh.config.zero < Zero::Three) else { return };
        for part in shards.trained_parts() {
            shards.fill(self, part, &shards.gather(part).wait());
        }
    }
}
