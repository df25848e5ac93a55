//! From sources to a component: one file a language, and what they share.

mod c;
mod javascript;
mod python;
mod rust;
mod strip;
mod tools;
mod world;

use std::fmt;
use std::path::{Path, PathBuf};

use fthost_data::digest::sha256;
use serde::Serialize;

use crate::error::{AuthorError, Result, io};
use crate::package::Package;
use crate::sdk::Sdk;

/// A language that plugins are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// With the SDK.
    Rust,
    /// Through componentize-py.
    Python,
    /// Through componentize-js.
    Js,
    /// Through wit-bindgen and zig.
    C,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 4] = [Self::Rust, Self::Python, Self::Js, Self::C];

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Js => "js",
            Self::C => "c",
        }
    }

    /// The file by which a package's language is known.
    pub fn source(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Python => "src/plugin.py",
            Self::Js => "src/plugin.js",
            Self::C => "src/plugin.c",
        }
    }

    /// The language of the package at `folder`.
    ///
    /// # Errors
    /// [`AuthorError::NoSources`].
    pub fn of(folder: &Path) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|it| folder.join(it.source()).is_file());
        found.ok_or_else(|| AuthorError::NoSources {
            folder: folder.to_path_buf(),
            looked: Self::ALL.iter().map(|it| format!("`{}`", it.source())).collect(),
        })
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where builds find what they need, and to whom they say what they do.
pub struct Workshop<'a> {
    /// The source tree of fthost, where there is one; its SDK is preferred to the embedded copy.
    pub tree: Option<PathBuf>,
    /// Toolchains, the embedded SDK and compiled dependencies are kept here.
    pub cache_dir: PathBuf,
    /// Told of each longer step.
    pub say: &'a dyn Fn(&str),
}

impl Workshop<'_> {
    /// The SDK that packages are built against.
    ///
    /// # Errors
    /// A cache folder that can't be written.
    pub fn sdk(&self) -> Result<Sdk> {
        Sdk::locate(self.tree.as_deref(), &self.cache_dir)
    }
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Built {
    /// The component's file.
    pub component: PathBuf,
    /// Its language.
    pub language: Language,
    /// Bytes.
    pub size: u64,
    /// Bytes that stripping took away.
    pub stripped: u64,
    /// `sha256:<hex>`.
    pub digest: String,
    /// Whether the file was there with these bytes before.
    pub unchanged: bool,
}

/// Builds the package: compiles, makes a component, strips it, and writes it whole or not at all.
///
/// # Errors
/// A toolchain that is absent and can't be installed, and sources that do not compile.
pub fn build(package: &Package, workshop: &Workshop<'_>) -> Result<Built> {
    let language = Language::of(&package.folder)?;
    let sdk = workshop.sdk()?;
    sdk.link(&package.folder)?;
    let scratch = package.folder.join(".fthost/build");
    std::fs::create_dir_all(&scratch).map_err(io("make", &scratch))?;
    let component = match language {
        Language::Rust => rust::component(package, workshop, &sdk)?,
        Language::Python => python::component(package, workshop, &scratch)?,
        Language::Js => javascript::component(package, workshop, &scratch)?,
        Language::C => c::component(package, workshop, &scratch)?,
    };
    let bytes = strip::stripped(&component).ok_or_else(|| AuthorError::Componentize {
        path: package.component(),
        reason: "the toolchain wrote no WebAssembly".into(),
    })?;
    let path = package.component();
    let unchanged = std::fs::read(&path).is_ok_and(|it| it == bytes);
    if !unchanged {
        write_whole(&path, &bytes)?;
    }
    Ok(Built {
        component: path,
        language,
        size: bytes.len() as u64,
        stripped: (component.len() - bytes.len()) as u64,
        digest: sha256(&bytes),
        unchanged,
    })
}

/// Under a temporary name in the same folder, then renamed: nobody sees half a file.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io("make", folder))?;
    let file =
        tempfile::Builder::new().prefix(".building-").tempfile_in(folder).map_err(io("write", path))?;
    std::fs::write(file.path(), bytes).map_err(io("write", path))?;
    // As any other file of the package: `tempfile` gives it to its owner alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644))
            .map_err(io("write", path))?;
    }
    file.persist(path).map_err(|error| io("write", path)(error.error))?;
    Ok(())
}
