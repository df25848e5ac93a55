//! Keys of a `config.json` as a family asks for them: what is wrong with any of them is told at once.

use serde_json::Value;

use super::decoder::DecoderConfig;
use crate::nn::{Rope, RopeScaling};

/// Reads keys and notes what is wrong.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    value: &'a Value,
    problems: Vec<String>,
}

impl<'a> Keys<'a> {
    pub fn of(value: &'a Value) -> Self {
        Self { value, problems: Vec::new() }
    }

    pub fn into_problems(self) -> Vec<String> {
        self.problems
    }

    /// A key that is there and not null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|it| !it.is_null())
    }

    fn typed<T>(&mut self, key: &str, what: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.get(key)?;
        let found = read(value);
        if found.is_none() {
            self.problems.push(format!("`{key}` must be {what}, got `{value}`"));
        }
        found
    }

    /// A size; `None` where it is not said.
    pub fn size(&mut self, key: &str) -> Option<usize> {
        self.typed(key, "a whole number", |it| usize::try_from(it.as_u64()?).ok())
    }

    /// A size whose absence means `silent`, and null nothing.
    pub fn size_or_null(&mut self, key: &str, silent: Option<usize>) -> Option<usize> {
        if self.value.get(key).is_none() { silent } else { self.size(key) }
    }

    /// A number whose absence means `silent`, and null nothing.
    pub fn number_or_null(&mut self, key: &str, silent: Option<f64>) -> Option<f64> {
        if self.value.get(key).is_none() { silent } else { self.number(key) }
    }

    /// A size that must be there.
    pub fn needed(&mut self, key: &str) -> usize {
        if self.get(key).is_none() {
            self.problems.push(format!("`{key}` is missing"));
        }
        // Not 0, which would be told as well.
        self.size(key).unwrap_or(1)
    }

    pub fn number(&mut self, key: &str) -> Option<f64> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub fn flag(&mut self, key: &str) -> Option<bool> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        self.typed(key, "a list of texts", |it| {
            it.as_array()?.iter().map(|it| it.as_str().map(str::to_string)).collect()
        })
    }

    /// A list of whole numbers.
    pub fn wholes(&mut self, key: &str) -> Option<Vec<u64>> {
        self.typed(key, "a list of whole numbers", |it| it.as_array()?.iter().map(Value::as_u64).collect())
    }

    /// A window in the layers that `layer_types` says slide, or, where it is silent, in those that `slides` names.
    pub fn windows(
        &mut self,
        config: &mut DecoderConfig,
        window: Option<usize>,
        slides: impl Fn(usize) -> bool,
    ) {
        let types = self.texts("layer_types");
        for (index, layer) in config.layers.iter_mut().enumerate() {
            let said = types.as_ref().and_then(|it| it.get(index));
            let slides = said.map_or_else(|| slides(index), |it| it == "sliding_attention");
            layer.window = window.filter(|_| slides);
        }
        let known = ["full_attention", "sliding_attention"];
        for unknown in types.iter().flatten().filter(|it| !known.contains(&it.as_str())) {
            self.problem(format!(
                "`layer_types` names \"{unknown}\", which is not known here (known: \"full_attention\", \"sliding_attention\")"
            ));
        }
    }

    /// A key that is known at `known` values only.
    pub fn only(&mut self, keys: &[&str], known: &[&str]) {
        for key in keys {
            let Some(value) = self.get(key) else { continue };
            if !value.as_str().is_some_and(|it| known.contains(&it)) {
                let known: Vec<String> = known.iter().map(|it| format!("\"{it}\"")).collect();
                self.problem(format!("`{key}` = {value} is not known here (known: {})", known.join(", ")));
            }
        }
    }

    pub fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// The rotary embedding: `rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling` of 4, with `theta` as
    /// the family's base.
    pub fn rope(&mut self, theta: f64, head_dim: usize, max_position_embeddings: usize) -> Rope {
        let said = ["rope_scaling", "rope_parameters"].into_iter().find_map(|key| self.get(key));
        self.rope_of(said, theta, head_dim, max_position_embeddings)
    }

    /// The rotary embedding that `said` describes, in whole or as a scaling.
    pub fn rope_of(
        &mut self,
        said: Option<&Value>,
        theta: f64,
        head_dim: usize,
        max_position_embeddings: usize,
    ) -> Rope {
        let of_said = |key: &str| said.and_then(|it| it[key].as_f64());
        let theta = of_said("rope_theta").or_else(|| self.number("rope_theta")).unwrap_or(theta);
        let partial = of_said("partial_rotary_factor").or_else(|| self.number("partial_rotary_factor"));
        let rotary_dim = (head_dim as f64 * partial.unwrap_or(1.0)) as usize;
        let scaling = said.map(|it| {
            let mut it = it.clone();
            let kind = ["rope_type", "type"].iter().find_map(|key| it[*key].as_str());
            // Phi 3's files of different ages say `su` and `yarn` for it.
            let kind = if it.get("long_factor").is_some() { Some("longrope") } else { kind };
            it["rope_type"] = Value::String(kind.unwrap_or("default").to_string());
            // As transformers reads it: what stands beside the scaling counts before what stands in it.
            let key = "original_max_position_embeddings";
            let original = self.get(key).or(it.get(key)).cloned();
            it[key] = original.unwrap_or_else(|| max_position_embeddings.into());
            serde_json::from_value::<RopeScaling>(it)
        });
        let scaling = match scaling {
            None => RopeScaling::Default,
            Some(Ok(scaling)) => scaling,
            Some(Err(error)) => {
                self.problem(format!("`rope_scaling`: {error}"));
                RopeScaling::Default
            }
        };
        Rope { theta, head_dim: rotary_dim, max_position_embeddings, scaling }
    }
}
