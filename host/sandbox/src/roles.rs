//! The four roles, played by one instance each.

use fthost_data::{
    Augmenter, BuildOutcome, DataBuilder, Detail, EvalSample, Evaluator, Example, Failure, Group, Metric,
    Origin, Outcome, PluginIdentity, Provenance, Record, Reward, RoleError, Variant,
};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::convert;
use crate::handle::{Handle, World};
use crate::state::State;
use crate::wit;
use crate::wit::augmenter::exports::fthost::plugin::augment::Derived;

/// Implements [`World`] for the bindings of one world.
macro_rules! world {
    ($name:ident, $module:ident, $bindings:ident, $pre:ident) => {
        pub(crate) struct $name(pub(crate) wit::$module::$bindings);

        impl World for $name {
            fn bind(store: &mut Store<State>, pre: &InstancePre<State>) -> wasmtime::Result<Self> {
                Ok(Self(wit::$module::$pre::new(pre.clone())?.instantiate(store)?))
            }

            fn configure(
                &self,
                store: &mut Store<State>,
                config: &str,
            ) -> wasmtime::Result<Result<(), Vec<(String, String)>>> {
                let configured = self.0.fthost_plugin_about().call_configure(store, &config.to_string())?;
                Ok(configured.map_err(|all| all.into_iter().map(|it| (it.key, it.message)).collect()))
            }
        }
    };
}

world!(AnyRole, plugin, Plugin, PluginPre);
world!(BuilderWorld, data_builder, DataBuilder, DataBuilderPre);
world!(AugmenterWorld, augmenter, Augmenter, AugmenterPre);
world!(RewardWorld, reward, Reward, RewardPre);
world!(EvaluatorWorld, evaluator, Evaluator, EvaluatorPre);

/// The answer's length must be the question's.
fn same_length<T>(what: &str, answer: Vec<T>, expected: usize) -> Result<Vec<T>, String> {
    match answer.len() {
        found if found == expected => Ok(answer),
        found => Err(format!("{found} {what} for {expected}")),
    }
}

pub(crate) struct BuilderRole {
    pub(crate) identity: PluginIdentity,
    pub(crate) handle: Handle<BuilderWorld>,
    /// By row id. Rows may be kept back until the end, so all are remembered.
    origins: Vec<Origin>,
}

impl BuilderRole {
    pub(crate) fn new(identity: PluginIdentity, handle: Handle<BuilderWorld>) -> Self {
        Self { identity, handle, origins: Vec::new() }
    }

    fn example(&self, example: wit::types::Example) -> Result<Example, String> {
        let origin = usize::try_from(example.row).ok().and_then(|it| self.origins.get(it));
        let origin =
            origin.ok_or_else(|| format!("an example of row {}, which was not given", example.row))?;
        Ok(Example {
            content: convert::content_from(example.content),
            columns: convert::columns_from(&example.columns)?,
            origin: origin.clone(),
            provenance: vec![Provenance { plugin: self.identity.name.clone(), operation: "build".into() }],
        })
    }

    fn examples(&self, all: Vec<wit::types::Example>) -> Result<Vec<Example>, String> {
        all.into_iter().map(|it| self.example(it)).collect()
    }

    fn contract(&self, call: &'static str, items: usize, message: String) -> RoleError {
        broken(&self.identity, call, items, message)
    }
}

/// An answer that breaks the contract.
fn broken(identity: &PluginIdentity, call: &'static str, items: usize, message: String) -> RoleError {
    RoleError { plugin: identity.name.clone(), call, items, failure: Failure::Contract { message } }
}

impl DataBuilder for BuilderRole {
    fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    fn build(&mut self, records: &[Record]) -> Result<Vec<BuildOutcome>, RoleError> {
        use wit::data_builder::exports::fthost::plugin::build::BuildOutcome as Built;
        let first = self.origins.len() as u64;
        let rows: Vec<wit::types::Row> = (first..)
            .zip(records)
            .map(|(id, it)| wit::types::Row { id, columns: convert::columns_to(&it.columns) })
            .collect();
        self.origins.extend(records.iter().map(|it| it.origin.clone()));
        let built = self.handle.call_role(&self.identity.name, "build", records.len(), |world, store| {
            world.0.fthost_plugin_build().call_build(store, &rows)
        })?;
        let outcomes = same_length("outcomes", built, records.len()).and_then(|built| {
            built
                .into_iter()
                .map(|outcome| match outcome {
                    Built::Examples(all) => self.examples(all).map(BuildOutcome::Examples),
                    Built::BadRow(reason) => Ok(BuildOutcome::BadRow { reason }),
                })
                .collect()
        });
        outcomes.map_err(|message| self.contract("build", records.len(), message))
    }

