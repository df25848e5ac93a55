//! Any text is a manifest or is refused with a reason.
#![no_main]

use fthost_registry::Manifest;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(problems) = Manifest::parse(text) {
        assert!(!problems.is_empty());
    }
});
