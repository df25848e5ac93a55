//! The contract's bindings: the one place where they are generated.
//!
//! Imports are bound once; each role's world maps its imports to them.
#![allow(missing_docs)]

/// Everything the host offers. A component may import less.
pub(crate) mod imports {
    wasmtime::component::bindgen!({
        inline: "
            package fthost:host;
            world imports {
                import fthost:plugin/log@0.1.0;
                import fthost:plugin/random@0.1.0;
                import fthost:plugin/generate@0.1.0;
                import fthost:plugin/logprobs@0.1.0;
            }
        ",
        path: "../../wit",
        imports: { default: trappable },
    });
}

pub(crate) use imports::fthost::plugin::types;

/// The bindings of one world, over the shared imports.
macro_rules! world {
    ($module:ident, $world:literal) => {
        pub(crate) mod $module {
            wasmtime::component::bindgen!({
                world: $world,
                path: "../../wit",
                imports: { default: trappable },
                with: {
                    "fthost:plugin/types": crate::wit::imports::fthost::plugin::types,
                    "fthost:plugin/log": crate::wit::imports::fthost::plugin::log,
                    "fthost:plugin/random": crate::wit::imports::fthost::plugin::random,
                },
            });
        }
    };
}

world!(plugin, "fthost:plugin/plugin");
world!(data_builder, "fthost:plugin/data-builder");
world!(augmenter, "fthost:plugin/augmenter");
world!(reward, "fthost:plugin/reward");
world!(evaluator, "fthost:plugin/evaluator");
