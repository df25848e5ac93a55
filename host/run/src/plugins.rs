//! Who plays the roles of a run.

use fthost_data::{Augmenter, DataBuilder, Evaluator, PluginIdentity, Reward};

/// Every role of a run and whoever plays it: components of the sandbox, or closures in a test.
#[derive(Default)]
pub struct Plugins {
    /// Makes examples of records; without one the known row shapes are used.
    pub builder: Option<Box<dyn DataBuilder>>,
    /// Derive further training examples, in this order, each from what the one before left.
    pub augmenters: Vec<Box<dyn Augmenter>>,
    /// Score answers.
    pub rewards: Vec<Box<dyn Reward>>,
    /// Judge answers to held-out prompts.
    pub evaluators: Vec<Box<dyn Evaluator>>,
}

impl Plugins {
    /// Nobody plays anything.
    pub fn none() -> Self {
        Self::default()
    }

    /// Role and identity of every plugin, in the order in which they are asked.
    pub fn identities(&self) -> Vec<(&'static str, &PluginIdentity)> {
        let builder = self.builder.iter().map(|it| ("builder", it.identity()));
        let augmenters = self.augmenters.iter().map(|it| ("augmenter", it.identity()));
        let rewards = self.rewards.iter().map(|it| ("reward", it.identity()));
        let evaluators = self.evaluators.iter().map(|it| ("evaluator", it.identity()));
        builder.chain(augmenters).chain(rewards).chain(evaluators).collect()
    }
}
