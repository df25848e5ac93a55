//! What a package is in a registry: manifests, media types, annotations.

use std::collections::BTreeMap;

use fthost_data::digest::sha256;
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use serde_json::json;

use crate::package::{FileKind, Kind, Package};

pub(super) const WASM: &str = "application/wasm";
pub(super) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const PACKAGE_TYPE: &str = "application/vnd.fthost.package.v1";
pub(super) const SIGNATURE_TYPE: &str = "application/vnd.fthost.signature.v1+json";

/// On a component's manifest: the digest of the manifest with the other files.
pub(super) const FILES: &str = "io.fthost.package.files";
pub(super) const TITLE: &str = "org.opencontainers.image.title";
pub(super) const VERSION: &str = "org.opencontainers.image.version";
pub(super) const DESCRIPTION: &str = "org.opencontainers.image.description";
pub(super) const LICENSES: &str = "org.opencontainers.image.licenses";

/// `sha256-<hex>.sig`.
pub(super) fn signature_tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

pub(super) fn encoded(manifest: &OciImageManifest) -> Vec<u8> {
    serde_json::to_vec(manifest).expect("a manifest becomes JSON")
}

pub(super) fn descriptor(media_type: &str, bytes: &[u8]) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.to_string(),
        digest: sha256(bytes),
        size: bytes.len() as i64,
        ..OciDescriptor::default()
    }
}

pub(super) fn media_type(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Component => WASM,
        FileKind::Manifest => "application/vnd.fthost.plugin.manifest.v1+toml",
        FileKind::Set => "application/vnd.fthost.plugin-set.v1+toml",
        FileKind::Text => "text/markdown",
        FileKind::Case => "application/vnd.fthost.plugin.case.v1+jsonl",
        FileKind::Resource => "application/vnd.fthost.plugin.resource.v1",
    }
}

/// The configuration that the main manifest names. Nothing of the day or the machine: equal packages are equal here too.
pub(super) fn config_of(package: &Package) -> Vec<u8> {
    let Some((_, component)) = package.component() else { return b"{}".to_vec() };
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [sha256(component)],
    })
    .to_string()
    .into_bytes()
}

/// The manifest of the version's tag, and for a plugin the one with the files beside its component.
pub(super) fn manifests(package: &Package) -> (OciImageManifest, Option<OciImageManifest>) {
    let mut annotations = BTreeMap::from([
        (TITLE.to_string(), package.name.to_string()),
        (VERSION.to_string(), package.version.to_string()),
        (DESCRIPTION.to_string(), package.description()),
    ]);
    let layer = |path: &String, bytes: &Vec<u8>| {
        let kind = package.file_kind(path).expect("a package holds nothing else");
        let mut layer = descriptor(media_type(kind), bytes);
        layer.annotations = Some(BTreeMap::from([(TITLE.to_string(), path.clone())]));
        layer
    };
    let layers: Vec<OciDescriptor> = package.files.iter().map(|it| layer(it.0, it.1)).collect();
    let manifest =
        |config: OciDescriptor, artifact_type: Option<&str>, layers: Vec<OciDescriptor>| OciImageManifest {
            media_type: Some(MANIFEST_TYPE.to_string()),
            artifact_type: artifact_type.map(str::to_string),
            config,
            layers,
            ..OciImageManifest::default()
        };
    let Kind::Plugin(about) = &package.kind else {
        let mut main = manifest(descriptor(EMPTY, b"{}"), Some(PACKAGE_TYPE), layers);
        main.annotations = Some(annotations);
        return (main, None);
    };
    let (component, others) = layers.into_iter().partition(|it| it.media_type == WASM);
    let rest = manifest(descriptor(EMPTY, b"{}"), Some(PACKAGE_TYPE), others);
    annotations.insert(LICENSES.to_string(), about.license.clone());
    annotations.insert(FILES.to_string(), sha256(&encoded(&rest)));
    let mut main = manifest(descriptor(WASM_CONFIG, &config_of(package)), None, component);
    main.annotations = Some(annotations);
    (main, Some(rest))
}
