//! From the plugins that a run wants to files that may be loaded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fthost_data::digest::sha256;
use semver::{Version, VersionReq};

use crate::error::{RegistryError, Release, Result, io};
use crate::key::PublicKey;
use crate::lockfile::{Lock, Pin};
use crate::name::PackageName;
use crate::package::{Kind, Package};
use crate::place::Place;
use crate::pull::highest;
use crate::resolution::{Resolution, Resolved};
use crate::store::{Store, Stored};
use crate::trust::TrustPolicy;

/// A plugin as the run file (with its sets) asks for it.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The key of its table, which is the package's name.
    pub name: String,
    /// Versions that will do, as in `^0.1`; any if absent.
    pub version: Option<String>,
    /// Where the package comes from.
    pub source: Option<String>,
    /// Where the search path, or `component`, has it; used where there is no `source`.
    pub component: Option<PathBuf>,
}

/// What may come of a lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What is pinned and fits is taken, the rest is resolved and pinned.
    Keep,
    /// `--locked`: what is pinned, nothing else.
    Locked,
    /// Everything is resolved anew.
    Update,
}

/// What resolution looks at.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// Pulled packages.
    pub store: Store,
    /// Who may publish what.
    pub trust: TrustPolicy,
    /// The lock file; it need not exist.
    pub lock_path: PathBuf,
    /// The folder from which relative sources are meant: the run file's.
    pub base: PathBuf,
    /// What may come of the lock file.
    pub mode: Mode,
}

/// From the plugins that a run wants to files that may be loaded: the one call that a run makes.
///
/// `sets` are the pulled sets that the run file stands on ([`crate::Sets::used`]).
///
/// # Errors
/// With [`Mode::Locked`] everything that is not as locked, at once. Else the first plugin that has no version that will
/// do, or whose package is not what it is said to be, or whose publisher may not publish it.
pub fn resolve(resolver: &Resolver, wanted: &[Wanted], sets: &[Pin]) -> Result<Resolution> {
    let before = Lock::read(&resolver.lock_path)?;
    let lock = before.clone().unwrap_or_default();
    if resolver.mode == Mode::Locked {
        resolver.check_locked(before.as_ref(), wanted, sets)?;
    }
    let mut plugins = Vec::new();
    for it in wanted {
        plugins.push(resolver.one(it, &lock)?);
    }
    let pins = plugins.iter().map(|it| it.pin.clone()).collect();
    let now = Lock::new(pins, sets.to_vec());
    Ok(Resolution { plugins, lock: now, before, path: resolver.lock_path.clone() })
}

impl Wanted {
    fn package(&self) -> Result<PackageName> {
        self.name.parse().map_err(|error: crate::name::NameError| self.refused(error.to_string()))
    }

    fn requirement(&self) -> Result<VersionReq> {
        let text = self.version.as_deref().unwrap_or("*");
        VersionReq::parse(text).map_err(|error| {
            self.refused(format!(
                "`plugins.{}.version` = `{text}` is no version requirement: {error}",
                self.name
            ))
        })
    }

    fn refused(&self, problem: String) -> RegistryError {
        RegistryError::Manifest { place: format!("plugins.{}", self.name), problems: vec![problem] }
    }

    /// Whether `pin` is of what is asked for.
    fn fits(
        &self,
        pin: &Pin,
        requirement: &VersionReq,
        source: Option<&str>,
    ) -> std::result::Result<(), String> {
        let name = &self.name;
        if source.is_some() && pin.source.as_deref() != source {
            let pinned = pin.source.as_deref().unwrap_or("a component in no package");
            return Err(format!(
                "`{name}` comes from `{}`, but {pinned} is pinned",
                source.unwrap_or_default()
            ));
        }
        if pin.version.is_some() && !pin.satisfies(requirement) {
            let version = pin.version.as_ref().map_or(String::new(), ToString::to_string);
            return Err(format!("`{name}` must satisfy `{requirement}`, but {version} is pinned"));
        }
        Ok(())
    }
}

