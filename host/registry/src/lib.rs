//! Packages of plugins: made, signed, shared, pinned, resolved.
//!
//! A [`Package`] is a handful of files under one name and version, named by the digest of a [`Statement`] that names each
//! file by its digest. It goes to a [`Place`] (an OCI registry or a folder), comes from there into the [`Store`], is held
//! against the [`TrustPolicy`], and is pinned by the [`Lock`] beside a run file. [`resolve`] puts these together: from the
//! plugins that a run wants to files that may be loaded.

mod described;
mod error;
mod key;
mod lockfile;
mod manifest;
mod name;
mod oci;
mod package;
mod place;
mod pull;
mod resolution;
mod resolve;
mod run_file;
mod set;
mod signature;
mod statement;
mod store;
mod trust;

pub use error::{RegistryError, Release, Result};
pub use fthost_data::digest::sha256;
pub use key::{PublicKey, SecretKey};
pub use lockfile::{LOCK, Lock, Pin};
pub use manifest::{MANIFEST, Manifest, Wishes};
pub use name::{NameError, NamePattern, PackageName};
pub use oci::OciPlace;
pub use package::{FileKind, Kind, Package, SIGNATURE};
pub use place::{Fetched, Found, Place};
pub use pull::{highest, pull, verify};
pub use resolution::{Resolution, Resolved};
pub use resolve::{Mode, Resolver, Wanted, resolve};
pub use run_file::wanted;
pub use semver::{Version, VersionReq};
pub use set::{SET, SetHead, Sets};
pub use signature::Envelope;
pub use statement::Statement;
pub use store::{Store, Stored};
pub use trust::{POLICY, TrustPolicy};
