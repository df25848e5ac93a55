//! A package: the files that are published together under one name and version.
//!
//! A package is decided by what it says of itself: a plugin's manifest names its component and resources; README,
//! licence texts and cases go with it, and nothing else does. A plugin set is a package of the one file `set.toml`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path};

use fthost_data::digest::sha256;
use semver::Version;

use crate::error::{RegistryError, Result, io};
use crate::manifest::{MANIFEST, Manifest};
use crate::name::PackageName;
use crate::set::{SET, SetHead};

/// Its name beside the other files; the one file that it does not cover itself.
pub const SIGNATURE: &str = "plugin.sig";

/// Files of a package at most; a registry's manifest names each.
pub const MOST_FILES: usize = 500;
/// Bytes of a file at most. A component of Python code has 18 MB.
pub const MOST_FILE_BYTES: u64 = 128 << 20;
/// Bytes of a package at most.
pub const MOST_BYTES: u64 = 256 << 20;

/// How a component begins: `\0asm`, then the version and layer of components rather than of modules.
const COMPONENT_MAGIC: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// What a package holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A plugin, with its manifest.
    Plugin(Box<Manifest>),
    /// A plugin set.
    Set,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `plugin.toml`.
    Manifest,
    /// The component.
    Component,
    /// `set.toml`.
    Set,
    /// `README.md` and licence texts.
    Text,
    /// `cases/*.jsonl`.
    Case,
    /// What the plugin reads.
    Resource,
}

/// A whole package in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// Plugin or set.
    pub kind: Kind,
    /// Every file, by its path within the package.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Whether `path` leads to a file inside a package on every system: parts that are plain names, none of them hidden.
pub(crate) fn is_sound_path(path: &str) -> bool {
    let sound = |part: &str| {
        let plain = |it: char| it.is_alphanumeric() || "._- +@".contains(it);
        !part.is_empty() && !part.starts_with('.') && !part.ends_with(['.', ' ']) && part.chars().all(plain)
    };
    path.len() <= 200 && path.split('/').count() <= 8 && path.split('/').all(sound)
}

fn is_text(path: &str) -> bool {
    let licence = path.starts_with("LICENSE") || path.starts_with("LICENCE") || path.starts_with("NOTICE");
    path == "README.md" || (licence && !path.contains('/'))
}

fn is_case(path: &str) -> bool {
    path.strip_prefix("cases/").is_some_and(|it| it.ends_with(".jsonl") && !it.contains('/'))
}

impl Package {
    /// A package of files that came from `place`.
    ///
    /// # Errors
    /// A manifest with problems, a file that is missing, and one that has no place in a package.
    pub fn from_files(files: BTreeMap<String, Vec<u8>>, place: &str) -> Result<Self> {
        let refuse = |problem: String| RegistryError::Package { place: place.to_string(), problem };
        check_size(files.values().map(|it| it.len() as u64), place)?;
        let text = |name: &str| {
            let text = files.get(name).map(|it| String::from_utf8(it.clone()));
            text.transpose().map_err(|_| refuse(format!("`{name}` is not UTF-8")))
        };
        let package = match (text(MANIFEST)?, text(SET)?) {
            (Some(manifest), None) => {
                let place = format!("{place}/{MANIFEST}");
                let manifest = Manifest::parse(&manifest)
                    .map_err(|problems| RegistryError::Manifest { place, problems })?;
                let (name, version) = (manifest.name.clone(), manifest.version.clone());
                Self { name, version, kind: Kind::Plugin(Box::new(manifest)), files }
            }
            (None, Some(set)) => {
                let head = SetHead::of_package(&set, place)?;
                Self { name: head.0, version: head.1, kind: Kind::Set, files }
            }
            (None, None) => return Err(refuse(format!("it has neither `{MANIFEST}` nor `{SET}`"))),
            (Some(_), Some(_)) => return Err(refuse(format!("it has both `{MANIFEST}` and `{SET}`"))),
        };
        package.check(place)?;
        Ok(package)
    }

