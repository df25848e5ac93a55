//! A model for plugins' own tests: it says what a script says.

use std::cell::RefCell;
use std::rc::Rc;

use fthost_plugin_sdk::model::{Model, Sampling};
use fthost_plugin_sdk::{Completion, Prompt, testing};

/// Answers with its texts in turn, and keeps each request's prompts.
#[derive(Debug, Clone, Default)]
pub struct Script {
    answers: Rc<RefCell<Vec<String>>>,
    asked: Rc<RefCell<Vec<Vec<String>>>>,
}

impl Script {
    /// These answers, one a completion.
    pub fn new(answers: &[&str]) -> Self {
        let answers = answers.iter().rev().map(|it| (*it).to_owned()).collect();
        Self { answers: Rc::new(RefCell::new(answers)), asked: Rc::default() }
    }

    /// The prompts of each request.
    pub fn asked(&self) -> Vec<Vec<String>> {
        self.asked.borrow().clone()
    }
}

impl testing::Host for Script {
    fn generate(
        &mut self,
        _: &Model,
        prompts: &[Prompt],
        sampling: &Sampling,
    ) -> Result<Vec<Vec<Completion>>, String> {
        self.asked.borrow_mut().push(prompts.iter().map(Prompt::text).collect());
        let mut answers = self.answers.borrow_mut();
        let mut next = || answers.pop().map(|it| testing::completion(&it)).ok_or("the script has ended");
        prompts
            .iter()
            .map(|_| (0..sampling.completions_per_prompt).map(|_| next()).collect::<Result<_, _>>())
            .collect::<Result<_, _>>()
            .map_err(str::to_owned)
    }
}
