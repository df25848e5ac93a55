//! Where packages are shared: OCI registries, and folders.
//!
//! - `oci://host/repository` holds one package, each version under a tag of its own.
//! - `oci://host/prefix/` (and `oci://host`) holds many, each in the repository `prefix/<name>`.
//! - `file:///folder`, or a folder's path, holds many, each in `<name>/<version>/`; a folder with a manifest is that one
//!   package, as its author has it.

use std::fmt;
use std::path::{Path, PathBuf};

use semver::Version;

use crate::error::{RegistryError, Result, io};
use crate::manifest::MANIFEST;
use crate::name::PackageName;
use crate::oci::{Oci, OciPlace};
use crate::package::{Package, SIGNATURE};
use crate::set::SET;
use crate::signature::Envelope;
use crate::store::{read_signature, read_signed, write_whole};

/// A place for packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An OCI registry.
    Oci(OciPlace),
    /// A folder.
    Folder(PathBuf),
}

/// What came from a place.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The package; its bytes are those that its place names by digest.
    pub package: Package,
    /// Its signature, as published.
    pub envelope: Option<Envelope>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The package.
    pub name: String,
    /// Its highest version.
    pub version: String,
    /// Its description.
    pub description: String,
    /// Where to pull it from.
    pub place: String,
}

impl Place {
    /// Reads an address; a relative folder is meant from `base`.
    ///
    /// # Errors
    /// What is no address.
    pub fn parse(text: &str, base: &Path) -> Result<Self> {
        let refuse =
            |problem: &str| RegistryError::Place { given: text.to_string(), problem: problem.to_string() };
        if let Some(address) = text.strip_prefix("oci://") {
            return OciPlace::parse(address).map(Self::Oci).map_err(|problem| refuse(&problem));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return match path.starts_with('/') {
                true => Ok(Self::Folder(PathBuf::from(path))),
                false => Err(refuse("`file://` takes an absolute path, as in `file:///srv/plugins`")),
            };
        }
        match (text.is_empty(), text.contains("://")) {
            (true, _) => Err(refuse("it is empty")),
            (_, true) => Err(refuse("only `oci://` and `file://` are known")),
            _ => Ok(Self::Folder(base.join(text))),
        }
    }

    /// The versions of `name` that are there, lowest first.
    ///
    /// # Errors
    /// A place that can't be asked. A name that is not there has no versions, where the place can tell.
    pub fn versions(&self, name: &PackageName) -> Result<Vec<Version>> {
        let mut versions = match self {
            Self::Oci(place) => Oci::new(place)?.versions(name)?,
            Self::Folder(folder) if is_package(folder) => {
                let package = Package::gather(folder)?;
                if package.name == *name { vec![package.version] } else { Vec::new() }
            }
            Self::Folder(folder) => versions_in(&folder.join(name.as_str()))?,
        };
        versions.sort();
        Ok(versions)
    }

    /// The package `name` at `version`.
    ///
    /// # Errors
    /// A place that does not have it, or whose bytes are not those it names; [`RegistryError::Swapped`] where another
    /// package or version stands in its place.
    pub fn fetch(&self, name: &PackageName, version: &Version) -> Result<Fetched> {
        let (package, envelope, place) = match self {
            Self::Oci(place) => {
                let oci = Oci::new(place)?;
                let (package, envelope) = oci.fetch(name, version)?;
                (package, envelope, oci.address(name, version))
            }
            Self::Folder(folder) if is_package(folder) => {
                let package = Package::gather(folder)?;
                let envelope = read_signature(folder, &package)?;
                (package, envelope, folder.display().to_string())
            }
            Self::Folder(folder) => {
                let folder = folder.join(name.as_str()).join(version.to_string());
                let (package, envelope) = read_signed(&folder)?;
                (package, envelope, folder.display().to_string())
            }
        };
        if (&package.name, &package.version) != (name, version) {
            return Err(RegistryError::Swapped {
                place,
                expected: format!("`{name}` {version}"),
                found: format!("`{}` {}", package.name, package.version),
            });
        }
        Ok(Fetched { package, envelope })
    }

    /// Publishes a package; where it is now. A version that is there with the same files only gains the signature.
    ///
    /// # Errors
    /// [`RegistryError::Published`] where other files have this version, unless `force`; a place that refuses.
    pub fn push(&self, package: &Package, envelope: Option<&Envelope>, force: bool) -> Result<String> {
        let folder = match self {
            Self::Oci(place) => return Oci::new(place)?.push(package, envelope, force),
            Self::Folder(folder) => folder.join(package.name.as_str()).join(package.version.to_string()),
        };
        if is_package(self.root()) {
            return Err(RegistryError::Place {
                given: self.to_string(),
                problem: "it is a package itself".into(),
            });
        }
        let there = if folder.exists() { Some(Package::unpacked(&folder)) } else { None };
        let bytes = envelope.map(Envelope::bytes);
        match there {
            Some(Ok(there)) if there == *package => {
                if let Some(bytes) = bytes {
                    write_whole(&folder.join(SIGNATURE), &bytes)?;
                }
                return Ok(folder.display().to_string());
            }
            Some(_) if !force => return Err(published(package, &folder.display().to_string())),
            Some(_) => std::fs::remove_dir_all(&folder).map_err(io("remove", &folder))?,
            None => {}
        }
        package.write(&folder, bytes.as_deref())?;
        Ok(folder.display().to_string())
    }

    fn root(&self) -> &Path {
        match self {
            Self::Oci(_) => Path::new(""),
            Self::Folder(folder) => folder,
        }
    }

    /// Packages whose name or description holds `term`.
    ///
    /// # Errors
    /// A registry that offers no catalogue, or can't be asked.
    pub fn search(&self, term: &str) -> Result<Vec<Found>> {
        let all = match self {
            Self::Oci(place) => Oci::new(place)?.catalogue()?,
            Self::Folder(folder) => search_folder(folder)?,
        };
        let term = term.to_lowercase();
        let holds = |it: &Found| it.name.contains(&term) || it.description.to_lowercase().contains(&term);
        Ok(all.into_iter().filter(holds).collect())
    }
}

pub(crate) fn published(package: &Package, place: &str) -> RegistryError {
    RegistryError::Published {
        name: package.name.to_string(),
        version: package.version.to_string(),
        place: place.to_string(),
    }
}

fn is_package(folder: &Path) -> bool {
    folder.join(MANIFEST).is_file()
        || folder.join(SET).is_file()
        || folder.extension().is_some_and(|it| it == "toml")
}

fn folders_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io("read", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io("read", folder))?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    names.sort();
    Ok(names)
}

fn versions_in(folder: &Path) -> Result<Vec<Version>> {
    Ok(folders_in(folder)?.iter().filter_map(|it| it.parse().ok()).collect())
}

fn search_folder(root: &Path) -> Result<Vec<Found>> {
    if !root.is_dir() {
        return Err(RegistryError::Place {
            given: root.display().to_string(),
            problem: "there is no such folder".into(),
        });
    }
    let mut found = Vec::new();
    for first in folders_in(root)? {
        let below = folders_in(&root.join(&first))?;
        for name in below.iter().map(|it| format!("{first}/{it}")).chain([first.clone()]) {
            let Ok(name) = name.parse::<PackageName>() else { continue };
            let Some(version) = versions_in(&root.join(name.as_str()))?.into_iter().max() else { continue };
            let package = Package::unpacked(&root.join(name.as_str()).join(version.to_string()))?;
            found.push(Found {
                name: name.to_string(),
                version: version.to_string(),
                description: package.description(),
                place: root.display().to_string(),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oci(place) => write!(f, "{place}"),
            Self::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}
