//! Parts of a model: what is gathered, trained and let go of together.

use super::CausalLm;
use super::parameter::Parameter;

/// A part of a model, in the order in which everything that is trained is visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The embedding, which may serve as the head; that of positions where they are learned; and virtual tokens.
    Embedding,
    /// One block.
    Block(usize),
    /// Final norm and, where it has a weight of its own, the head; and the scalar head.
    Head,
}

impl Part {
    /// Every part of a model of so many blocks.
    pub fn all(blocks: usize) -> impl Iterator<Item = Self> {
        [Self::Embedding].into_iter().chain((0..blocks).map(Self::Block)).chain([Self::Head])
    }

    /// What is trained of this part of `model`, in the order of its gradients.
    pub fn visit_trained(self, model: &mut CausalLm, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        match self {
            Self::Head => model.visit_trained_head(visit),
            Self::Embedding => model.visit_trained_embedding(visit),
            Self::Block(index) => model.visit_trained_block(index, visit),
        }
    }

    /// The base's weights of this part of `model`, in a fixed order.
    pub fn visit_base(self, model: &mut CausalLm, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        match self {
            Self::Head => model.visit_head(visit),
            Self::Embedding => model.visit_embedding(visit),
            Self::Block(index) => {
                let path = model.block_path(index);
                model.blocks[index].visit_base(&path, visit);
            }
        }
    }

    /// What is frozen of this part of `model`, in a fixed order.
    pub fn visit_frozen(self, model: &mut CausalLm, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        let trained = model.trained.clone();
        self.visit_base(model, &mut trained.others(visit));
    }
}
