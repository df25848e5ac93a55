//! The weights of a pass, part by part.

use std::collections::VecDeque;

use super::shards::{PartComing, PartWhole};
use crate::models::{Block, CausalLm, Part};

/// The parts of a model in the order in which a pass asks for them: while one is computed with, the next is gathered. Of a model
/// that is there it gives what is there.
pub(crate) struct Weights {
    order: VecDeque<Part>,
    coming: Option<(Part, PartComing)>,
}

impl Weights {
    /// Of `model`, asked for in this `order`.
    pub(crate) fn new(model: &CausalLm, order: impl IntoIterator<Item = Part>) -> Self {
        let order = if model.is_hollow() { order.into_iter().collect() } else { VecDeque::new() };
        let mut weights = Self { order, coming: None };
        weights.begin(model);
        weights
    }

    fn begin(&mut self, model: &CausalLm) {
        let next = self.order.pop_front();
        self.coming = next.map(|it| (it, model.shared_weights().expect("it is shared").gather(it)));
    }

    fn take(&mut self, model: &CausalLm, part: Part) -> PartWhole {
        let (next, coming) = self.coming.take().expect("a pass asks for what it said");
        assert_eq!(next, part, "a pass asks in the order that it said");
        let whole = coming.wait();
        self.begin(model);
        whole
    }

    /// The block at `index` of `model`.
    pub(crate) fn block(&mut self, model: &CausalLm, index: usize) -> Box<Block> {
        let mut block = Box::new(model.blocks[index].clone());
        if let Some(shards) = model.shared_weights() {
            let whole = self.take(model, Part::Block(index));
            shards.fill_block(model, index, &whole, &mut block);
        }
        block
    }

    /// `model` with these parts of it, which are no blocks, one after the other.
    pub(crate) fn ends(&mut self, model: &CausalLm, parts: &[Part]) -> CausalLm {
        let mut filled = model.clone();
        if let Some(shards) = model.shared_weights() {
            for &part in parts {
                let whole = self.take(model, part);
                shards.fill(&mut filled, part, &whole);
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::lonely::Lonely;

    /// Nobody has asked for the next part yet.
    #[test]
    fn the_next_part_is_gathered_while_one_is_computed_with() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/train/model");
        let mut model = crate::checkpoint::load_model(&folder, &burn::tensor::Device::flex()).unwrap();
        let lonely = Lonely::new(0, 2);
        lonely.share(&mut model);
        let mut weights = Weights::new(&model, [Part::Block(0), Part::Block(1)]);
        assert!(lonely.has_gathered(1));
        let _block = weights.block(&model, 0);
        assert!(lonely.has_gathered(2));
        let _block = weights.block(&model, 1);
        assert!(lonely.has_gathered(2), "nothing comes behind the last");
    }
}