    fn check(&self, place: &str) -> Result<()> {
        let refuse = |problem: String| Err(RegistryError::Package { place: place.to_string(), problem });
        for path in self.files.keys() {
            if !is_sound_path(path) || self.file_kind(path).is_none() {
                return refuse(format!("it has no place for the file `{}`", path.escape_debug()));
            }
        }
        let Kind::Plugin(manifest) = &self.kind else { return Ok(()) };
        for (name, path) in &manifest.resources {
            if !self.files.contains_key(path) {
                return refuse(format!("`resources.\"{name}\"` names `{path}`, which is not there"));
            }
        }
        let component = manifest.component_path();
        match self.files.get(&component) {
            None => refuse(format!("its component `{component}` is not there")),
            Some(bytes) if !bytes.starts_with(&COMPONENT_MAGIC) => {
                refuse(format!("`{component}` is no WebAssembly component"))
            }
            Some(_) => Ok(()),
        }
    }

    /// What the file at `path` is for; `None` if it has no place in this package.
    pub fn file_kind(&self, path: &str) -> Option<FileKind> {
        let Kind::Plugin(manifest) = &self.kind else {
            return (path == SET).then_some(FileKind::Set).or(is_text(path).then_some(FileKind::Text));
        };
        match path {
            MANIFEST => Some(FileKind::Manifest),
            _ if path == manifest.component_path() => Some(FileKind::Component),
            _ if is_text(path) => Some(FileKind::Text),
            _ if is_case(path) => Some(FileKind::Case),
            _ if manifest.resources.values().any(|it| it == path) => Some(FileKind::Resource),
            _ => None,
        }
    }

    /// Path and bytes of the component; `None` for a set.
    pub fn component(&self) -> Option<(String, &[u8])> {
        let Kind::Plugin(manifest) = &self.kind else { return None };
        let path = manifest.component_path();
        let bytes = self.files.get(&path)?;
        Some((path, bytes))
    }

    /// `sha256:<hex>` of the component; `None` for a set.
    pub fn component_digest(&self) -> Option<String> {
        self.component().map(|it| sha256(it.1))
    }

    /// One line about the package: a plugin's description.
    pub fn description(&self) -> String {
        match &self.kind {
            Kind::Plugin(manifest) => manifest.description.clone(),
            Kind::Set => SetHead::summary(self.files.get(SET).map_or(&[][..], |it| it)),
        }
    }

    /// The package of a plugin's folder (as its author has it, with sources and all), or of a set's file.
    ///
    /// The component may also stand where builds of the repository put it, in `dist` beside the folder.
    ///
    /// # Errors
    /// As [`Package::from_files`]; a file that can't be read or is a link.
    pub fn gather(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        if path.extension().is_some_and(|it| it == "toml") {
            return Self::from_files(BTreeMap::from([(SET.to_string(), read_file(path)?)]), &place);
        }
        let refuse = |problem: String| RegistryError::Package { place: place.clone(), problem };
        if !path.is_dir() {
            return Err(refuse("there is no such folder".into()));
        }
        if path.join(SET).is_file() {
            return Self::unpacked(path);
        }
        if !path.join(MANIFEST).is_file() {
            return Err(refuse(format!("it has no `{MANIFEST}`")));
        }
        let bytes = read_file(&path.join(MANIFEST))?;
        let text = String::from_utf8(bytes).map_err(|_| refuse(format!("`{MANIFEST}` is not UTF-8")))?;
        let manifest = Manifest::parse(&text)
            .map_err(|problems| RegistryError::Manifest { place: format!("{place}/{MANIFEST}"), problems })?;
        let mut wanted: Vec<String> = vec![MANIFEST.to_string()];
        wanted.extend(manifest.resources.values().cloned());
        wanted.extend(names_in(path)?.into_iter().filter(|it| is_text(it)));
        let cases = path.join("cases");
        if cases.is_dir() {
            let names = names_in(&cases)?.into_iter().map(|it| format!("cases/{it}"));
            wanted.extend(names.filter(|it| is_case(it)));
        }
        let mut files = BTreeMap::new();
        for name in wanted {
            // What is missing is told by `from_files`, in the manifest's words.
            if path.join(&name).exists() {
                files.insert(name.clone(), read_file(&path.join(&name))?);
            }
        }
        let component = manifest.component_path();
        let built = path.join("..").join("dist").join(format!("{}.wasm", manifest.name.last()));
        let own = path.join(&component);
        let found = if own.exists() || manifest.component.is_some() { own } else { built };
        if found.exists() {
            files.insert(component, read_file(&found)?);
        }
        Self::from_files(files, &place)
    }

