//! What may be set.

use fthost_plugin_sdk::{ConfigProblem, model::Model};
use row_tools::ask::Asking;

/// `[plugins.judge-reward.config]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who judges: `run`, `reference`, or `judges.<name>`. `grants.generate` must name the same.
    pub model: String,
    /// What stands above the question; nothing where empty.
    pub system: String,
    /// The question, in Jinja's syntax: `prompt` (its last turn), `conversation` (all turns), `completion`, `columns`,
    /// `low` and `high`.
    pub template: String,
    /// The worst and the best verdict; one outside of it is unreadable.
    pub scale: [f64; 2],
    /// Brings the scale to [0, 1].
    pub normalise: bool,
    /// A regular expression whose one group is the verdict, in the place of the usual wordings; its last match counts.
    pub pattern: Option<String>,
    /// Verdicts for each completion, averaged; more than one needs a `temperature`.
    pub votes: u32,
    /// The longest verdict, in tokens.
    pub max_new_tokens: u32,
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus; 1 is off.
    pub top_p: f32,
    /// Decides the draws of a judge that runs in the host.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: "run".into(),
            system: "You judge answers strictly and fairly.".into(),
            template: TEMPLATE.into(),
            scale: [1.0, 10.0],
            normalise: true,
            pattern: None,
            votes: 1,
            max_new_tokens: 256,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
        }
    }
}

const TEMPLATE: &str = "Judge how well the answer serves the one who asked: is it correct, complete, to the point?

<question>
{{ conversation }}
</question>

<answer>
{{ completion }}
</answer>

Give one short reason, then on the last line \"Score: \" and a number from {{ low }} (worst) to {{ high }} (best).";

impl Config {
    /// The judge, once every value is possible.
    pub fn checked(&self) -> Result<Model, ConfigProblem> {
        let problem = |key: &str, message: String| Err(ConfigProblem::new(key, message));
        let [low, high] = self.scale;
        if !(low < high && low.is_finite() && high.is_finite()) {
            return problem(
                "scale",
                format!("must be [worst, best] with worst < best, got `[{low}, {high}]`"),
            );
        }
        if !self.template.contains("completion") {
            return problem("template", "must show the judge `{{ completion }}`".into());
        }
        if self.votes == 0 {
            return problem("votes", "must be at least 1".into());
        }
        let model = self.asking().checked("")?;
        if self.votes > 1 && self.temperature == 0.0 {
            return problem(
                "temperature",
                "must be > 0 where `votes` is more than 1: greedy votes are equal".into(),
            );
        }
        Ok(model)
    }

    /// How the judge is asked.
    pub fn asking(&self) -> Asking {
        Asking {
            model: self.model.clone(),
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
        }
    }
}
