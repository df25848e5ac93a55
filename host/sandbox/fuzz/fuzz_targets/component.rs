//! Any bytes are a component of the contract or are refused with a reason; what they claim to be never ends the host.
#![no_main]

use std::sync::{Arc, LazyLock};

use fthost_sandbox::{ModelSlot, Sandbox, SandboxConfig};

static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    let (log, model) = (Arc::new(|_: &str, _, _: &str| {}), ModelSlot::default());
    Sandbox::new(SandboxConfig { cache_dir: None, seed: 0, log, model }).expect("a sandbox without a cache")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = SANDBOX.inspect_bytes("fuzzed", bytes) {
        assert!(error.to_string().contains("fuzzed"), "{error}");
    }
});
