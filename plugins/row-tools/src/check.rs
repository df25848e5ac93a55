//! Values that many configurations have.

use fthost_plugin_sdk::ConfigProblem;

/// A share, in [0, 1].
///
/// # Errors
/// Any other number.
pub fn share(key: &str, value: f64) -> Result<(), ConfigProblem> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(()),
        false => Err(ConfigProblem::new(key, format!("must be in [0, 1], got `{value}`"))),
    }
}

/// A count of at least 1.
///
/// # Errors
/// 0.
pub fn positive(key: &str, value: u32) -> Result<(), ConfigProblem> {
    if value == 0 { Err(ConfigProblem::new(key, "must be at least 1, got `0`")) } else { Ok(()) }
}

/// A template that uses all of `names`.
///
/// # Errors
/// The first name that it lacks.
pub fn uses(key: &str, template: &str, names: &[&str]) -> Result<(), ConfigProblem> {
    match names.iter().find(|it| !template.contains(**it)) {
        None => Ok(()),
        Some(name) => Err(ConfigProblem::new(key, format!("must use `{{{{ {name} }}}}`"))),
    }
}
