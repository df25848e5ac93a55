//! Contract 0.1, as released: one model, and augmenters that keep every example.

contract_bindings!(
    "../../wit/released/0.1.0",
    "
        package fthost:host;
        world imports {
            import fthost:plugin/log@0.1.0;
            import fthost:plugin/random@0.1.0;
            import fthost:plugin/generate@0.1.0;
            import fthost:plugin/logprobs@0.1.0;
        }
    "
);

contract_groups_before_1!();

use fthost_data::{EvalSample, Example, ModelName};
use wasmtime::Store;

use crate::contract::{AugmentGuest, Called, Derived, MadeOfExample, json};
use crate::state::State;

fn sample_to(sample: &EvalSample) -> wit::Sample {
    wit::Sample {
        id: sample.id,
        prompt: prompt_to(&sample.prompt),
        completion: candidate_to(&sample.completion),
        reference: sample.reference.clone(),
        columns: json(&sample.columns),
    }
}

impl AugmentGuest for Augmenter {
    fn augment(&self, store: &mut Store<State>, examples: &[Example]) -> Called<Vec<MadeOfExample>> {
        use augmenter::exports::fthost::plugin::augment;
        let derived = |it: augment::Derived| Derived { made: made(it.example), operation: it.operation };
        let of_example = |all: Vec<augment::Derived>| MadeOfExample {
            dropped: None,
            variants: all.into_iter().map(derived).collect(),
        };
        let all = self.0.fthost_plugin_augment().call_augment(store, &examples_to(examples))?;
        Ok(all.map(|all| all.into_iter().map(of_example).collect()))
    }
}

impl host::generate::Host for State {
    fn generate(
        &mut self,
        prompts: Vec<wit::Prompt>,
        sampling: host::generate::Sampling,
    ) -> Called<Vec<Vec<wit::Candidate>>> {
        let prompts = prompts.into_iter().map(prompt_from).collect();
        let answers = self.generate(&ModelName::Run, prompts, sampling_from(sampling))?;
        Ok(answers.map(candidates_to))
    }
}

impl host::logprobs::Host for State {
    fn logprobs(&mut self, pairs: Vec<(wit::Prompt, String)>) -> Called<Vec<host::logprobs::TextLogprob>> {
        let pairs = pairs.into_iter().map(|(prompt, text)| (prompt_from(prompt), text)).collect();
        Ok(self.logprobs(&ModelName::Run, pairs)?.map(logprobs_to))
    }
}
