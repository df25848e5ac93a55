//! `phi3`: Phi 3, 3.5 and 4, and Phi 4 mini.

use serde_json::Value as Json;

use super::super::keys::Keys;
use super::common::{self, Class};
use super::{Architecture, Out};
use crate::models::DecoderConfig;
use crate::nn::RopeScaling;

pub(super) const PHI3: Architecture =
    Architecture { name: "phi3", reordered: false, classes: &["Phi3ForCausalLM"], read, write };

fn write(config: &DecoderConfig, out: &mut Out) {
    common::write(config, out, |_| true);
    // llama.cpp's loader asks for both, and takes 0 for none.
    if config.layers.iter().all(|it| it.window.is_none()) {
        out.size("attention.sliding_window", 0);
    }
    if !config
        .ropes
        .iter()
        .any(|it| matches!(it.scaling, RopeScaling::Longrope { .. } | RopeScaling::Yarn(_)))
    {
        out.size("rope.scaling.original_context_length", config.max_position_embeddings);
    }
}

fn read(keys: &mut Keys<'_>) -> Json {
    let (mut config, sizes) = common::read(keys, &Class { class: "Phi3ForCausalLM", model_type: "phi3" });
    // transformers has it beside the scaling, not in it.
    if let Some(scaling) = config["rope_scaling"].as_object_mut() {
        let original = scaling.shift_remove("original_max_position_embeddings");
        config["original_max_position_embeddings"] = original.into();
    }
    config["partial_rotary_factor"] = share(sizes.rotary, sizes.head_dim).into();
    common::one_window(keys, sizes.layers, &mut config);
    config
}

/// The share of a head that is rotated: what gives `rotary` again when it is multiplied and cut.
fn share(rotary: usize, head_dim: usize) -> f64 {
    let share = rotary as f64 / head_dim.max(1) as f64;
    if (head_dim as f64 * share) as usize == rotary { share } else { share.next_up() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_gives_the_width_it_is_of() {
        for head_dim in (2..=512).step_by(2) {
            for rotary in (2..=head_dim).step_by(2) {
                let share = share(rotary, head_dim);
                assert_eq!((head_dim as f64 * share) as usize, rotary, "{rotary} of {head_dim}");
            }
        }
    }
}
