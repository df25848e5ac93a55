//! Builder, augmenter and evaluator, played by one instance each: they keep state between calls.

use fthost_data::{
    Augmented, Augmenter, BuildOutcome, Columns, DataBuilder, Detail, EvalSample, Evaluator, Example,
    Failure, Metric, OnFailure, Origin, PluginIdentity, Provenance, Record, RoleError,
};

use crate::contract::{
    AugmentGuest, BuildGuest, Built, Derived, EvaluateGuest, Made, MadeOfExample, columns_from,
};
use crate::handle::Handle;

/// The answer's length must be the question's.
pub(crate) fn same_length<T>(what: &str, answer: Vec<T>, expected: usize) -> Result<Vec<T>, String> {
    match answer.len() {
        found if found == expected => Ok(answer),
        found => Err(format!("{found} {what} for {expected}")),
    }
}

pub(crate) struct BuilderRole {
    pub(crate) identity: PluginIdentity,
    pub(crate) handle: Handle<Box<dyn BuildGuest>>,
    /// By row id. Rows may be kept back until the end, so all are remembered.
    origins: Vec<Origin>,
}

impl BuilderRole {
    pub(crate) fn new(identity: PluginIdentity, handle: Handle<Box<dyn BuildGuest>>) -> Self {
        Self { identity, handle, origins: Vec::new() }
    }

    fn example(&self, made: Made) -> Result<Example, String> {
        let origin = usize::try_from(made.row).ok().and_then(|it| self.origins.get(it));
        let origin = origin.ok_or_else(|| format!("an example of row {}, which was not given", made.row))?;
        Ok(Example {
            content: made.content,
            columns: columns_from(&made.columns)?,
            origin: origin.clone(),
            provenance: vec![Provenance { plugin: self.identity.name.clone(), operation: "build".into() }],
        })
    }

    fn examples(&self, all: Vec<Made>) -> Result<Vec<Example>, String> {
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
        let first = self.origins.len() as u64;
        let rows: Vec<(u64, &Columns)> = (first..).zip(records).map(|(id, it)| (id, &it.columns)).collect();
        self.origins.extend(records.iter().map(|it| it.origin.clone()));
        let built = self.handle.call("build", records.len(), |guest, store| guest.build(store, &rows))?;
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
        let kept = self.handle.call("finish", rows, |guest, store| guest.finish(store))?;
        self.examples(kept).map_err(|message| self.contract("finish", rows, message))
    }
}

pub(crate) struct AugmenterRole {
    pub(crate) identity: PluginIdentity,
    pub(crate) handle: Handle<Box<dyn AugmentGuest>>,
}

impl AugmenterRole {
    fn variant(&self, parent: &Example, derived: Derived) -> Result<Example, String> {
        let mut provenance = parent.provenance.clone();
        provenance.push(Provenance { plugin: self.identity.name.clone(), operation: derived.operation });
        let columns = columns_from(&derived.made.columns)?;
        Ok(Example { content: derived.made.content, columns, origin: parent.origin.clone(), provenance })
    }

    fn augmented(&self, parent: &Example, made: MadeOfExample) -> Result<Augmented, String> {
        let variants = made.variants.into_iter().map(|it| self.variant(parent, it));
        Ok(Augmented { dropped: made.dropped, variants: variants.collect::<Result<_, String>>()? })
    }
}

impl Augmenter for AugmenterRole {
    fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    fn augment(&mut self, examples: &[Example]) -> Result<Vec<Augmented>, RoleError> {
        let all =
            self.handle.call("augment", examples.len(), |guest, store| guest.augment(store, examples))?;
        let augmented = same_length("answers", all, examples.len()).and_then(|all| {
            examples.iter().zip(all).map(|(parent, made)| self.augmented(parent, made)).collect()
        });
        augmented.map_err(|message| broken(&self.identity, "augment", examples.len(), message))
    }
}

pub(crate) struct EvaluatorRole {
    pub(crate) identity: PluginIdentity,
    pub(crate) handle: Handle<Box<dyn EvaluateGuest>>,
    pub(crate) on_failure: OnFailure,
}

impl Evaluator for EvaluatorRole {
    fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// Tried again only where the plugin itself gave an error: after a trap what it had counted is gone.
    fn grade(&mut self, samples: &[EvalSample]) -> Result<Vec<Detail>, RoleError> {
        if let Some(first) = samples.first() {
            self.handle.at_step(first.step);
        }
        let mut tries = self.on_failure.retry;
        let details = loop {
            match self.handle.call("grade", samples.len(), |guest, store| guest.grade(store, samples)) {
                Err(RoleError { failure: Failure::Plugin { .. }, .. }) if tries > 0 => tries -= 1,
                graded => break graded?,
            }
        };
        let details = same_length("details", details, samples.len()).and_then(|details| {
            let matches = samples.iter().zip(&details).all(|(sample, detail)| sample.id == detail.id);
            matches.then_some(details).ok_or_else(|| "details whose ids are not the samples'".to_string())
        });
        details.map_err(|message| broken(&self.identity, "grade", samples.len(), message))
    }

    fn finish(&mut self) -> Result<Vec<Metric>, RoleError> {
        let metrics = self.handle.call("finish", 0, |guest, store| guest.finish(store))?;
        let metrics: Result<_, String> = metrics.into_iter().collect();
        metrics.map_err(|message| broken(&self.identity, "finish", 0, message))
    }
}
