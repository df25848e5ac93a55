//! What the versions of the contract have in common, written once and compiled for each version's own types.

/// Bindings of the imports (module `imports`, worlds over it) and the conversions of records that did not change.
///
/// `$path` is the folder of the version's files, `$imports` an inline world that imports what the host offers.
macro_rules! contract_bindings {
    ($path:literal, $imports:literal) => {
        /// Generated.
        #[allow(missing_docs)]
        pub(crate) mod imports {
            wasmtime::component::bindgen!({ inline: $imports, path: $path, imports: { default: trappable } });
        }

        use imports::fthost::plugin as host;
        pub(crate) use imports::fthost::plugin::types as wit;

        contract_world!($path, plugin, "fthost:plugin/plugin");
        contract_world!($path, data_builder, "fthost:plugin/data-builder");
        contract_world!($path, augmenter, "fthost:plugin/augmenter");
        contract_world!($path, reward, "fthost:plugin/reward");
        contract_world!($path, evaluator, "fthost:plugin/evaluator");

        contract_guest!(Any, plugin, Plugin, PluginPre);
        contract_guest!(Builder, data_builder, DataBuilder, DataBuilderPre);
        contract_guest!(Augmenter, augmenter, Augmenter, AugmenterPre);
        contract_guest!(Reward, reward, Reward, RewardPre);
        contract_guest!(Evaluator, evaluator, Evaluator, EvaluatorPre);

        contract_records!();

        impl host::types::Host for crate::state::State {}

        impl host::log::Host for crate::state::State {
            fn log(&mut self, level: host::log::Level, message: String) -> wasmtime::Result<()> {
                use crate::state::LogLevel;
                self.log_line(
                    match level {
                        host::log::Level::Debug => LogLevel::Debug,
                        host::log::Level::Info => LogLevel::Info,
                        host::log::Level::Warn => LogLevel::Warn,
                        host::log::Level::Error => LogLevel::Error,
                    },
                    &message,
                )
            }
        }

        impl host::random::Host for crate::state::State {
            fn next_u64(&mut self) -> wasmtime::Result<u64> {
                self.draw()
            }

            fn bytes(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
                self.draw_bytes(length)
            }
        }

        /// The imports of this version.
        pub(crate) fn add_to_linker(
            linker: &mut wasmtime::component::Linker<crate::state::State>,
        ) -> wasmtime::Result<()> {
            imports::Imports::add_to_linker::<_, wasmtime::component::HasSelf<_>>(linker, |state| state)
        }
    };
}

/// The bindings of one world, over the shared imports.
macro_rules! contract_world {
    ($path:literal, $module:ident, $world:literal) => {
        /// Generated.
        #[allow(missing_docs)]
        pub(crate) mod $module {
            wasmtime::component::bindgen!({
                world: $world,
                path: $path,
                imports: { default: trappable },
                with: {
                    "fthost:plugin/types": super::imports::fthost::plugin::types,
                    "fthost:plugin/log": super::imports::fthost::plugin::log,
                    "fthost:plugin/random": super::imports::fthost::plugin::random,
                },
            });
        }
    };
}

/// One world's instance as a [`crate::contract::Guest`].
macro_rules! contract_guest {
    ($name:ident, $module:ident, $bindings:ident, $pre:ident) => {
        pub(crate) struct $name(pub(crate) $module::$bindings);

        impl $name {
            pub(crate) fn bind(
                store: &mut wasmtime::Store<crate::state::State>,
                pre: &wasmtime::component::InstancePre<crate::state::State>,
            ) -> wasmtime::Result<Self> {
                Ok(Self($module::$pre::new(pre.clone())?.instantiate(store)?))
            }
        }

        impl crate::contract::Guest for $name {
            fn describe(
                &self,
                store: &mut wasmtime::Store<crate::state::State>,
            ) -> wasmtime::Result<crate::contract::Described> {
                let it = self.0.fthost_plugin_about().call_describe(store)?;
                let (name, version, summary, config_schema) =
                    (it.name, it.version, it.summary, it.config_schema);
                Ok(crate::contract::Described { name, version, summary, config_schema })
            }

            fn configure(
                &self,
                store: &mut wasmtime::Store<crate::state::State>,
                config: &str,
            ) -> crate::contract::Configured {
                let configured = self.0.fthost_plugin_about().call_configure(store, &config.to_string())?;
                Ok(configured.map_err(|all| all.into_iter().map(|it| (it.key, it.message)).collect()))
            }
        }
    };
}

