//! `fthost plugin push`, `pull`, `search`, `remove`, `update`, `sign`, `verify`, `key`: packages that are shared.

use std::path::{Path, PathBuf};

use fthost_registry::{
    Envelope, Kind, LOCK, Lock, Mode, Package, PackageName, Place, PublicKey, RegistryError, Resolver,
    Result, SIGNATURE, SecretKey, Sets, Store, Stored, TrustPolicy,
};
use fthost_run::SearchPath;
use fthost_run::place::cache_dir;
use fthost_run::standard::search_path;

use super::inspect::said;
use crate::args::{KeyVerb, PullPackageArgs, PushArgs, ShareVerb, UpdateArgs, VerifyArgs};

/// Does what was asked.
pub fn run(verb: &ShareVerb) -> fthost_run::Result<()> {
    let store = Store::in_cache(&cache_dir());
    match verb {
        ShareVerb::Update(args) => {
            let search = search_path(args.file.parent().unwrap_or(Path::new("")))?;
            update(args, store, &search)?;
        }
        ShareVerb::Push(args) => {
            let package = Package::gather(&args.package)?;
            if !args.no_verify {
                as_described(&package, &args.package)?;
            }
            push(args, &package)?;
        }
        ShareVerb::Pull(args) => pull(args, store)?,
        ShareVerb::Search { place, term } => search(place, term)?,
        ShareVerb::Remove { package } => remove(package, &store)?,
        ShareVerb::Sign { package, key } => sign(package, key)?,
        ShareVerb::Verify(args) => verify(args, &store)?,
        ShareVerb::Key(KeyVerb::New { file }) => new_key(file)?,
    }
    Ok(())
}

/// Whether a plugin's component says of itself what its manifest says.
fn as_described(package: &Package, path: &Path) -> fthost_run::Result<()> {
    let Kind::Plugin(manifest) = &package.kind else { return Ok(()) };
    let place = path.display().to_string();
    let said = said(package)?;
    Ok(manifest.as_described(&place, &said.name, &said.version, &said.roles)?)
}

fn push(args: &PushArgs, package: &Package) -> Result<()> {
    let beside = signature_of(&args.package, package)?;
    let envelope = match &args.key {
        Some(key) => Some(Envelope::sign(package, &SecretKey::read(key)?, beside.as_ref())),
        None => beside,
    };
    let signers = envelope.as_ref().map(|it| it.signers(package)).transpose()?.unwrap_or_default();
    let address = Place::parse(&args.place, Path::new(""))?.push(package, envelope.as_ref(), args.force)?;
    println!("published {} {}", package.name, package.version);
    println!("  place     {address}");
    println!("  digest    {}", package.digest());
    println!("  signed by {}", listed(&signers));
    Ok(())
}

fn pull(args: &PullPackageArgs, store: Store) -> Result<()> {
    let (name, requirement) = named(&args.package)?;
    let resolver = Resolver {
        store,
        trust: trust(args.trust.as_deref())?,
        lock_path: args.lock.clone(),
        base: PathBuf::new(),
        mode: Mode::Keep,
    };
    // A relative folder is this one's; what is pinned names it from everywhere.
    let here = std::env::current_dir().unwrap_or_default();
    let place = Place::parse(&args.place, &here)?;
    let (stored, signers) =
        fthost_registry::pull(&resolver, &place, &name, &requirement, args.allow_downgrade)?;
    println!("pulled {} {}", stored.package.name, stored.package.version);
    println!("  from      {}", stored.source);
    println!("  digest    {}", stored.digest);
    println!("  signed by {}", listed(&signers));
    Ok(())
}

fn search(place: &str, term: &str) -> Result<()> {
    let found = Place::parse(place, Path::new(""))?.search(term)?;
    let width = found.iter().map(|it| it.name.len()).max().unwrap_or(0);
    for it in &found {
        println!("{:<width$}  {:<8}  {}", it.name, it.version, it.description);
    }
    if found.is_empty() {
        println!("nothing found");
    }
    Ok(())
}

/// The pulled packages, for `plugin list`; nothing where there are none.
pub fn list(cache: &Path) -> Result<()> {
    let all = Store::in_cache(cache).list()?;
    if all.is_empty() {
        return Ok(());
    }
    println!("pulled");
    let width = all.iter().flatten().map(|it| it.package.name.as_str().len()).max().unwrap_or(0);
    for it in &all {
        match it {
            Ok(it) => println!(
                "  {:<width$}  {:<8}  {}  {}",
                it.package.name.as_str(),
                it.package.version.to_string(),
                &it.digest[..19],
                it.package.description()
            ),
            Err(error) => println!("  can't be used: {error}"),
        }
    }
    Ok(())
}

