//! A manifest beside what its component says of itself.

use std::collections::BTreeSet;

use fthost_sandbox::RoleKind;
use semver::Version;

use crate::error::{RegistryError, Result};
use crate::manifest::Manifest;

impl Manifest {
    /// Whether the component of the package in `place`, which says that it is `name` in `version` and plays `roles`, is the
    /// one that the manifest tells of: the same version, the same name (but for the publisher's), the same roles.
    ///
    /// # Errors
    /// [`RegistryError::Described`] with everything in which they differ.
    pub fn as_described(&self, place: &str, name: &str, version: &str, roles: &[RoleKind]) -> Result<()> {
        let mut problems = Vec::new();
        if self.name.last() != name {
            problems.push(format!("`name` is `{}`, the component's own is `{name}`", self.name));
        }
        // The manifest's has no build metadata.
        let said = version.parse::<Version>().ok().map(|it| Version { build: Default::default(), ..it });
        if said.as_ref() != Some(&self.version) {
            problems.push(format!("`version` is {}, the component's own is {version}", self.version));
        }
        let set = |roles: &[RoleKind]| roles.iter().copied().collect::<BTreeSet<_>>();
        if set(&self.roles) != set(roles) {
            let told = |it: &[RoleKind]| it.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
            problems.push(format!(
                "`roles` are {}, the component exports {}",
                told(&self.roles),
                told(roles)
            ));
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(RegistryError::Described { place: place.to_string(), problems }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_told() {
        let manifest = Manifest::parse(
            "name = \"team/words\"\nversion = \"0.2.0\"\nroles = [\"reward\", \"evaluator\"]\nlicense = \"MIT\"\n\
             description = \"Counts words\"\ncontract = \"0.2\"\n",
        )
        .unwrap();
        let both = [RoleKind::Evaluator, RoleKind::Reward];
        assert!(manifest.as_described("words", "words", "0.2.0+linux", &both).is_ok());
        let error = manifest.as_described("words", "letters", "0.1.0", &both[1..]).unwrap_err();
        insta::assert_snapshot!(error, @r"
        `words`: manifest and component disagree
          `name` is `team/words`, the component's own is `letters`
          `version` is 0.2.0, the component's own is 0.1.0
          `roles` are reward, evaluator, the component exports reward
        hint: build the component again, or correct `plugin.toml`
        ");
    }
}
