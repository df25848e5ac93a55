//! What the modules share: a workshop, and which toolchains there are.

use std::path::{Path, PathBuf};

use fthost_authoring::{Language, Package, RoleKind, Scaffold, Workshop};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// The user's cache folder: toolchains are installed once, not a test.
pub fn cache_dir() -> PathBuf {
    let home = || std::env::home_dir().map(|it| it.join(".cache"));
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    named.or_else(home).unwrap_or_else(std::env::temp_dir).join("fthost")
}

/// A workshop that takes the source tree's SDK and says nothing.
pub fn workshop() -> Workshop<'static> {
    Workshop { tree: Some(root()), cache_dir: cache_dir(), say: &|_| {} }
}

/// A package of a role in a language, in a folder of its own.
pub fn scaffolded(folder: &Path, name: &str, role: RoleKind, language: Language) -> Package {
    let made = Scaffold { name, role, language, parent: folder }.write(&workshop()).unwrap();
    Package::open(&made.folder).unwrap()
}

/// Whether the tools that build `language` are at hand; where not, says loudly that `test` did nothing. With
/// `FTHOST_TEST_TOOLCHAINS=1` they are installed, and a machine on which that fails fails the test.
pub fn at_hand(language: Language, test: &str) -> bool {
    let folder = |name: &str| {
        let toolchains = cache_dir().join("toolchains");
        let entries = std::fs::read_dir(toolchains).into_iter().flatten().flatten();
        let marks = |it: &std::ffi::OsStr| {
            it.to_string_lossy().starts_with(name) && it.to_string_lossy().ends_with(".whole")
        };
        entries.into_iter().any(|it| marks(&it.file_name()))
    };
    let named = |name: &str| std::env::var_os(name).is_some();
    let there = match language {
        Language::Rust => cache_dir().join("wasm-toolchain/env.sh").is_file() || named("FTHOST_WASM_HOME"),
        Language::Python => folder("componentize-py") || named("FTHOST_COMPONENTIZE_PY"),
        Language::Js => folder("componentize-js"),
        Language::C => folder("ziglang") || named("FTHOST_ZIG"),
    };
    let there = there || std::env::var("FTHOST_TEST_TOOLCHAINS").is_ok_and(|it| it == "1");
    if !there {
        eprintln!(
            "SKIPPED: {test}: nothing here builds plugins in {language}. FTHOST_TEST_TOOLCHAINS=1 installs what is needed"
        );
    }
    there
}