    /// The package that [`Package::write`] left at `folder`; a file more is refused.
    ///
    /// # Errors
    /// As [`Package::gather`].
    pub fn unpacked(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        read_tree(folder, "", &mut files)?;
        files.remove(SIGNATURE);
        Self::from_files(files, &folder.display().to_string())
    }

    /// Makes `folder`, whole or not at all; `signature` goes beside the files.
    ///
    /// # Errors
    /// A folder that is there already, and files that can't be written.
    pub fn write(&self, folder: &Path, signature: Option<&[u8]>) -> Result<()> {
        let parent = folder.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(parent).map_err(io("write", parent))?;
        let temporary = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent);
        let temporary = temporary.map_err(io("write", parent))?;
        let signature = signature.map(|it| (SIGNATURE, it));
        for (name, bytes) in self.files.iter().map(|it| (it.0.as_str(), it.1.as_slice())).chain(signature) {
            let path = temporary.path().join(name);
            let above = path.parent().unwrap_or(temporary.path());
            std::fs::create_dir_all(above).map_err(io("write", above))?;
            std::fs::write(&path, bytes).map_err(io("write", &path))?;
        }
        // Folders of the crate `tempfile` are their owner's alone.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(temporary.path(), open).map_err(io("write", temporary.path()))?;
        }
        // Onto a folder that is there and not empty this fails.
        std::fs::rename(temporary.path(), folder).map_err(io("write", folder))?;
        let _ = temporary.keep();
        Ok(())
    }
}

/// Refuses more than the bounds allow.
pub(crate) fn check_size(sizes: impl Iterator<Item = u64>, place: &str) -> Result<()> {
    let (mut files, mut bytes) = (0, 0u64);
    for size in sizes {
        files += 1;
        bytes = bytes.saturating_add(size);
        let problem = match () {
            () if files > MOST_FILES => format!("it has more than {MOST_FILES} files"),
            () if size > MOST_FILE_BYTES => format!("it has a file of more than {MOST_FILE_BYTES} bytes"),
            () if bytes > MOST_BYTES => format!("it has more than {MOST_BYTES} bytes"),
            () => continue,
        };
        return Err(RegistryError::Package { place: place.to_string(), problem });
    }
    Ok(())
}

/// The bytes of a file that is no link and within bounds.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let refuse =
        |problem: &str| RegistryError::Package { place: path.display().to_string(), problem: problem.into() };
    let about = std::fs::symlink_metadata(path).map_err(io("read", path))?;
    if !about.is_file() {
        return Err(refuse("only plain files can be in a package, no links"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io("read", path))?;
    // The file may have grown since.
    file.take(MOST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io("read", path))?;
    check_size(std::iter::once(bytes.len() as u64), &path.display().to_string())?;
    Ok(bytes)
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io("read", folder))? {
        let entry = entry.map_err(io("read", folder))?;
        // What is not UTF-8 is no sound path afterwards.
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn read_tree(folder: &Path, under: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for name in names_in(folder)? {
        let path = folder.join(&name);
        let inside = format!("{under}{name}");
        let sound = is_sound_path(&inside)
            && Path::new(&name).components().all(|it| matches!(it, Component::Normal(_)));
        if !sound || files.len() > MOST_FILES {
            let place = folder.display().to_string();
            return Err(RegistryError::Package {
                place,
                problem: format!("it has no place for `{}`", name.escape_debug()),
            });
        }
        let about = std::fs::symlink_metadata(&path).map_err(io("read", &path))?;
        if about.is_dir() {
            read_tree(&path, &format!("{inside}/"), files)?;
        } else {
            files.insert(inside, read_file(&path)?);
            check_size(files.values().map(|it| it.len() as u64), &folder.display().to_string())?;
        }
    }
    Ok(())
}
