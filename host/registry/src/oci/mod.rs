//! OCI registries (<https://github.com/opencontainers/distribution-spec>).
//!
//! A plugin's version is a tag whose manifest is a WebAssembly artefact as the ecosystem has it
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>): configuration of the type
//! `application/vnd.wasm.config.v0+json` and exactly one layer, the component, because clients such as `wkg` refuse a
//! second. The other files are layers of a second manifest, which the first names by digest, so that who moves the tag
//! moves both. A set has the second kind alone. Signatures stand under the tag `sha256-<hex of the manifest>.sig`, which
//! every registry can keep.

mod address;
mod answer;
mod artefact;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};
use std::time::Duration;

use fthost_data::digest::sha256;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use semver::Version;

pub use self::address::OciPlace;
use self::answer::{Asked, is_missing};
use self::artefact::{
    DESCRIPTION, EMPTY, FILES, MANIFEST_TYPE, SIGNATURE_TYPE, TITLE, config_of, descriptor, encoded,
    manifests, signature_tag,
};
use crate::error::{RegistryError, Result};
use crate::name::PackageName;
use crate::package::{MOST_FILE_BYTES, Package, check_size, is_sound_path};
use crate::place::{Found, published};
use crate::signature::{Envelope, MOST_SIGNATURE_BYTES};

/// How long a registry may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Repositories of a catalogue that are looked at.
const MOST_REPOSITORIES: usize = 1000;

/// A registry that is spoken to.
pub(crate) struct Oci {
    place: OciPlace,
    client: Client,
    auth: RegistryAuth,
    runtime: tokio::runtime::Runtime,
}