/// Rewards learned later what a group is scored for.
macro_rules! contract_groups_before_1 {
    () => {
        fn group_to(it: &fthost_data::Group) -> wit::Group {
            wit::Group {
                id: it.id,
                step: it.step,
                prompt: prompt_to(&it.prompt),
                completions: it.completions.iter().map(candidate_to).collect(),
                columns: crate::contract::json(&it.columns),
            }
        }
    };
}

/// Conversions between the version's records and those of `fthost-data`.
macro_rules! contract_records {
    () => {
        fn message_to(message: &fthost_data::Message) -> wit::Message {
            use fthost_data::Role;
            let role = match message.role {
                Role::System => wit::Role::System,
                Role::User => wit::Role::User,
                Role::Assistant => wit::Role::Assistant,
                Role::Tool => wit::Role::Tool,
            };
            wit::Message { role, content: message.content.clone() }
        }

        fn message_from(message: wit::Message) -> fthost_data::Message {
            use fthost_data::Role;
            let role = match message.role {
                wit::Role::System => Role::System,
                wit::Role::User => Role::User,
                wit::Role::Assistant => Role::Assistant,
                wit::Role::Tool => Role::Tool,
            };
            fthost_data::Message { role, content: message.content }
        }

        fn messages_to(messages: &[fthost_data::Message]) -> Vec<wit::Message> {
            messages.iter().map(message_to).collect()
        }

        fn messages_from(messages: Vec<wit::Message>) -> Vec<fthost_data::Message> {
            messages.into_iter().map(message_from).collect()
        }

        fn prompt_to(prompt: &fthost_data::Prompt) -> wit::Prompt {
            use fthost_data::Prompt;
            match prompt {
                Prompt::Text(text) => wit::Prompt::Text(text.clone()),
                Prompt::Messages(messages) => wit::Prompt::Messages(messages_to(messages)),
            }
        }

        fn prompt_from(prompt: wit::Prompt) -> fthost_data::Prompt {
            use fthost_data::Prompt;
            match prompt {
                wit::Prompt::Text(text) => Prompt::Text(text),
                wit::Prompt::Messages(messages) => Prompt::Messages(messages_from(messages)),
            }
        }

        fn answer_to(completion: &fthost_data::Completion) -> wit::Answer {
            use fthost_data::Completion;
            match completion {
                Completion::Text(text) => wit::Answer::Text(text.clone()),
                Completion::Messages(messages) => wit::Answer::Messages(messages_to(messages)),
            }
        }

        fn answer_from(answer: wit::Answer) -> fthost_data::Completion {
            use fthost_data::Completion;
            match answer {
                wit::Answer::Text(text) => Completion::Text(text),
                wit::Answer::Messages(messages) => Completion::Messages(messages_from(messages)),
            }
        }

        fn content_to(content: &fthost_data::Content) -> wit::Content {
            use fthost_data::Content;
            match content {
                Content::Messages(messages) => wit::Content::Messages(messages_to(messages)),
                Content::PromptCompletion { prompt, completion } => {
                    let (prompt, completion) = (prompt_to(prompt), answer_to(completion));
                    wit::Content::PromptCompletion(wit::PromptCompletion { prompt, completion })
                }
                Content::Preference(pair) => wit::Content::Preference(wit::PreferencePair {
                    prompt: prompt_to(&pair.prompt),
                    chosen: answer_to(&pair.chosen),
                    rejected: answer_to(&pair.rejected),
                }),
                Content::Text(text) => wit::Content::Text(text.clone()),
                Content::Prompt(prompt) => wit::Content::Prompt(prompt_to(prompt)),
            }
        }

        fn content_from(content: wit::Content) -> fthost_data::Content {
            use fthost_data::{Content, PreferencePair};
            match content {
                wit::Content::Messages(messages) => Content::Messages(messages_from(messages)),
                wit::Content::PromptCompletion(pair) => Content::PromptCompletion {
                    prompt: prompt_from(pair.prompt),
                    completion: answer_from(pair.completion),
                },
                wit::Content::Preference(pair) => Content::Preference(PreferencePair {
                    prompt: prompt_from(pair.prompt),
                    chosen: answer_from(pair.chosen),
                    rejected: answer_from(pair.rejected),
                }),
                wit::Content::Text(text) => Content::Text(text),
                wit::Content::Prompt(prompt) => Content::Prompt(prompt_from(prompt)),
            }
        }

        fn made(example: wit::Example) -> crate::contract::Made {
            let (row, columns) = (example.row, example.columns);
            crate::contract::Made { row, content: content_from(example.content), columns }
        }

        fn rows_to(rows: &[(u64, &fthost_data::Columns)]) -> Vec<wit::Row> {
            rows.iter().map(|it| wit::Row { id: it.0, columns: crate::contract::json(it.1) }).collect()
        }

        /// Rows are numbered by position: a variant's parent is known by where it stands in the answer.
        fn examples_to(examples: &[fthost_data::Example]) -> Vec<wit::Example> {
            let example = |(row, it): (u64, &fthost_data::Example)| wit::Example {
                row,
                content: content_to(&it.content),
                columns: crate::contract::json(&it.columns),
            };
            (0..).zip(examples).map(example).collect()
        }

        fn candidate_to(candidate: &fthost_data::Candidate) -> wit::Candidate {
            let finish = match candidate.finish {
                fthost_data::Finish::Stop => wit::Finish::Stop,
                fthost_data::Finish::Length => wit::Finish::Length,
            };
            wit::Candidate { text: candidate.text.clone(), token_count: candidate.token_count, finish }
        }

        fn groups_to(groups: &[fthost_data::Group]) -> Vec<wit::Group> {
            groups.iter().map(group_to).collect()
        }

        /// A number that is none is the plugin's breach of the contract, never a score.
        fn outcome_from(outcome: wit::Outcome) -> fthost_data::Outcome {
            use fthost_data::{Failure, Outcome, Score};
            match outcome {
                wit::Outcome::Ok(score) => {
                    let all = std::iter::once((None, score.value))
                        .chain(score.components.iter().map(|(name, value)| (Some(name), *value)));
                    let message = match all.into_iter().find(|it| !it.1.is_finite()) {
                        None => {
                            return Outcome::Ok(Score { value: score.value, components: score.components });
                        }
                        Some((None, value)) => format!("a score is {value}"),
                        Some((Some(name), value)) => format!("the score's component `{name}` is {value}"),
                    };
                    Outcome::Failed(Failure::Contract { message })
                }
                wit::Outcome::Abstain(reason) => Outcome::Abstain { reason },
                wit::Outcome::Error(message) => Outcome::Failed(Failure::Plugin { message }),
            }
        }

        fn outcomes_from(all: Vec<Vec<wit::Outcome>>) -> Vec<Vec<fthost_data::Outcome>> {
            all.into_iter().map(|it| it.into_iter().map(outcome_from).collect()).collect()
        }

        fn detail_from(detail: wit::Detail) -> fthost_data::Detail {
            fthost_data::Detail { id: detail.id, values: detail.values, note: detail.note }
        }

        /// # Errors
        /// A figure that is not finite.
        fn metric_from(metric: wit::Metric) -> Result<fthost_data::Metric, String> {
            use fthost_data::Direction;
            let bounds = metric.confidence.unwrap_or((0.0, 0.0));
            if !(metric.value.is_finite() && bounds.0.is_finite() && bounds.1.is_finite()) {
                return Err(format!("metric `{}` is not finite", metric.name));
            }
            Ok(fthost_data::Metric {
                name: metric.name,
                value: metric.value,
                direction: match metric.direction {
                    wit::Direction::HigherIsBetter => Direction::HigherIsBetter,
                    wit::Direction::LowerIsBetter => Direction::LowerIsBetter,
                },
                confidence: metric.confidence,
                count: metric.count,
            })
        }

        fn candidates_to(all: Vec<Vec<fthost_data::Candidate>>) -> Vec<Vec<wit::Candidate>> {
            all.iter().map(|it| it.iter().map(candidate_to).collect()).collect()
        }

        fn sampling_from(it: host::generate::Sampling) -> fthost_data::Sampling {
            fthost_data::Sampling {
                max_new_tokens: it.max_new_tokens,
                temperature: it.temperature,
                top_p: it.top_p,
                completions_per_prompt: it.completions_per_prompt,
                stop: it.stop,
                seed: it.seed,
            }
        }

        fn logprobs_to(all: Vec<fthost_data::TextLogprob>) -> Vec<host::logprobs::TextLogprob> {
            use host::logprobs::TextLogprob;
            all.into_iter().map(|it| TextLogprob { sum: it.sum, token_count: it.token_count }).collect()
        }

        impl crate::contract::BuildGuest for Builder {
            fn build(
                &self,
                store: &mut wasmtime::Store<crate::state::State>,
                rows: &[(u64, &fthost_data::Columns)],
            ) -> crate::contract::Called<Vec<crate::contract::Built>> {
                use crate::contract::Built;
                use data_builder::exports::fthost::plugin::build::BuildOutcome;
                let outcome = |it| match it {
                    BuildOutcome::Examples(all) => Built::Examples(all.into_iter().map(made).collect()),
                    BuildOutcome::BadRow(reason) => Built::BadRow(reason),
                };
                let built = self.0.fthost_plugin_build().call_build(store, &rows_to(rows))?;
                Ok(built.map(|all| all.into_iter().map(outcome).collect()))
            }

            fn finish(
                &self,
                store: &mut wasmtime::Store<crate::state::State>,
            ) -> crate::contract::Called<Vec<crate::contract::Made>> {
                let kept = self.0.fthost_plugin_build().call_finish(store)?;
                Ok(kept.map(|all| all.into_iter().map(made).collect()))
            }
        }

        impl crate::contract::ScoreGuest for Reward {
            fn score(
                &self,
                store: &mut wasmtime::Store<crate::state::State>,
                groups: &[fthost_data::Group],
            ) -> crate::contract::Called<Vec<Vec<fthost_data::Outcome>>> {
                let scored = self.0.fthost_plugin_score().call_score(store, &groups_to(groups))?;
                Ok(scored.map(outcomes_from))
            }
        }

        impl crate::contract::EvaluateGuest for Evaluator {
            fn grade(
                &self,
                store: &mut wasmtime::Store<crate::state::State>,
                samples: &[fthost_data::EvalSample],
            ) -> crate::contract::Called<Vec<fthost_data::Detail>> {
                let samples: Vec<wit::Sample> = samples.iter().map(sample_to).collect();
                let details = self.0.fthost_plugin_evaluate().call_grade(store, &samples)?;
                Ok(details.map(|all| all.into_iter().map(detail_from).collect()))
            }

            fn finish(
                &self,
                store: &mut wasmtime::Store<crate::state::State>,
            ) -> crate::contract::Called<Vec<Result<fthost_data::Metric, String>>> {
                let metrics = self.0.fthost_plugin_evaluate().call_finish(store)?;
                Ok(metrics.map(|all| all.into_iter().map(metric_from).collect()))
            }
        }
    };
}
