//! Packages for people who ask for them by name.

use semver::{Version, VersionReq};

use crate::error::{RegistryError, Release, Result};
use crate::key::PublicKey;
use crate::lockfile::Lock;
use crate::name::PackageName;
use crate::package::Package;
use crate::place::Place;
use crate::resolve::Resolver;
use crate::signature::Envelope;
use crate::store::Stored;
use crate::trust::TrustPolicy;

/// The highest version of `name` at `place` that satisfies `requirement`.
///
/// # Errors
/// A place that can't be asked; no such version.
pub fn highest(place: &Place, name: &PackageName, requirement: &VersionReq) -> Result<Version> {
    let versions = place.versions(name)?;
    let chosen = versions.iter().filter(|it| requirement.matches(it)).max().cloned();
    chosen.ok_or_else(|| RegistryError::NoVersion {
        name: name.to_string(),
        requirements: vec![format!("`{requirement}`")],
        place: place.to_string(),
        available: versions.iter().map(ToString::to_string).collect(),
    })
}

/// Pulls a package for somebody who asks for it by name.
///
/// # Errors
/// As [`crate::resolve`]; [`RegistryError::Downgrade`] where `resolver`'s lock file pins a higher version, unless
/// `allow_downgrade`.
pub fn pull(
    resolver: &Resolver,
    place: &Place,
    name: &PackageName,
    requirement: &VersionReq,
    allow_downgrade: bool,
) -> Result<(Stored, Vec<PublicKey>)> {
    let version = highest(place, name, requirement)?;
    let lock = Lock::read(&resolver.lock_path)?.unwrap_or_default();
    let pin = lock.plugin(name.as_str()).or_else(|| lock.set(name.as_str()));
    let pinned = pin.and_then(|it| it.version.as_ref()).filter(|it| version < **it && !allow_downgrade);
    if let Some(pinned) = pinned {
        return Err(RegistryError::Downgrade {
            name: name.to_string(),
            offered: version.to_string(),
            pinned: pinned.to_string(),
            lock: resolver.lock_path.clone(),
        });
    }
    let same = pin.filter(|it| it.version.as_ref() == Some(&version)).and_then(|it| it.package.as_deref());
    let stored = resolver.pull(place, &place.to_string(), name, &version, same)?;
    let signers = resolver.trust.check(&stored.package, stored.envelope.as_ref())?;
    resolver.check_signer(&stored.package, pin, &signers)?;
    Ok((stored, signers))
}

/// Reads a signature against a policy and, where given, one key: for `plugin verify`.
///
/// # Errors
/// A signature that is wrong, is missing or is not allowed.
pub fn verify(
    trust: &TrustPolicy,
    package: &Package,
    envelope: Option<&Envelope>,
    key: Option<&PublicKey>,
) -> Result<Vec<PublicKey>> {
    let signers = trust.check(package, envelope)?;
    let problem = match key {
        _ if signers.is_empty() => "there is none".to_string(),
        Some(key) if !signers.contains(key) => format!("{key} did not sign this"),
        _ => return Ok(signers),
    };
    Err(RegistryError::Signature { release: Release::of(package), problem })
}
