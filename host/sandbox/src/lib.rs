//! Plugins as sandboxed WebAssembly components.
