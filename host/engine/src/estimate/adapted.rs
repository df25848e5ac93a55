//! Where an adapter stands in a model's shape, and what is trained with it.

use super::shape::{BlockWeights, ModelShape};
use crate::adapters::saved::of_tied;
use crate::adapters::target::Ends;
use crate::adapters::{AdapterConfig, LoraConfig};
use crate::error::{EngineError, Result};
use crate::models::Trained;

impl ModelShape {
    /// With a fresh adapter.
    ///
    /// # Errors
    /// Of LoRA as [`ModelShape::with_lora`]; what the others ask of a model is for those to tell that load it.
    pub fn with_adapter(mut self, adapter: &AdapterConfig) -> Result<Self> {
        match adapter {
            AdapterConfig::Lora(lora) => {
                self = self.with_lora(lora)?;
                return self.with_saved(&lora.modules_to_save, lora.ensure_weight_tying);
            }
            AdapterConfig::Ia3(ia3) => {
                let ia3 = ia3.of_model(&self.config);
                let targets = ia3.target_modules.clone().unwrap_or_default();
                let (matches, before) = (targets.matcher()?, Ends::of(ia3.feedforward_modules.as_ref())?);
                for linear in self.blocks.iter_mut().flat_map(BlockWeights::linears_mut) {
                    if matches(&linear.path) {
                        linear.is_before = before.matches(&linear.path);
                        linear.ia3 = if linear.is_before { linear.width } else { linear.out };
                    }
                }
                return self.with_saved(&ia3.modules_to_save, false);
            }
            AdapterConfig::PromptTuning(it) => self.prompt = it.num_virtual_tokens,
            AdapterConfig::PrefixTuning(it) => {
                self.prefix = it.num_virtual_tokens;
                self.prefix_encoder = it.prefix_projection.then(|| it.encoder_width(&self.config));
            }
        }
        self.with_saved(&[], false)
    }

    /// With modules of the base trained beside an adapter.
    fn with_saved(mut self, modules: &[String], ensure_weight_tying: bool) -> Result<Self> {
        let mut modules = modules.to_vec();
        if self.config.tie_word_embeddings {
            (modules, self.is_untied) = of_tied(self.config.names, modules, ensure_weight_tying);
            self.config.tie_word_embeddings = !self.is_untied;
        }
        self.trained = Trained::Adapter(modules.into());
        Ok(self)
    }

    /// With a fresh adapter as `lora` has it.
    ///
    /// # Errors
    /// As [`crate::adapters::attach_lora`], whose places and ranks these are.
    pub fn with_lora(mut self, lora: &LoraConfig) -> Result<Self> {
        let (matches, sizes) = (lora.target_modules.matcher()?, lora.sizes()?);
        let mut problems = Vec::new();
        self.set_ranks(|path| match sizes(path) {
            _ if !matches(path) => 0,
            Ok((rank, _)) => rank,
            Err(problem) => {
                problems.push(problem);
                0
            }
        });
        if !problems.is_empty() {
            return Err(EngineError::Invalid { what: "adapter.lora".into(), problems });
        }
        if !self.blocks.iter().any(BlockWeights::has_pairs) {
            let linears = self.blocks.first().map(|it| it.linears().map(|it| it.path.clone()).collect());
            let wanted = format!("{:?}", lora.target_modules);
            return Err(EngineError::NoTarget { wanted, linears: linears.unwrap_or_default() });
        }
        self.use_dora = lora.use_dora;
        if lora.init_lora_weights.is_of_weight() {
            self.blocks.iter_mut().flat_map(BlockWeights::linears_mut).for_each(|it| it.origin = it.rank);
        }
        Ok(self)
    }

    /// Gives the linear at each path an adapter of the rank that `rank` says, 0 for none.
    pub fn set_ranks(&mut self, mut rank: impl FnMut(&str) -> usize) {
        self.blocks.iter_mut().flat_map(BlockWeights::linears_mut).for_each(|it| it.rank = rank(&it.path));
        if self.blocks.iter().any(BlockWeights::has_pairs) {
            self.trained = Trained::Adapter([].into());
        }
    }
}
