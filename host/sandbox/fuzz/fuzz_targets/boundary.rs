//! Whatever text and columns cross into a guest come back as they were.
#![no_main]

#[path = "../../tests/mirror.rs"]
mod mirror;

use std::cell::RefCell;

thread_local! {
    static MIRROR: RefCell<mirror::Mirror> = RefCell::new(mirror::Mirror::load());
}

libfuzzer_sys::fuzz_target!(|text: &str| MIRROR.with_borrow_mut(|it| it.check(text)));
