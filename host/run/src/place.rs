//! Where this program keeps what it can make again.

use std::path::PathBuf;

/// `fthost` in the user's cache folder (`XDG_CACHE_HOME`, else `.cache` of the home), or in the folder for temporary
/// files where there is no home.
pub fn cache_dir() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let home = || std::env::home_dir().map(|it| it.join(".cache"));
    absolute("XDG_CACHE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir).join("fthost")
}
