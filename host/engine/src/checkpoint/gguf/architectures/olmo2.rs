//! `olmo2`: OLMo 2. llama.cpp stores OLMo 3 under the same name, with a window: it is refused.

use serde_json::Value as Json;

use super::super::keys::Keys;
use super::Architecture;
use super::common::{self, Class};

pub(super) const OLMO2: Architecture = Architecture {
    name: "olmo2",
    reordered: false,
    classes: &["Olmo2ForCausalLM"],
    read,
    write: |config, out| common::write(config, out, |_| true),
};

fn read(keys: &mut Keys<'_>) -> Json {
    let (mut config, sizes) = common::read(keys, &Class { class: "Olmo2ForCausalLM", model_type: "olmo2" });
    common::whole_heads(keys, &sizes);
    config["attention_bias"] = common::biases(keys)[0].into();
    config
}
