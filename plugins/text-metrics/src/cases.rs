//! Runs a package's `cases/*.jsonl` natively, for the plugins' own tests. What the keys mean: the guide of plugin authors.

use std::collections::VecDeque;

use fthost_plugin_sdk::model::{Model, Sampling, TextLogprob};
use fthost_plugin_sdk::resources::File;
use fthost_plugin_sdk::serde::de::DeserializeOwned;
use fthost_plugin_sdk::testing::{Host, completion, configure, grade, group, score, with_host};
use fthost_plugin_sdk::{
    Columns, Completion, ConfigProblem, Detail, Evaluator, Group, Metric, Prompt, Reward, Sample, Score,
};
use serde_json::{Value, json};

/// Files of the package by name.
pub type Resources = &'static [(&'static str, &'static str)];

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Case {
    name: String,
    config: Columns,
    tolerance: Option<f64>,
    host: Answers,
    expected_problem: Option<String>,
    samples: Vec<CaseSample>,
    expected_metrics: Columns,
    expected_details: Vec<Columns>,
    completions: Vec<String>,
    columns: Columns,
    expected: Vec<Value>,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseSample {
    prompt: Option<String>,
    completion: String,
    reference: Option<String>,
    columns: Columns,
}

/// What the host answers, one after the other.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Answers {
    generate: VecDeque<String>,
    logprobs: VecDeque<(f64, u32)>,
    embed: VecDeque<Vec<f32>>,
}

struct CaseHost(Answers, Resources);

impl Host for CaseHost {
    fn resources(&mut self) -> Vec<File> {
        let file =
            |it: &(&str, &str)| File { name: it.0.into(), size: it.1.len() as u64, digest: String::new() };
        self.1.iter().map(file).collect()
    }

    fn read_resource(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let found = self.1.iter().find(|it| it.0 == name).map(|it| it.1.as_bytes().to_vec());
        found.ok_or_else(|| format!("no resource `{name}`"))
    }

    fn generate(
        &mut self,
        _: &Model,
        prompts: &[Prompt],
        sampling: &Sampling,
    ) -> Result<Vec<Vec<Completion>>, String> {
        let mut next = || Some(completion(&self.0.generate.pop_front()?));
        let mut several = |_| (0..sampling.completions_per_prompt).map(|_| next()).collect();
        let answers: Option<_> = prompts.iter().map(&mut several).collect();
        answers.ok_or_else(|| "the case has no more texts".into())
    }

