//! Contract 0.2, the version in work.

contract_bindings!(
    "../../wit",
    "
        package fthost:host;
        world imports {
            import fthost:plugin/log@0.2.0;
            import fthost:plugin/random@0.2.0;
            import fthost:plugin/resources@0.2.0;
            import fthost:plugin/generate@0.2.0;
            import fthost:plugin/logprobs@0.2.0;
            import fthost:plugin/embed@0.2.0;
        }
    "
);

use fthost_data::{EvalSample, Example, ModelName};
use wasmtime::Store;

use crate::contract::{AugmentGuest, Called, Derived, MadeOfExample, json};
use crate::state::State;

fn sample_to(sample: &EvalSample) -> wit::Sample {
    wit::Sample {
        id: sample.id,
        step: sample.step,
        prompt: prompt_to(&sample.prompt),
        completion: candidate_to(&sample.completion),
        reference: sample.reference.clone(),
        columns: json(&sample.columns),
    }
}

fn model_from(model: wit::Model) -> ModelName {
    match model {
        wit::Model::Run => ModelName::Run,
        wit::Model::Reference => ModelName::Reference,
        wit::Model::Judge(name) => ModelName::Judge(name),
    }
}

impl AugmentGuest for Augmenter {
    fn augment(&self, store: &mut Store<State>, examples: &[Example]) -> Called<Vec<MadeOfExample>> {
        use augmenter::exports::fthost::plugin::augment::{self, Fate};
        let derived = |it: augment::Derived| Derived { made: made(it.example), operation: it.operation };
        let of_example = |it: augment::Augmented| MadeOfExample {
            dropped: match it.original {
                Fate::Keep => None,
                Fate::Drop(reason) => Some(reason),
            },
            variants: it.variants.into_iter().map(derived).collect(),
        };
        let all = self.0.fthost_plugin_augment().call_augment(store, &examples_to(examples))?;
        Ok(all.map(|all| all.into_iter().map(of_example).collect()))
    }
}

impl host::resources::Host for State {
    fn available(&mut self) -> wasmtime::Result<Vec<host::resources::File>> {
        let file = |it: &crate::resources::Resource| host::resources::File {
            name: it.name.clone(),
            size: it.size,
            digest: it.digest.clone(),
        };
        Ok(self.resources()?.iter().map(file).collect())
    }

    fn read(&mut self, name: String, offset: u64, length: u32) -> Called<Vec<u8>> {
        self.read_resource(&name, offset, length)
    }
}

impl host::generate::Host for State {
    fn generate(
        &mut self,
        model: wit::Model,
        prompts: Vec<wit::Prompt>,
        sampling: host::generate::Sampling,
    ) -> Called<Vec<Vec<wit::Candidate>>> {
        let prompts = prompts.into_iter().map(prompt_from).collect();
        let answers = self.generate(&model_from(model), prompts, sampling_from(sampling))?;
        Ok(answers.map(candidates_to))
    }
}

impl host::logprobs::Host for State {
    fn logprobs(
        &mut self,
        model: wit::Model,
        pairs: Vec<(wit::Prompt, String)>,
    ) -> Called<Vec<host::logprobs::TextLogprob>> {
        let pairs = pairs.into_iter().map(|(prompt, text)| (prompt_from(prompt), text)).collect();
        Ok(self.logprobs(&model_from(model), pairs)?.map(logprobs_to))
    }
}

impl host::embed::Host for State {
    fn embed(&mut self, model: wit::Model, texts: Vec<String>) -> Called<Vec<Vec<f32>>> {
        self.embed(&model_from(model), texts)
    }
}