impl Oci {
    pub(crate) fn new(place: &OciPlace) -> Result<Self> {
        static PROVIDER: Once = Once::new();
        // Somebody else's choice stands.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let asked = Asked(place.to_string());
        let plain = if place.is_loopback() { vec![place.registry.clone()] } else { Vec::new() };
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(plain),
            connect_timeout: Some(PATIENCE),
            read_timeout: Some(PATIENCE),
            user_agent: concat!("fthost/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| asked.failed(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| asked.refused(&error.to_string(), "try again"))?;
        let auth = answer::credential(&place.registry)?;
        Ok(Self { place: place.clone(), client, auth, runtime })
    }

    fn reference(&self, repository: &str, tag: &str) -> Reference {
        Reference::with_tag(self.place.registry.clone(), repository.to_string(), tag.to_string())
    }

    fn by_digest(&self, repository: &str, digest: &str) -> Reference {
        Reference::with_digest(self.place.registry.clone(), repository.to_string(), digest.to_string())
    }

    /// Where a version stands.
    pub(crate) fn address(&self, name: &PackageName, version: &Version) -> String {
        format!("oci://{}/{}:{version}", self.place.registry, self.place.repository(name))
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(work)
    }

    /// Tags that are versions.
    pub(crate) fn versions(&self, name: &PackageName) -> Result<Vec<Version>> {
        self.wait(self.tags(&self.place.repository(name)))
    }

    async fn tags(&self, repository: &str) -> Result<Vec<Version>> {
        let asked = Asked(format!("oci://{}/{repository}", self.place.registry));
        let reference = self.reference(repository, "latest");
        let mut tags: Vec<String> = Vec::new();
        loop {
            let last = tags.last().cloned();
            let page = match self.client.list_tags(&reference, &self.auth, Some(1000), last.as_deref()).await
            {
                Ok(page) => page.tags,
                Err(error) if is_missing(&error) => break,
                Err(error) => return Err(asked.failed(&error)),
            };
            // A registry that does not know pages gives the first for ever.
            let new = page.iter().any(|it| !tags.contains(it));
            let more = page.len() >= 1000 && new;
            tags.extend(page);
            if !more {
                break;
            }
        }
        Ok(tags.iter().filter_map(|it| it.parse().ok()).collect())
    }

    /// A version's files and signature, every byte held against the manifest's digests.
    pub(crate) fn fetch(&self, name: &PackageName, version: &Version) -> Result<(Package, Option<Envelope>)> {
        self.wait(async {
            let repository = self.place.repository(name);
            let asked = Asked(self.address(name, version));
            let (manifest, digest) =
                self.manifest(&self.reference(&repository, &version.to_string()), &asked).await?;
            let annotation = |key: &str| manifest.annotations.as_ref().and_then(|it| it.get(key)).cloned();
            let mut layers = manifest.layers.clone();
            if let Some(files) = annotation(FILES) {
                let (more, _) = self.manifest(&self.by_digest(&repository, &files), &asked).await?;
                layers.extend(more.layers);
            }
            check_size(layers.iter().map(|it| it.size.max(0) as u64), &asked.0)?;
            let mut files = BTreeMap::new();
            for layer in &layers {
                let title =
                    layer.annotations.as_ref().and_then(|it| it.get(TITLE)).cloned().unwrap_or_default();
                if !is_sound_path(&title) || files.contains_key(&title) {
                    let problem = format!("it has no place for the file `{}`", title.escape_debug());
                    return Err(RegistryError::Package { place: asked.0, problem });
                }
                let bytes = self.blob(&repository, layer, &title, MOST_FILE_BYTES, &asked).await?;
                files.insert(title, bytes);
            }
            let package = Package::from_files(files, &asked.0)?;
            let envelope = self.signature(&repository, &digest, &package, &asked).await?;
            Ok((package, envelope))
        })
    }

    async fn manifest(&self, reference: &Reference, asked: &Asked) -> Result<(OciImageManifest, String)> {
        match self.client.pull_manifest(reference, &self.auth).await {
            Ok((OciManifest::Image(manifest), digest)) => Ok((manifest, digest)),
            Ok(_) => Err(asked.refused("it is an index of images", "a package is one manifest")),
            Err(error) => Err(asked.failed(&error)),
        }
    }

    /// The bytes of a layer, no more than it says and no others.
    async fn blob(
        &self,
        repository: &str,
        layer: &OciDescriptor,
        what: &str,
        most: u64,
        asked: &Asked,
    ) -> Result<Vec<u8>> {
        let size = u64::try_from(layer.size).unwrap_or(u64::MAX);
        let mut out = Bounded { bytes: Vec::new(), most: size.min(most) };
        let digest = layer.digest.clone();
        // Its own check comes first; its words say less.
        match self.client.pull_blob(&self.reference(repository, "latest"), layer, &mut out).await {
            Ok(()) => {}
            Err(error) if !matches!(error, oci_client::errors::OciDistributionError::DigestError(_)) => {
                return Err(asked.failed(&error));
            }
            Err(_) => {}
        }
        let found = sha256(&out.bytes);
        match found == digest {
            true => Ok(out.bytes),
            false => Err(RegistryError::Changed {
                what: format!("`{what}`"),
                place: asked.0.clone(),
                expected: digest,
                found,
            }),
        }
    }

    async fn signature(
        &self,
        repository: &str,
        digest: &str,
        package: &Package,
        asked: &Asked,
    ) -> Result<Option<Envelope>> {
        let reference = self.reference(repository, &signature_tag(digest));
        let manifest = match self.client.pull_manifest(&reference, &self.auth).await {
            Ok((OciManifest::Image(manifest), _)) => manifest,
            Ok(_) => return Ok(None),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(asked.failed(&error)),
        };
        let Some(layer) = manifest.layers.iter().find(|it| it.media_type == SIGNATURE_TYPE) else {
            return Ok(None);
        };
        let bytes = self.blob(repository, layer, "its signature", MOST_SIGNATURE_BYTES, asked).await?;
        Envelope::parse(&bytes, package).map(Some)
    }

    pub(crate) fn push(&self, package: &Package, envelope: Option<&Envelope>, force: bool) -> Result<String> {
        let address = self.address(&package.name, &package.version);
        self.wait(async {
            let repository = self.place.repository(&package.name);
            let asked = Asked(address.clone());
            self.client.store_auth_if_needed(&self.place.registry, &self.auth).await;
            let (main, rest) = manifests(package);
            let body = encoded(&main);
            let reference = self.reference(&repository, &package.version.to_string());
            let there = match self.client.pull_manifest(&reference, &self.auth).await {
                Ok((_, digest)) => Some(digest),
                Err(error) if is_missing(&error) => None,
                Err(error) => return Err(asked.failed(&error)),
            };
            if there.as_ref().is_some_and(|it| *it != sha256(&body)) && !force {
                return Err(published(package, &address));
            }
            if there.as_deref() != Some(&sha256(&body)) {
                self.upload(&repository, package, &main, rest.as_ref(), &asked).await?;
            }
            if let Some(envelope) = envelope {
                self.push_signature(&repository, &sha256(&body), envelope, &asked).await?;
            }
            Ok(())
        })?;
        Ok(address)
    }

    async fn upload(
        &self,
        repository: &str,
        package: &Package,
        main: &OciImageManifest,
        rest: Option<&OciImageManifest>,
        asked: &Asked,
    ) -> Result<()> {
        for bytes in package.files.values() {
            self.put_blob(repository, bytes.clone(), asked).await?;
        }
        self.put_blob(repository, config_of(package), asked).await?;
        if let Some(rest) = rest {
            self.put_blob(repository, b"{}".to_vec(), asked).await?;
            // Not a version itself, whatever the version is.
            let tag = format!("files-{}", package.version);
            self.put_manifest(&self.reference(repository, &tag), rest, asked).await?;
        }
        self.put_manifest(&self.reference(repository, &package.version.to_string()), main, asked).await
    }

    async fn push_signature(
        &self,
        repository: &str,
        digest: &str,
        envelope: &Envelope,
        asked: &Asked,
    ) -> Result<()> {
        let bytes = envelope.bytes();
        let mut layer = descriptor(SIGNATURE_TYPE, &bytes);
        layer.annotations =
            Some(BTreeMap::from([(TITLE.to_string(), crate::package::SIGNATURE.to_string())]));
        self.put_blob(repository, bytes, asked).await?;
        self.put_blob(repository, b"{}".to_vec(), asked).await?;
        let manifest = OciImageManifest {
            media_type: Some(MANIFEST_TYPE.to_string()),
            artifact_type: Some(SIGNATURE_TYPE.to_string()),
            config: descriptor(EMPTY, b"{}"),
            layers: vec![layer],
            ..OciImageManifest::default()
        };
        self.put_manifest(&self.reference(repository, &signature_tag(digest)), &manifest, asked).await
    }

    async fn put_blob(&self, repository: &str, bytes: Vec<u8>, asked: &Asked) -> Result<()> {
        let digest = sha256(&bytes);
        let reference = self.reference(repository, "latest");
        let pushed = self.client.push_blob(&reference, bytes, &digest).await;
        pushed.map(drop).map_err(|error| asked.failed(&error))
    }

    async fn put_manifest(
        &self,
        reference: &Reference,
        manifest: &OciImageManifest,
        asked: &Asked,
    ) -> Result<()> {
        let kind = MANIFEST_TYPE.parse().expect("a header's value");
        let pushed = self.client.push_manifest_raw(reference, encoded(manifest), kind).await;
        pushed.map(drop).map_err(|error| asked.failed(&error))
    }

    /// What the registry's catalogue names below this place, each at its highest version.
    pub(crate) fn catalogue(&self) -> Result<Vec<Found>> {
        self.wait(async {
            let asked = Asked(self.place.to_string());
            let reference = self.reference("catalog", "latest");
            let all = self.client.catalog(&reference, &self.auth, Some(MOST_REPOSITORIES), None).await;
            let all = all.map_err(|error| {
                asked.refused(
                    &format!("this registry offers no catalogue to search ({})", answer::reason(&error)),
                    "name the repository: `fthost plugin pull oci://host/repository`",
                )
            })?;
            let below = |it: &&String| {
                let rest = it.strip_prefix(self.place.path.as_str());
                rest.is_some_and(|it| self.place.path.is_empty() || it.is_empty() || it.starts_with('/'))
            };
            let mut found = Vec::new();
            for repository in all.repositories.iter().filter(below) {
                let Some(version) = self.tags(repository).await?.into_iter().max() else { continue };
                let (manifest, _) =
                    self.manifest(&self.reference(repository, &version.to_string()), &asked).await?;
                let annotations = manifest.annotations.unwrap_or_default();
                let text = |key: &str| annotations.get(key).cloned();
                // What is no plugin and no set has no such title.
                let Some(name) = text(TITLE).filter(|it| it.parse::<PackageName>().is_ok()) else { continue };
                found.push(Found {
                    name,
                    version: version.to_string(),
                    description: text(DESCRIPTION).unwrap_or_default(),
                    place: format!("oci://{}/{repository}", self.place.registry),
                });
            }
            Ok(found)
        })
    }
}

/// Takes no more bytes than it may.
struct Bounded {
    bytes: Vec<u8>,
    most: u64,
}

impl tokio::io::AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        part: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if (self.bytes.len() + part.len()) as u64 > self.most {
            return Poll::Ready(Err(std::io::Error::other("more bytes came than the manifest says")));
        }
        self.bytes.extend_from_slice(part);
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
