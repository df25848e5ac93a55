//! What a plugin may ask of the host beyond `log` and `random`.

use serde::{Deserialize, Serialize};

/// `[plugins.<name>.grants]`. Nothing is granted by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// The run's model may be asked for completions.
    pub generate: bool,
    /// The run's model may be asked for log-probabilities.
    pub logprobs: bool,
}

impl Grants {
    /// The run file's line that would grant `import` to `plugin`.
    pub(crate) fn line(plugin: &str, import: &str) -> String {
        format!("`plugins.{plugin}.grants.{import} = true`")
    }
}
