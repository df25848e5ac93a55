//! (IA)^3: <https://arxiv.org/abs/2205.05638>, as PEFT has it. See [`crate::nn::ia3`].

use serde::{Deserialize, Serialize};

use super::config::check;
use super::experts::Place;
use super::lora::no_target;
use super::saved;
use super::target::{Ends, TargetModules};
use crate::error::{EngineError, Result};
use crate::models::{CausalLm, DecoderConfig};
use crate::nn::Ia3;

/// `[adapter.ia3]` of a run file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ia3Config {
    /// Which linears; those of keys and values (with those of queries, where they are one) and the last of the feed-forward
    /// layer where absent, as in the paper. PEFT has defaults of its own for some families.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<TargetModules>,
    /// Which of them have their input multiplied, not their output; the last of the feed-forward layer, if it is one of
    /// them, where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedforward_modules: Option<TargetModules>,
    /// Modules that are trained whole and saved with the adapter, by the ends of their paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
}

impl Ia3Config {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let (Some(TargetModules::Names(targets)), Some(TargetModules::Names(before))) =
            (&self.target_modules, &self.feedforward_modules)
        else {
            return Vec::new();
        };
        let outside = before.iter().filter(|it| !targets.contains(it));
        outside
            .map(|it| format!("`feedforward_modules` has `{it}`, which is not in `target_modules`"))
            .collect()
    }

    /// With the names that are meant where there are none, for models of `config`.
    pub fn of_model(&self, config: &DecoderConfig) -> Self {
        let names = config.names;
        let last = |name: &&str| name.rsplit_once('.').map_or(*name, |it| it.1).to_string();
        let attention = names.qkv.iter().skip(if names.qkv.len() == 3 { 1 } else { 0 });
        // Below a block, since the last part alone may be that of another linear, as GPT-2's is.
        let down = || names.down.to_string();
        let targets = || TargetModules::Names(attention.map(last).chain([down()]).collect());
        let target_modules = self.target_modules.clone().unwrap_or_else(targets);
        let before = || match &target_modules {
            // Of the linears that are named, in the words they are named in.
            TargetModules::Names(names) => {
                let of_down = names.iter().filter(|it| down().ends_with(it.as_str()));
                TargetModules::Names(of_down.cloned().collect())
            }
            TargetModules::Pattern(_) => TargetModules::Names(vec![down()]),
        };
        Self {
            feedforward_modules: Some(self.feedforward_modules.clone().unwrap_or_else(before)),
            target_modules: Some(target_modules),
            modules_to_save: self.modules_to_save.clone(),
        }
    }
}

/// Puts factors of one on the linears that `config` names.
///
/// # Errors
/// Impossible values, experts of a mixture, and names that match nothing.
pub fn attach_ia3(model: &mut CausalLm, config: &Ia3Config) -> Result<()> {
    let device = model.device();
    attach_with(model, config, &mut |_, widths, is_feedforward| {
        Ok(Ia3::ones(widths, is_feedforward, &device))
    })
}

/// The vector of the linear at a path, of out and in, on its input or its output.
pub(crate) type Source<'a> = &'a mut dyn FnMut(&str, [usize; 2], bool) -> Result<Ia3>;

/// Puts the vectors that `source` gives on the linears that `config` names.
pub(crate) fn attach_with(model: &mut CausalLm, config: &Ia3Config, source: Source<'_>) -> Result<()> {
    let config = config.of_model(&model.config);
    check("ia3", config.problems())?;
    let targets = config.target_modules.clone().unwrap_or_default();
    let (matches, before) = (targets.matcher()?, Ends::of(config.feedforward_modules.as_ref())?);
    let shape = model.config.clone();
    let blocks = shape.names.blocks;
    let mut found = false;
    for (layer, block) in model.blocks.iter_mut().enumerate() {
        for (name, linear) in block.linears_mut() {
            let path = format!("{blocks}.{layer}.{name}");
            if !matches(&path) {
                continue;
            }
            if Place::of(&shape, &path, 1).is_some() {
                let problem = format!("(IA)^3 is not known on experts of a mixture: `{path}`");
                return Err(EngineError::Invalid { what: "adapter.ia3".into(), problems: vec![problem] });
            }
            linear.ia3 = Some(Box::new(source(&path, linear.weight.dims(), before.matches(&path))?));
            found = true;
        }
    }
    if !found {
        return Err(no_target(model, &targets));
    }
    saved::train_beside(model, "ia3", &config.modules_to_save, false)
}