impl Resolver {
    fn check_locked(&self, lock: Option<&Lock>, wanted: &[Wanted], sets: &[Pin]) -> Result<()> {
        let mut problems = Vec::new();
        if lock.is_none() && !(wanted.is_empty() && sets.is_empty()) {
            problems.push("there is no such file".to_string());
        }
        for it in wanted.iter().filter(|_| lock.is_some()) {
            let name = &it.name;
            match lock.and_then(|lock| lock.plugin(name)) {
                None => problems.push(format!("`{name}` is not in it")),
                Some(pin) => problems.extend(it.fits(pin, &it.requirement()?, it.source.as_deref()).err()),
            }
        }
        for it in sets.iter().filter(|_| lock.is_some()) {
            match lock.and_then(|lock| lock.set(&it.name)) {
                None => problems.push(format!("the set `{}` is not in it", it.name)),
                Some(pin) if pin.package != it.package => {
                    problems.push(format!("the set `{}` has another digest than the pinned one", it.name));
                }
                Some(_) => {}
            }
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(RegistryError::Locked { path: self.lock_path.clone(), problems }),
        }
    }

    fn one(&self, wanted: &Wanted, lock: &Lock) -> Result<Resolved> {
        let requirement = wanted.requirement()?;
        let pin = lock.plugin(&wanted.name);
        let kept = pin.filter(|it| {
            self.mode != Mode::Update && wanted.fits(it, &requirement, wanted.source.as_deref()).is_ok()
        });
        if let (None, Some(component)) = (&wanted.source, &wanted.component) {
            return self.own_component(wanted, component, kept);
        }
        let name = wanted.package()?;
        // Without a source of its own a pinned package comes from where it came from.
        let source = wanted.source.clone().or_else(|| kept.and_then(|it| it.source.clone()));
        let stored = match &source {
            Some(source) => self.at_place(source, &name, &requirement, pin, kept)?,
            None => self.store.newest(&name, &requirement)?.ok_or_else(|| RegistryError::NotPulled {
                name: name.to_string(),
                hint: format!(
                    "say where it comes from (`plugins.{name}.source`), or `fthost plugin pull` it"
                ),
            })?,
        };
        self.check_pin(&stored, kept)?;
        let signers = self.trust.check(&stored.package, stored.envelope.as_ref())?;
        self.check_signer(&stored.package, pin, &signers)?;
        let source = source.unwrap_or_else(|| stored.source.clone());
        self.resolved(wanted, &stored, &source, signers)
    }

    /// A package from where it is published, or from the store where the pinned one is there already.
    fn at_place(
        &self,
        source: &str,
        name: &PackageName,
        requirement: &VersionReq,
        pin: Option<&Pin>,
        kept: Option<&Pin>,
    ) -> Result<Stored> {
        let place = &Place::parse(source, &self.base)?;
        let pinned = |it: &Pin| it.version.clone().zip(it.package.clone());
        if let Some((version, digest)) = kept.and_then(pinned) {
            return match self.store.get(&digest)? {
                Some(stored) => Ok(stored),
                None => self.pull(place, source, name, &version, Some(&digest)),
            };
        }
        let version = highest(place, name, requirement)?;
        let same_place = pin.filter(|it| it.source.as_deref() == Some(source)).and_then(pinned);
        if let Some((pinned, digest)) = same_place {
            if version < pinned && requirement.matches(&pinned) {
                return Err(RegistryError::Downgrade {
                    name: name.to_string(),
                    offered: version.to_string(),
                    pinned: pinned.to_string(),
                    lock: self.lock_path.clone(),
                });
            }
            // Published versions don't change.
            let digest = (version == pinned).then_some(digest);
            return self.pull(place, source, name, &version, digest.as_deref());
        }
        self.pull(place, source, name, &version, None)
    }

