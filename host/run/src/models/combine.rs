//! Adapters of one base as one adapter.

use std::path::Path;

use fthost_engine::adapters::combine;
pub use fthost_engine::adapters::combine::{Combination, MajoritySign, Weighted};
use fthost_engine::checkpoint::StoredDtype;

use super::folder::write_folder;
use crate::adapter_base;
use crate::error::{Result, RunError};

/// How adapters are combined, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// See [`Combination::Linear`].
    Linear,
    /// See [`Combination::Cat`].
    Cat,
    /// See [`Combination::Ties`].
    Ties,
    /// See [`Combination::DareLinear`].
    DareLinear,
    /// See [`Combination::DareTies`].
    DareTies,
    /// See [`Combination::Slerp`].
    Slerp,
}

/// What the methods ask for besides weights, where it was given.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MethodOptions {
    /// Share of the values that is kept; 0.5 if absent.
    pub density: Option<f64>,
    /// How signs are elected; by their sum if absent.
    pub majority_sign: Option<MajoritySign>,
    /// Decides every draw; 0 if absent.
    pub seed: Option<u64>,
    /// Where between two adapters; 0.5 if absent.
    pub t: Option<f64>,
}

impl MethodOptions {
    /// The options of `method`.
    ///
    /// # Errors
    /// An option that was given and is of other methods.
    pub fn of(self, method: Method) -> Result<Combination> {
        let density = self.density.unwrap_or(0.5);
        let majority_sign = self.majority_sign.unwrap_or_default();
        let seed = self.seed.unwrap_or(0);
        let combination = match method {
            Method::Linear => Combination::Linear,
            Method::Cat => Combination::Cat,
            Method::Ties => Combination::Ties { density, majority_sign },
            Method::DareLinear => Combination::DareLinear { density, seed },
            Method::DareTies => Combination::DareTies { density, majority_sign, seed },
            Method::Slerp => Combination::Slerp { t: self.t.unwrap_or(0.5) },
        };
        let (ties, dare) = (
            matches!(combination, Combination::Ties { .. } | Combination::DareTies { .. }),
            matches!(combination, Combination::DareLinear { .. } | Combination::DareTies { .. }),
        );
        let slerp = matches!(combination, Combination::Slerp { .. });
        let given = [
            ("--density", self.density.is_some(), ties || dare, "ties, dare_linear, dare_ties"),
            ("--majority-sign", self.majority_sign.is_some(), ties, "ties, dare_ties"),
            ("--seed", self.seed.is_some(), dare, "dare_linear, dare_ties"),
            ("--t", self.t.is_some(), slerp, "slerp"),
        ];
        match given.into_iter().find(|it| it.1 && !it.2) {
            Some((option, _, _, of)) => {
                Err(RunError::OptionOfOthers { option, method: combination.name(), of })
            }
            None => Ok(combination),
        }
    }
}

/// Writes the `adapters`, combined, as the PEFT folder `out`, its weights as `dtype`. `base` is as of the engine's
/// [`combine::combine`].
///
/// # Errors
/// Adapters that can't be read or combined; `out` is there and `force` is not given.
pub fn combine(
    adapters: &[Weighted],
    combination: &Combination,
    base: Option<&str>,
    out: &Path,
    dtype: StoredDtype,
    force: bool,
) -> Result<()> {
    write_folder(out, force, |folder| {
        combine::combine(adapters, combination, base)?.save(folder, dtype)?;
        adapter_base::hand_on(adapters.iter().map(|it| it.folder.as_path()), folder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_of_another_method_is_refused_and_one_left_out_has_its_default() {
        let options = MethodOptions { seed: Some(3), ..MethodOptions::default() };
        assert_eq!(
            options.of(Method::DareLinear).unwrap(),
            Combination::DareLinear { density: 0.5, seed: 3 }
        );
        let refused = options.of(Method::Ties).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert_eq!(
            refused.to_string(),
            "`--seed` is no option of `ties`\nhint: it goes with dare_linear, dare_ties"
        );
        assert_eq!(MethodOptions::default().of(Method::Slerp).unwrap(), Combination::Slerp { t: 0.5 });
        for method in [Method::Linear, Method::Cat, Method::DareLinear, Method::DareTies, Method::Ties] {
            assert!(MethodOptions { t: Some(0.1), ..MethodOptions::default() }.of(method).is_err());
        }
    }
}
