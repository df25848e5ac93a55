//! What contract 0.2 brought and later versions kept: models by name, files, vectors, augmenters that leave examples out.

/// For a module with `contract_bindings!` of such a version.
macro_rules! contract_since_0_2 {
    () => {
        fn model_from(model: wit::Model) -> fthost_data::ModelName {
            match model {
                wit::Model::Run => fthost_data::ModelName::Run,
                wit::Model::Reference => fthost_data::ModelName::Reference,
                wit::Model::Judge(name) => fthost_data::ModelName::Judge(name),
            }
        }

        impl crate::contract::AugmentGuest for Augmenter {
            fn augment(
                &self,
                store: &mut wasmtime::Store<crate::state::State>,
                examples: &[fthost_data::Example],
            ) -> crate::contract::Called<Vec<crate::contract::MadeOfExample>> {
                use crate::contract::{Derived, MadeOfExample};
                use augmenter::exports::fthost::plugin::augment::{self, Fate};
                let derived =
                    |it: augment::Derived| Derived { made: made(it.example), operation: it.operation };
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

        impl host::resources::Host for crate::state::State {
            fn available(&mut self) -> wasmtime::Result<Vec<host::resources::File>> {
                let file = |it: &crate::resources::Resource| host::resources::File {
                    name: it.name.clone(),
                    size: it.size,
                    digest: it.digest.clone(),
                };
                Ok(self.resources()?.iter().map(file).collect())
            }

            fn read(&mut self, name: String, offset: u64, length: u32) -> crate::contract::Called<Vec<u8>> {
                self.read_resource(&name, offset, length)
            }
        }

        impl host::generate::Host for crate::state::State {
            fn generate(
                &mut self,
                model: wit::Model,
                prompts: Vec<wit::Prompt>,
                sampling: host::generate::Sampling,
            ) -> crate::contract::Called<Vec<Vec<wit::Candidate>>> {
                let prompts = prompts.into_iter().map(prompt_from).collect();
                let answers = self.generate(&model_from(model), prompts, sampling_from(sampling))?;
                Ok(answers.map(candidates_to))
            }
        }

        impl host::logprobs::Host for crate::state::State {
            fn logprobs(
                &mut self,
                model: wit::Model,
                pairs: Vec<(wit::Prompt, String)>,
            ) -> crate::contract::Called<Vec<host::logprobs::TextLogprob>> {
                let pairs = pairs.into_iter().map(|(prompt, text)| (prompt_from(prompt), text)).collect();
                Ok(self.logprobs(&model_from(model), pairs)?.map(logprobs_to))
            }
        }

        impl host::embed::Host for crate::state::State {
            fn embed(
                &mut self,
                model: wit::Model,
                texts: Vec<String>,
            ) -> crate::contract::Called<Vec<Vec<f32>>> {
                self.embed(&model_from(model), texts)
            }
        }
    };
}