    fn logprobs(&mut self, _: &Model, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String> {
        let mut next =
            |_| self.0.logprobs.pop_front().map(|(sum, token_count)| TextLogprob { sum, token_count });
        let answers: Option<_> = pairs.iter().map(&mut next).collect();
        answers.ok_or_else(|| "the case has no more log-probabilities".into())
    }

    fn embed(&mut self, _: &Model, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        let answers: Option<_> = texts.iter().map(|_| self.0.embed.pop_front()).collect();
        answers.ok_or_else(|| "the case has no more vectors".into())
    }
}

fn each(text: &str, resources: Resources, check: impl Fn(&Case)) {
    let mut cases = 0;
    for line in text.lines().filter(|it| !it.trim().is_empty()) {
        let case: Case = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        with_host(CaseHost(case.host.clone(), resources), || check(&case));
        cases += 1;
    }
    assert!(cases > 0, "no case");
}

/// The plugin that a case configures; `None` where it is refused, as expected.
fn configured<C: DeserializeOwned, P: TryFrom<C>>(case: &Case) -> Option<P>
where
    ConfigProblem: From<P::Error>,
{
    let made = configure::<C, P>(Value::Object(case.config.clone()));
    let made = made.map_err(|mut problems| problems.remove(0).key);
    match (made, &case.expected_problem) {
        (Ok(plugin), None) => Some(plugin),
        (Err(key), Some(expected)) if key == *expected => None,
        (Ok(_), Some(expected)) => panic!("{}: `{expected}` was not refused", case.name),
        (Err(key), expected) => panic!("{}: `{key}` was refused, expected {expected:?}", case.name),
    }
}

/// Every case of an evaluator.
///
/// # Panics
/// Where a case does not hold.
pub fn evaluator<C: DeserializeOwned, E: Evaluator + TryFrom<C>>(resources: Resources, text: &str)
where
    ConfigProblem: From<E::Error>,
{
    each(text, resources, |case| {
        let Some(mut evaluator) = configured::<C, E>(case) else { return };
        let sample = |(id, it): (usize, &CaseSample)| Sample {
            id: id as u64,
            step: 0,
            steps: 0,
            prompt: Prompt::Text(it.prompt.clone().unwrap_or("?".into())),
            completion: completion(&it.completion),
            reference: it.reference.clone(),
            columns: it.columns.clone(),
        };
        let samples: Vec<_> = case.samples.iter().enumerate().map(sample).collect();
        let details = grade(&mut evaluator, samples).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        check_metrics(case, &evaluator.finish());
        if !case.expected_details.is_empty() {
            check_details(case, &details);
        }
        assert!(evaluator.finish().is_empty(), "{}: a finished evaluation starts afresh", case.name);
    });
}

/// Every case of a reward.
///
/// # Panics
/// Where a case does not hold.
pub fn reward<C: DeserializeOwned, R: Reward + TryFrom<C>>(resources: Resources, text: &str)
where
    ConfigProblem: From<R::Error>,
{
    each(text, resources, |case| {
        let Some(mut reward) = configured::<C, R>(case) else { return };
        let completions = case.completions.iter().map(|it| completion(it)).collect();
        let group = Group { completions, columns: case.columns.clone(), ..group(json!({}), &[]) };
        let scores = score(&mut reward, vec![group])
            .unwrap_or_else(|error| panic!("{}: {error}", case.name))
            .remove(0);
        assert_eq!(scores.len(), case.expected.len(), "{}: scores", case.name);
        for (score, expected) in scores.iter().zip(&case.expected) {
            check_score(case, score, expected);
        }
    });
}

fn close(case: &Case, what: &str, found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap_or_else(|| panic!("{}: {what}: {expected}", case.name));
    let tolerance = case.tolerance.unwrap_or(1e-9);
    assert!((found - expected).abs() <= tolerance, "{}: {what}: {found}, expected {expected}", case.name);
}

fn check_metrics(case: &Case, metrics: &[Metric]) {
    for (name, expected) in &case.expected_metrics {
        let found = metrics.iter().find(|it| it.name == *name);
        let names = || metrics.iter().map(|it| &*it.name).collect::<Vec<_>>();
        let found = found.unwrap_or_else(|| panic!("{}: no `{name}` among {:?}", case.name, names()));
        let Value::Object(expected) = expected else {
            close(case, name, found.value, expected);
            continue;
        };
        close(case, name, found.value, &expected["value"]);
        if let Some(Value::Array(interval)) = expected.get("confidence") {
            let (low, high) =
                found.confidence.unwrap_or_else(|| panic!("{}: {name}: no interval", case.name));
            close(case, name, low, &interval[0]);
            close(case, name, high, &interval[1]);
        }
    }
}

fn check_details(case: &Case, details: &[Detail]) {
    assert_eq!(details.len(), case.expected_details.len(), "{}: details", case.name);
    for (detail, expected) in details.iter().zip(&case.expected_details) {
        for (name, expected) in expected {
            let found = detail.values.iter().find(|it| it.0 == *name);
            let found = found.unwrap_or_else(|| panic!("{}: no `{name}` in {detail:?}", case.name));
            close(case, name, found.1, expected);
        }
    }
}

fn check_score(case: &Case, score: &Score, expected: &Value) {
    let Value::Object(object) = expected else {
        let found = score.value().unwrap_or_else(|| panic!("{}: {score:?}, expected {expected}", case.name));
        return close(case, "score", found, expected);
    };
    if let Some(part) = object.get("abstain").or(object.get("error")) {
        let said = format!("{score:?}");
        let found = score.value().is_none() && said.contains(part.as_str().expect("text"));
        return assert!(found, "{}: {said}, expected {expected}", case.name);
    }
    close(case, "score", score.value().expect("a score"), &object["value"]);
    for (name, value) in object.get("components").and_then(Value::as_object).into_iter().flatten() {
        close(case, name, score.component(name).expect("a component"), value);
    }
}