fn remove(package: &str, store: &Store) -> Result<()> {
    let (name, version) = match package.split_once('@') {
        Some((name, version)) => (name, Some(version.parse().map_err(|_| unclear(package, "version"))?)),
        None => (package, None),
    };
    let name = name.parse().map_err(|_| unclear(package, "name"))?;
    for it in store.remove(&name, version.as_ref())? {
        println!("removed {} {}", it.package.name, it.package.version);
    }
    Ok(())
}

fn update(args: &UpdateArgs, store: Store, search: &SearchPath) -> Result<()> {
    let base = args.file.parent().unwrap_or(Path::new("")).to_path_buf();
    let lock_path = base.join(LOCK);
    let trust = TrustPolicy::from_environment(&base)?;
    let sets = Sets::on(search).with_pulled(&store, &trust, None);
    let wanted = fthost_registry::wanted(&args.file, &sets, search, &args.plugin_sets)?;
    let used = sets.used();
    let resolver = Resolver {
        store: store.clone(),
        trust: trust.clone(),
        lock_path: lock_path.clone(),
        base,
        mode: Mode::Update,
    };
    let resolution = fthost_registry::resolve(&resolver, &wanted, &used)?;
    let changes = resolution.changes();
    for line in &changes {
        println!("{line}");
    }
    match (changes.is_empty() && Lock::read(&lock_path)?.is_some(), args.dry_run) {
        (true, _) => println!("`{}` is up to date", lock_path.display()),
        (false, true) => println!("`{}` is left as it is", lock_path.display()),
        (false, false) => {
            resolution.save_all()?;
            println!("`{}` is written", lock_path.display());
        }
    }
    Ok(())
}

fn sign(path: &Path, key: &Path) -> Result<()> {
    let (package, key) = (Package::gather(path)?, SecretKey::read(key)?);
    let envelope = Envelope::sign(&package, &key, signature_of(path, &package)?.as_ref());
    let beside = signature_path(path);
    std::fs::write(&beside, envelope.bytes()).map_err(|source| RegistryError::Io {
        action: "write",
        path: beside.clone(),
        source,
    })?;
    println!("signed {} {} in `{}`", package.name, package.version, beside.display());
    println!("  digest    {}", package.digest());
    println!("  signed by {}", key.public());
    Ok(())
}

fn verify(args: &VerifyArgs, store: &Store) -> Result<()> {
    let key: Option<PublicKey> = args
        .key
        .as_deref()
        .map(|it| it.parse().map_err(|problem| RegistryError::Key { what: "`--key`".into(), problem }))
        .transpose()?;
    let path = Path::new(&args.package);
    let (package, envelope) = if path.exists() {
        let package = Package::gather(path)?;
        let envelope = signature_of(path, &package)?;
        (package, envelope)
    } else {
        let Stored { package, envelope, .. } = pulled(&args.package, store)?;
        (package, envelope)
    };
    let trust = trust(args.trust.as_deref())?;
    let signers = fthost_registry::verify(&trust, &package, envelope.as_ref(), key.as_ref())?;
    println!("{} {} is as it was signed", package.name, package.version);
    println!("  digest    {}", package.digest());
    println!("  signed by {}", listed(&signers));
    Ok(())
}

fn new_key(file: &Path) -> Result<()> {
    let key = SecretKey::generate()?;
    key.write(file)?;
    println!("`{}` is written: keep it secret", file.display());
    println!("  public    {}", key.public());
    Ok(())
}

/// The user's policy, the one of this folder, and `more`.
fn trust(more: Option<&Path>) -> Result<TrustPolicy> {
    let mut policy = TrustPolicy::from_environment(Path::new(""))?;
    more.map(|it| policy.add(it)).transpose()?;
    Ok(policy)
}

pub fn pulled(text: &str, store: &Store) -> Result<Stored> {
    let (name, requirement) = named(text)?;
    store.newest(&name, &requirement)?.ok_or_else(|| RegistryError::NotPulled {
        name: text.to_string(),
        hint: "give a folder, or `fthost plugin pull` it".into(),
    })
}

/// Name and requirement of `name` or `name@requirement`.
fn named(text: &str) -> Result<(PackageName, fthost_registry::VersionReq)> {
    let (name, requirement) = text.split_once('@').unwrap_or((text, "*"));
    let name = name.parse().map_err(|_| unclear(text, "name"))?;
    Ok((name, requirement.parse().map_err(|_| unclear(text, "requirement"))?))
}

fn unclear(given: &str, what: &'static str) -> RegistryError {
    RegistryError::Unclear { given: given.to_string(), what }
}

/// Beside the files of a folder, or beside a set's file.
fn signature_path(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(SIGNATURE) } else { path.with_extension("sig") }
}

pub fn signature_of(path: &Path, package: &Package) -> Result<Option<Envelope>> {
    let path = signature_path(path);
    match std::fs::read(&path) {
        Ok(bytes) => Envelope::parse(&bytes, package).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RegistryError::Io { action: "read", path, source }),
    }
}

pub fn listed(keys: &[PublicKey]) -> String {
    match keys {
        [] => "nobody".to_string(),
        keys => keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