    fn finish(&mut self) -> Result<Vec<Example>, RoleError> {
        let rows = self.origins.len();
        let kept = self.handle.call_role(&self.identity.name, "finish", rows, |world, store| {
            world.0.fthost_plugin_build().call_finish(store)
        })?;
        self.examples(kept).map_err(|message| self.contract("finish", rows, message))
    }
}

pub(crate) struct AugmenterRole {
    pub(crate) identity: PluginIdentity,
    pub(crate) handle: Handle<AugmenterWorld>,
}

impl AugmenterRole {
    fn variant(&self, parent: &Example, derived: Derived) -> Result<Variant, String> {
        let mut provenance = parent.provenance.clone();
        provenance.push(Provenance { plugin: self.identity.name.clone(), operation: derived.operation });
        let content = convert::content_from(derived.example.content);
        let columns = convert::columns_from(&derived.example.columns)?;
        Ok(Variant { example: Example { content, columns, origin: parent.origin.clone(), provenance } })
    }
}

impl Augmenter for AugmenterRole {
    fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    fn augment(&mut self, examples: &[Example]) -> Result<Vec<Vec<Variant>>, RoleError> {
        let given: Vec<wit::types::Example> = (0..)
            .zip(examples)
            .map(|(row, it)| wit::types::Example {
                row,
                content: convert::content_to(&it.content),
                columns: convert::columns_to(&it.columns),
            })
            .collect();
        let all = self.handle.call_role(&self.identity.name, "augment", examples.len(), |world, store| {
            world.0.fthost_plugin_augment().call_augment(store, &given)
        })?;
        let variants = same_length("lists of variants", all, examples.len()).and_then(|all| {
            let of_parent = |(parent, derived): (&Example, Vec<Derived>)| {
                derived.into_iter().map(|it| self.variant(parent, it)).collect()
            };
            examples.iter().zip(all).map(of_parent).collect()
        });
        variants.map_err(|message| broken(&self.identity, "augment", examples.len(), message))
    }
}

pub(crate) struct RewardRole {
    pub(crate) identity: PluginIdentity,
    pub(crate) handle: Handle<RewardWorld>,
}

impl Reward for RewardRole {
    fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    fn score(&mut self, groups: &[Group]) -> Vec<Vec<Outcome>> {
        let given: Vec<wit::types::Group> = groups.iter().map(convert::group_to).collect();
        let scored = self.handle.call(|world, store| world.0.fthost_plugin_score().call_score(store, &given));
        let scored = scored.and_then(|all| {
            let contract = |message| Failure::Contract { message };
            let all = same_length("lists of outcomes", all, groups.len()).map_err(contract)?;
            let of_group = |(group, outcomes): (&Group, Vec<wit::types::Outcome>)| {
                let outcomes =
                    same_length("outcomes", outcomes, group.completions.len()).map_err(contract)?;
                Ok(outcomes.into_iter().map(convert::outcome_from).collect())
            };
            groups.iter().zip(all).map(of_group).collect()
        });
        // A call that fails as a whole fails for each completion: the run file's policy counts and decides.
        scored.unwrap_or_else(|failure: Failure| {
            let failed = |group: &Group| vec![Outcome::Failed(failure.clone()); group.completions.len()];
            groups.iter().map(failed).collect()
        })
    }
}

pub(crate) struct EvaluatorRole {
    pub(crate) identity: PluginIdentity,
    pub(crate) handle: Handle<EvaluatorWorld>,
}

impl Evaluator for EvaluatorRole {
    fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    fn grade(&mut self, samples: &[EvalSample]) -> Result<Vec<Detail>, RoleError> {
        let given: Vec<wit::types::Sample> = samples.iter().map(convert::sample_to).collect();
        let details =
            self.handle.call_role(&self.identity.name, "grade", samples.len(), |world, store| {
                world.0.fthost_plugin_evaluate().call_grade(store, &given)
            })?;
        let details = same_length("details", details, samples.len()).and_then(|details| {
            let matches = samples.iter().zip(&details).all(|(sample, detail)| sample.id == detail.id);
            matches.then_some(details).ok_or_else(|| "details whose ids are not the samples'".to_string())
        });
        let details = details.map_err(|message| broken(&self.identity, "grade", samples.len(), message))?;
        Ok(details.into_iter().map(convert::detail_from).collect())
    }

    fn finish(&mut self) -> Result<Vec<Metric>, RoleError> {
        let metrics = self.handle.call_role(&self.identity.name, "finish", 0, |world, store| {
            world.0.fthost_plugin_evaluate().call_finish(store)
        })?;
        let metrics: Result<_, String> = metrics.into_iter().map(convert::metric_from).collect();
        metrics.map_err(|message| broken(&self.identity, "finish", 0, message))
    }
}
