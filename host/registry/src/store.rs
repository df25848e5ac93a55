//! Pulled packages, kept by digest.
//!
//! `<root>/packages/<hex of the package's digest>/` holds the files as they were published, `plugin.sig` where the
//! package is signed. Beside it `<hex>.origin` says where it came from. Everything else is read from the packages: there
//! is no index that could disagree with them. Each is hashed again whenever it is used.

use std::path::{Path, PathBuf};

use semver::{Version, VersionReq};

use crate::error::{RegistryError, Result, io};
use crate::name::PackageName;
use crate::package::{MOST_FILE_BYTES, Package, SIGNATURE};
use crate::signature::{Envelope, MOST_SIGNATURE_BYTES};

/// Packages under one folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A package of the store, hashed and found whole.
#[derive(Debug, Clone)]
pub struct Stored {
    folder: PathBuf,
    /// The package.
    pub package: Package,
    /// Its signature, as published; whether it is good was not asked.
    pub envelope: Option<Envelope>,
    /// `sha256:<hex>`.
    pub digest: String,
    /// Where it came from.
    pub source: String,
}

impl Stored {
    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its component is; a set has none.
    pub fn component(&self) -> Option<PathBuf> {
        self.package.component().map(|it| self.folder.join(it.0))
    }
}

impl Store {
    /// Packages in `cache`, the program's cache folder.
    pub fn in_cache(cache: &Path) -> Self {
        Self { root: cache.join("packages") }
    }

    /// Where packages are kept.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self, digest: &str) -> PathBuf {
        self.root.join(digest.trim_start_matches("sha256:"))
    }

    fn origin(&self, digest: &str) -> PathBuf {
        self.folder(digest).with_extension("origin")
    }

    /// Keeps a package; one that is kept already stays, with the newer signature.
    ///
    /// # Errors
    /// Files that can't be written.
    pub fn keep(&self, package: &Package, envelope: Option<&Envelope>, source: &str) -> Result<Stored> {
        let digest = package.digest();
        let folder = self.folder(&digest);
        let bytes = envelope.map(Envelope::bytes);
        match self.get(&digest) {
            Ok(Some(_)) => {
                if let Some(bytes) = &bytes {
                    write_whole(&folder.join(SIGNATURE), bytes)?;
                }
            }
            damaged => {
                // What was changed on disk gives way to what was just pulled.
                if damaged.is_err() {
                    std::fs::remove_dir_all(&folder).map_err(io("remove", &folder))?;
                }
                package.write(&folder, bytes.as_deref())?;
            }
        }
        write_whole(&self.origin(&digest), source.as_bytes())?;
        self.get(&digest)?.ok_or_else(|| RegistryError::NotPulled {
            name: package.name.to_string(),
            hint: "something removed it while it was written; try again".into(),
        })
    }

    /// The package of this digest, every file of it hashed.
    ///
    /// # Errors
    /// A package that was changed on disk.
    pub fn get(&self, digest: &str) -> Result<Option<Stored>> {
        let folder = self.folder(digest);
        if !fthost_data::digest::is_sha256(digest) || !folder.is_dir() {
            return Ok(None);
        }
        let (package, envelope) = read_signed(&folder)?;
        let found = package.digest();
        if found != digest {
            return Err(RegistryError::Changed {
                what: format!("`{}` {}", package.name, package.version),
                place: folder.display().to_string(),
                expected: digest.to_string(),
                found,
            });
        }
        let source = std::fs::read_to_string(self.origin(digest)).unwrap_or_default();
        Ok(Some(Stored { folder, package, envelope, digest: found, source }))
    }

    /// Every package, by name and version; what can't be read is told by its folder.
    ///
    /// # Errors
    /// A folder that can't be read.
    pub fn list(&self) -> Result<Vec<std::result::Result<Stored, RegistryError>>> {
        let mut all = Vec::new();
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(all),
            entries => entries.map_err(io("read", &self.root))?,
        };
        for entry in entries {
            let name = entry.map_err(io("read", &self.root))?.file_name().to_string_lossy().into_owned();
            all.extend(self.get(&format!("sha256:{name}")).transpose());
        }
        let key = |it: &std::result::Result<Stored, RegistryError>| {
            let it = it.as_ref().ok()?;
            Some((it.package.name.clone(), it.package.version.clone(), it.digest.clone()))
        };
        all.sort_by_key(key);
        Ok(all)
    }

    /// The highest version of `name` that satisfies `requirement`.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub fn newest(&self, name: &PackageName, requirement: &VersionReq) -> Result<Option<Stored>> {
        let fits = |it: &Stored| it.package.name == *name && requirement.matches(&it.package.version);
        Ok(self.list()?.into_iter().flatten().rfind(fits))
    }

    /// Removes `name`, all versions or one; what was removed.
    ///
    /// # Errors
    /// Nothing of this name, and files that can't be removed.
    pub fn remove(&self, name: &PackageName, version: Option<&Version>) -> Result<Vec<Stored>> {
        let meant =
            |it: &Stored| it.package.name == *name && version.is_none_or(|at| *at == it.package.version);
        let found: Vec<Stored> = self.list()?.into_iter().flatten().filter(meant).collect();
        if found.is_empty() {
            let version = version.map_or(String::new(), |it| format!(" {it}"));
            let hint = "`fthost plugin list` names them".to_string();
            return Err(RegistryError::NotPulled { name: format!("{name}{version}"), hint });
        }
        for it in &found {
            // Renamed first: what is half removed is not found.
            let gone = self.root.join(format!(".removed-{}", it.digest.trim_start_matches("sha256:")));
            std::fs::rename(&it.folder, &gone).map_err(io("remove", &it.folder))?;
            std::fs::remove_dir_all(&gone).map_err(io("remove", &gone))?;
            let _ = std::fs::remove_file(self.origin(&it.digest));
        }
        Ok(found)
    }
}

/// The package in `folder` and the signature beside its files.
pub(crate) fn read_signed(folder: &Path) -> Result<(Package, Option<Envelope>)> {
    let package = Package::unpacked(folder)?;
    let envelope = read_signature(folder, &package)?;
    Ok((package, envelope))
}

/// `plugin.sig` in `folder`.
pub(crate) fn read_signature(folder: &Path, package: &Package) -> Result<Option<Envelope>> {
    const { assert!(MOST_SIGNATURE_BYTES <= MOST_FILE_BYTES) };
    let path = folder.join(SIGNATURE);
    if !path.exists() {
        return Ok(None);
    }
    Envelope::parse(&crate::package::read_file(&path)?, package).map(Some)
}

/// Writes a file beside itself, then renames it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(io("write", path))?;
    std::io::Write::write_all(&mut temporary, bytes).map_err(io("write", path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(temporary.path(), open).map_err(io("write", path))?;
    }
    temporary.persist(path).map_err(|error| io("write", path)(error.error))?;
    Ok(())
}