    pub(crate) fn pull(
        &self,
        place: &Place,
        source: &str,
        name: &PackageName,
        version: &Version,
        expected: Option<&str>,
    ) -> Result<Stored> {
        let fetched = place.fetch(name, version)?;
        let found = fetched.package.digest();
        if let Some(expected) = expected.filter(|it| **it != found) {
            return Err(RegistryError::Changed {
                what: format!("`{name}` {version}"),
                place: place.to_string(),
                expected: expected.to_string(),
                found,
            });
        }
        // Nothing that may not be used is kept.
        self.trust.check(&fetched.package, fetched.envelope.as_ref())?;
        self.store.keep(&fetched.package, fetched.envelope.as_ref(), source)
    }

    /// A pin whose parts are of different packages was not written by us.
    fn check_pin(&self, stored: &Stored, pin: Option<&Pin>) -> Result<()> {
        let Some(pin) = pin.filter(|it| it.package.is_some()) else { return Ok(()) };
        let package = &stored.package;
        let component = package.component_digest();
        let problem = match () {
            () if pin.name != package.name.as_str() || pin.version.as_ref() != Some(&package.version) => {
                format!("`package` is the digest of `{}` {}", package.name, package.version)
            }
            () if pin.component != component => {
                let component = component.unwrap_or_default();
                format!("`component` is not the component of `package`, which is {component}")
            }
            () => return Ok(()),
        };
        let version = pin.version.as_ref().map_or(String::new(), ToString::to_string);
        let problems = vec![format!("`{}` {version}: {problem}", pin.name)];
        Err(RegistryError::Lock { path: self.lock_path.clone(), problems })
    }

    pub(crate) fn check_signer(
        &self,
        package: &Package,
        pin: Option<&Pin>,
        signers: &[PublicKey],
    ) -> Result<()> {
        let pinned = pin.and_then(|it| it.signer);
        match pinned.filter(|it| !signers.contains(it)) {
            None => Ok(()),
            Some(pinned) => Err(RegistryError::SignerChanged {
                release: Release::of(package),
                found: signers.first().map_or("nobody".to_string(), ToString::to_string),
                pinned: pinned.to_string(),
                lock: self.lock_path.clone(),
            }),
        }
    }

    fn own_component(
        &self,
        wanted: &Wanted,
        component: &std::path::Path,
        kept: Option<&Pin>,
    ) -> Result<Resolved> {
        self.trust.check_unpackaged(&wanted.name)?;
        let digest = sha256(&std::fs::read(component).map_err(io("read", component))?);
        let pinned = kept.and_then(|it| it.component.clone()).filter(|_| self.mode == Mode::Locked);
        if let Some(expected) = pinned.filter(|it| *it != digest) {
            return Err(RegistryError::Locked {
                path: self.lock_path.clone(),
                problems: vec![format!(
                    "`{}`: `{}` has digest {digest}, but {expected} is pinned",
                    wanted.name,
                    component.display()
                )],
            });
        }
        Ok(Resolved {
            name: wanted.name.clone(),
            component: component.to_path_buf(),
            digest: digest.clone(),
            resources: BTreeMap::new(),
            pin: Pin::of_component(&wanted.name, digest),
            signers: Vec::new(),
        })
    }

    fn resolved(
        &self,
        wanted: &Wanted,
        stored: &Stored,
        source: &str,
        signers: Vec<PublicKey>,
    ) -> Result<Resolved> {
        let place = || stored.folder().display().to_string();
        let (Some(component), Some(digest), Kind::Plugin(manifest)) =
            (stored.component(), stored.package.component_digest(), &stored.package.kind)
        else {
            return Err(RegistryError::Package {
                place: place(),
                problem: "it is a set, not a plugin".into(),
            });
        };
        let file = |path: &String| {
            let bytes = stored.package.files.get(path).map_or(&[][..], |it| it);
            (stored.folder().join(path), sha256(bytes))
        };
        let resources = manifest.resources.iter().map(|(name, path)| (name.clone(), file(path))).collect();
        let pin = Pin::of(&stored.package, source, &signers);
        Ok(Resolved { name: wanted.name.clone(), component, digest, resources, pin, signers })
    }
}
