//! The contract's bindings. Each exported interface has a world of its own, so that a component exports what its
//! `export!` names and no more.
#![allow(missing_docs)]

pub mod host {
    wit_bindgen::generate!({
        inline: "
            package fthost:guest;
            world imports {
                import fthost:plugin/types@1.0.0;
                import fthost:plugin/log@1.0.0;
                import fthost:plugin/random@1.0.0;
                import fthost:plugin/resources@1.0.0;
                import fthost:plugin/generate@1.0.0;
                import fthost:plugin/logprobs@1.0.0;
                import fthost:plugin/embed@1.0.0;
            }
        ",
        path: "../wit",
        generate_all,
    });
}

pub use host::fthost::plugin::types;

macro_rules! interface {
    ($module:ident, $inline:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                inline: $inline,
                path: "../wit",
                with: { "fthost:plugin/types@1.0.0": crate::bindings::types },
                pub_export_macro: true,
            });
        }
    };
}

interface!(about, "package fthost:guest; world only-about { export fthost:plugin/about@1.0.0; }");
interface!(build, "package fthost:guest; world only-build { export fthost:plugin/build@1.0.0; }");
interface!(augment, "package fthost:guest; world only-augment { export fthost:plugin/augment@1.0.0; }");
interface!(score, "package fthost:guest; world only-score { export fthost:plugin/score@1.0.0; }");
interface!(evaluate, "package fthost:guest; world only-evaluate { export fthost:plugin/evaluate@1.0.0; }");
