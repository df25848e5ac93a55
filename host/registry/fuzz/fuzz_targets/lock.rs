//! Any text is a lock file, and then one as it is written again, or is refused.
#![no_main]

use std::path::Path;

use fthost_registry::Lock;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(lock) = Lock::parse(text, Path::new("plugins.lock")) {
        let again = Lock::parse(&lock.text(), Path::new("plugins.lock")).expect("it was written by us");
        assert_eq!(again.text(), lock.text());
    }
});
