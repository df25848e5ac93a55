//! What two users and a registry on loopback do to one another.

use std::collections::BTreeMap;

use fthost_registry::{Envelope, Lock, Mode, Package, PackageName, Place, SecretKey, Sets, resolve, sha256};

use crate::started::Registry;
use crate::support::{User, move_tag, plugin, publish, tags, wanted};

const NAME: &str = "team/words";

fn key() -> SecretKey {
    SecretKey::generate().unwrap()
}

#[test]
fn two_users_exchange_a_signed_set() {
    let Some(registry) = Registry::start() else { return };
    let team = key();
    let place = registry.place("shared/");
    // The first user publishes a plugin and a set that uses it.
    publish(&place, &plugin(NAME, "0.1.0", "a"), Some(&team), false).unwrap();
    publish(&place, &plugin(NAME, "0.2.0", "b"), Some(&team), false).unwrap();
    publish(&place, &plugin(NAME, "0.2.1-rc.1", "c"), Some(&team), false).unwrap();
    let text = format!(
        "name = \"team/length\"\nversion = \"1.0.0\"\nsummary = \"Short answers\"\n[plugins.\"{NAME}\"]\n\
         version = \"^0.2\"\nsource = \"{place}\"\n[plugins.\"{NAME}\".config]\nwords = 3\n"
    );
    let set =
        Package::from_files(BTreeMap::from([("set.toml".to_string(), text.into_bytes())]), "set").unwrap();
    publish(&place, &set, Some(&team), false).unwrap();
    // The second finds them, trusts the team's key, pulls the set and runs with it.
    let mut user = User::new();
    user.trusts("team/*", &team);
    let from = Place::parse(&place, user.folder()).unwrap();
    let found = from.search("").unwrap();
    let found: Vec<_> =
        found.iter().map(|it| (it.name.as_str(), it.version.as_str(), it.description.as_str())).collect();
    assert_eq!(
        found,
        [("team/length", "1.0.0", "Short answers"), (NAME, "0.2.1-rc.1", "Counts words of words")]
    );
    let name: PackageName = "team/length".parse().unwrap();
    let any = "*".parse().unwrap();
    fthost_registry::pull(&user.resolver(Mode::Keep), &from, &name, &any, false).unwrap();
    let (search, store) = (fthost_sandbox::SearchPath::default(), user.store());
    let sets = Sets::on(&search).with_pulled(&store, &user.trust, None);
    let document: toml::Table = sets.document("team/length").unwrap().parse().unwrap();
    let asked = &document["plugins"][NAME];
    let wanted = wanted(NAME, asked["version"].as_str().unwrap(), asked["source"].as_str().unwrap());
    let resolution =
        resolve(&user.resolver(Mode::Keep), std::slice::from_ref(&wanted), &sets.used()).unwrap();
    resolution.save().unwrap();
    let got = &resolution.plugins[0];
    // Before a release comes its candidate, which no range asks for.
    assert_eq!(got.pin.version.as_ref().unwrap().to_string(), "0.2.0");
    assert_eq!(got.signers, [team.public()]);
    assert_eq!(sha256(&std::fs::read(&got.component).unwrap()), got.digest);
    let (words, digest) = &got.resources["words.txt"];
    assert_eq!((std::fs::read(words).unwrap(), digest), (b"b".to_vec(), &sha256(b"b")));
    let lock = Lock::read(&user.lock_path()).unwrap().unwrap();
    assert_eq!((lock.plugins.len(), lock.sets[0].name.as_str()), (1, "team/length"));
    // Another machine has the lock file alone: the set is pulled, too.
    user.store().remove(&name, None).unwrap();
    let sets = Sets::on(&search).with_pulled(&store, &user.trust, Some(&lock));
    assert_eq!(sets.document("team/length").unwrap().parse::<toml::Table>().unwrap(), document);
    // With the lock file the same comes again, the registry gone.
    drop(registry);
    let again = resolve(&user.resolver(Mode::Locked), &[wanted], &sets.used()).unwrap();
    assert_eq!(again.plugins, resolution.plugins);
    assert!(again.changes().is_empty());
}

#[test]
fn a_component_is_an_artefact_that_other_clients_read() {
    let Some(registry) = Registry::start() else { return };
    publish(&registry.place(NAME), &plugin(NAME, "0.1.0", "a"), None, false).unwrap();
    // As `wkg` has it: one layer, of this type, under a configuration of that type.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = oci_client::Client::new(oci_client::client::ClientConfig {
        protocol: oci_client::client::ClientProtocol::HttpsExcept(vec![registry.host.clone()]),
        ..Default::default()
    });
    let reference = format!("{}/{NAME}:0.1.0", registry.host).parse().unwrap();
    let auth = oci_client::secrets::RegistryAuth::Anonymous;
    let image = runtime.block_on(client.pull(&reference, &auth, vec!["application/wasm"])).unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(image.layers[0].data[..], [0, b'a', b's', b'm', 0x0d, 0, 1, 0]);
    assert_eq!(image.config.media_type, "application/vnd.wasm.config.v0+json");
    let config: serde_json::Value = serde_json::from_slice(&image.config.data).unwrap();
    assert_eq!((config["architecture"].as_str(), config["os"].as_str()), (Some("wasm"), Some("wasip2")));
    assert_eq!(config["layerDigests"][0], sha256(&image.layers[0].data));
    let annotations = image.manifest.unwrap().annotations.unwrap();
    assert_eq!(annotations["org.opencontainers.image.version"], "0.1.0");
    assert_eq!(annotations["org.opencontainers.image.licenses"], "Apache-2.0");
}

/// Oracle: `wkg` 0.16.1 of the Bytecode Alliance, the client that other hosts of components come with.
#[test]
fn wkg_pulls_the_component_that_was_pushed() {
    let Some(wkg) = std::env::var_os("FTHOST_TEST_WKG") else {
        println!("SKIPPED: no `wkg` to pull with: `cargo install wkg`, and FTHOST_TEST_WKG");
        return;
    };
    let Some(registry) = Registry::start() else { return };
    let package = plugin(NAME, "0.1.0", "a");
    publish(&registry.place(NAME), &package, Some(&key()), false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let got = folder.path().join("got.wasm");
    let reference = format!("{}/{NAME}:0.1.0", registry.host);
    let pulled = std::process::Command::new(wkg)
        .args(["oci", "pull", "--insecure", &registry.host, &reference, "--output"])
        .arg(&got)
        .output()
        .expect("FTHOST_TEST_WKG names no program");
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    assert_eq!(std::fs::read(&got).unwrap(), package.component().unwrap().1);
}

#[test]
fn a_changed_byte_is_refused() {
    let Some(registry) = Registry::start() else { return };
    let place = registry.place(NAME);
    publish(&place, &plugin(NAME, "0.1.0", "abc"), None, false).unwrap();
    std::fs::write(registry.blob(b"abc"), "abd").unwrap();
    let user = User::new();
    let told = user.refused(Mode::Keep, NAME, "*", &place).replace(&registry.host, "REGISTRY");
    insta::assert_snapshot!(told, @"`resources/words.txt` from `oci://REGISTRY/team/words:0.1.0` was changed: its digest is sha256:DIGEST, not sha256:DIGEST; it is refused");
    assert!(user.store().list().unwrap().is_empty(), "something of it was kept");
}

#[test]
fn more_bytes_than_announced_are_refused() {
    let Some(registry) = Registry::start() else { return };
    let place = registry.place(NAME);
    publish(&place, &plugin(NAME, "0.1.0", "abc"), None, false).unwrap();
    std::fs::write(registry.blob(b"abc"), "abc".repeat(1 << 20)).unwrap();
    let told = User::new().refused(Mode::Keep, NAME, "*", &place).replace(&registry.host, "REGISTRY");
    insta::assert_snapshot!(told, @r"
    oci://REGISTRY/team/words:0.1.0: more bytes came than the manifest says
    hint: ask whoever runs the registry
    ");
}

#[test]
fn a_swapped_tag_is_refused() {
    let Some(registry) = Registry::start() else { return };
    let place = registry.place(NAME);
    let user = User::new();
    publish(&place, &plugin(NAME, "0.1.0", "a"), None, false).unwrap();
    publish(&place, &plugin(NAME, "0.2.0", "b"), None, false).unwrap();
    // A new user: the tag is of another version.
    move_tag(&registry, NAME, "0.2.0", "0.1.0");
    let told = user.refused(Mode::Keep, NAME, "*", &place).replace(&registry.host, "REGISTRY");
    insta::assert_snapshot!(told, @r"
    `oci://REGISTRY/team/words:0.2.0` is said to be `team/words` 0.2.0, but holds `team/words` 0.1.0; it is refused
    hint: somebody moved a tag; ask whoever publishes there
    ");
}

#[test]
fn another_package_under_a_pinned_version_is_refused() {
    let Some(registry) = Registry::start() else { return };
    let place = registry.place(NAME);
    let user = User::new();
    publish(&place, &plugin(NAME, "0.1.0", "a"), None, false).unwrap();
    user.run(Mode::Keep, NAME, "*", &place).unwrap();
    // Whoever can push replaces it, which the publisher's own client only does when told to.
    let other = plugin(NAME, "0.1.0", "b");
    let told =
        publish(&place, &other, None, false).unwrap_err().to_string().replace(&registry.host, "REGISTRY");
    insta::assert_snapshot!(told, @r"
    `oci://REGISTRY/team/words:0.1.0` holds another team/words 0.1.0; published versions don't change
    hint: raise `version`, or replace it with `--force`, which breaks every lock file that pins it
    ");
    publish(&place, &other, None, true).unwrap();
    // What was pulled is used as it was pinned; who has only the lock file is told, and so is who updates.
    user.run(Mode::Locked, NAME, "*", &place).unwrap();
    user.store().remove(&NAME.parse().unwrap(), None).unwrap();
    for mode in [Mode::Keep, Mode::Locked, Mode::Update] {
        let told = user.refused(mode, NAME, "*", &place).replace(&registry.host, "REGISTRY");
        insta::allow_duplicates! { insta::assert_snapshot!(told, @"`team/words` 0.1.0 from `oci://REGISTRY/team/words` was changed: its digest is sha256:DIGEST, not sha256:DIGEST; it is refused"); }
    }
}

#[test]
fn a_downgraded_version_is_refused() {
    let Some(registry) = Registry::start() else { return };
    let (first, second) = (registry.place(NAME), registry.place("mirror/words"));
    let user = User::new();
    publish(&first, &plugin(NAME, "0.1.0", "a"), None, false).unwrap();
    publish(&second, &plugin(NAME, "0.1.0", "a"), None, false).unwrap();
    publish(&first, &plugin(NAME, "0.2.0", "b"), None, false).unwrap();
    user.run(Mode::Keep, NAME, "*", &first).unwrap();
    let (name, resolver) = (NAME.parse().unwrap(), user.resolver(Mode::Keep));
    let mirror = Place::parse(&second, user.folder()).unwrap();
    let any = "*".parse().unwrap();
    let error = fthost_registry::pull(&resolver, &mirror, &name, &any, false).unwrap_err();
    insta::assert_snapshot!(user.told(&error.to_string()), @r"
    `team/words` 0.1.0 is lower than 0.2.0, which `HOME/plugins.lock` pins; it is refused
    hint: `--allow-downgrade` takes it
    ");
    fthost_registry::pull(&resolver, &mirror, &name, &any, true).unwrap();
    // A registry that lost, or hides, the newer one.
    std::fs::remove_dir_all(tags(&registry, NAME).join("0.2.0")).unwrap();
    let told = user.refused(Mode::Update, NAME, "*", &first);
    assert!(
        told.starts_with("`team/words` 0.1.0 is lower than 0.2.0, which `HOME/plugins.lock` pins"),
        "{told}"
    );
}

#[test]
fn a_name_squat_is_refused_by_policy_and_without_one_by_the_pin() {
    let Some(registry) = Registry::start() else { return };
    let (team, squatter) = (key(), key());
    let place = registry.place(NAME);
    publish(&place, &plugin(NAME, "0.1.0", "a"), Some(&team), false).unwrap();
    let mut user = User::new();
    user.run(Mode::Keep, NAME, "*", &place).unwrap();
    publish(&place, &plugin(NAME, "0.1.1", "b"), Some(&squatter), false).unwrap();
    insta::assert_snapshot!(user.refused(Mode::Update, NAME, "*", &place), @r"
    `team/words` 0.1.1 is signed by ed25519:KEY, but `HOME/plugins.lock` pins ed25519:KEY; it is refused
    hint: if its publisher has a new key, remove `signer` of `team/words` from the lock file
    ");
    user.trusts("team/*", &team);
    insta::assert_snapshot!(user.refused(Mode::Update, NAME, "*", &place), @r"
    `team/words` 0.1.1 is signed by ed25519:KEY, whom `HOME/trust.toml` does not allow to publish `team/*`; it is refused
    hint: if that key is its publisher's, add it to `keys`
    ");
    // Another name in the repository is no way round the policy that names this one.
    let other = registry.place("elsewhere");
    publish(&other, &plugin("evil/words", "0.1.2", "b"), Some(&squatter), false).unwrap();
    let told = user.refused(Mode::Update, NAME, "*", &other).replace(&registry.host, "REGISTRY");
    insta::assert_snapshot!(told, @r"
    `oci://REGISTRY/elsewhere:0.1.2` is said to be `team/words` 0.1.2, but holds `evil/words` 0.1.2; it is refused
    hint: somebody moved a tag; ask whoever publishes there
    ");
}

#[test]
fn an_unsigned_package_is_refused_under_a_policy_when_pulled_and_when_loaded() {
    let Some(registry) = Registry::start() else { return };
    let team = key();
    let place = registry.place(NAME);
    let unsigned = plugin(NAME, "0.1.0", "a");
    publish(&place, &unsigned, None, false).unwrap();
    let (mut strict, mut late) = (User::new(), User::new());
    strict.trusts("team/*", &team);
    insta::assert_snapshot!(strict.refused(Mode::Keep, NAME, "*", &place), @r"
    `team/words` 0.1.0 is not signed, and `HOME/trust.toml` asks for a signature of `team/*`; it is refused
    hint: ask its publisher for one (`fthost plugin sign`)
    ");
    assert!(strict.store().list().unwrap().is_empty(), "it was kept");
    // Pulled before there was a policy.
    late.run(Mode::Keep, NAME, "*", &place).unwrap();
    late.trusts("team/*", &team);
    let told = late.refused(Mode::Locked, NAME, "*", &place);
    assert!(told.starts_with("`team/words` 0.1.0 is not signed"), "{told}");
    // Signed afterwards, without another version.
    publish(&place, &unsigned, Some(&team), false).unwrap();
    strict.run(Mode::Keep, NAME, "*", &place).unwrap();
}

#[test]
fn a_signature_of_other_bytes_is_refused_without_any_policy() {
    let Some(registry) = Registry::start() else { return };
    let place = registry.place(NAME);
    let envelope = Envelope::sign(&plugin(NAME, "0.1.0", "a"), &key(), None);
    Place::parse(&place, std::path::Path::new(""))
        .unwrap()
        .push(&plugin(NAME, "0.1.0", "b"), Some(&envelope), false)
        .unwrap();
    insta::assert_snapshot!(User::new().refused(Mode::Keep, NAME, "*", &place), @"the signature of `team/words` 0.1.0 is wrong: `resources/words.txt` is not the file that was signed; it is refused");
}

#[test]
fn a_tampered_lock_is_refused() {
    let Some(registry) = Registry::start() else { return };
    let place = registry.place(NAME);
    let user = User::new();
    publish(&place, &plugin(NAME, "0.1.0", "a"), None, false).unwrap();
    publish(&place, &plugin(NAME, "0.2.0", "b"), None, false).unwrap();
    let told = user.refused(Mode::Locked, NAME, "*", &place);
    insta::assert_snapshot!(told, @r"
    `--locked`, but `HOME/plugins.lock` does not fit
      there is no such file
    hint: `fthost plugin update` writes it anew; `--dry-run` shows what would change
    ");
    user.run(Mode::Keep, NAME, "^0.1", &place).unwrap();
    let sound = std::fs::read_to_string(user.lock_path()).unwrap();
    let tampered = |from: &str, to: &str| {
        assert!(sound.contains(from), "{sound}");
        std::fs::write(user.lock_path(), sound.replace(from, to)).unwrap();
        user.refused(Mode::Locked, NAME, "^0.1", &place).replace(&registry.host, "REGISTRY")
    };
    // The other version is at hand, too: its digest is that of a package that may be used.
    let any = "*".parse().unwrap();
    let from = Place::parse(&place, user.folder()).unwrap();
    fthost_registry::pull(&user.resolver(Mode::Keep), &from, &NAME.parse().unwrap(), &any, false).unwrap();
    // Another version; another place; another package's digest; another component's; another name; no digest.
    let digest = plugin(NAME, "0.1.0", "a").digest();
    let other = plugin(NAME, "0.2.0", "b").digest();
    insta::assert_snapshot!(tampered("version = \"0.1.0\"", "version = \"0.2.0\""), @r"
    `--locked`, but `HOME/plugins.lock` does not fit
      `team/words` must satisfy `^0.1`, but 0.2.0 is pinned
    hint: `fthost plugin update` writes it anew; `--dry-run` shows what would change
    ");
    insta::assert_snapshot!(tampered("/team/words\"", "/evil/words\""), @r"
    `--locked`, but `HOME/plugins.lock` does not fit
      `team/words` comes from `oci://REGISTRY/team/words`, but oci://REGISTRY/evil/words is pinned
    hint: `fthost plugin update` writes it anew; `--dry-run` shows what would change
    ");
    insta::assert_snapshot!(tampered(&digest, &other), @r"
    invalid lock file `HOME/plugins.lock`
      `team/words` 0.1.0: `package` is the digest of `team/words` 0.2.0
    ");
    let component = sha256(&[0, b'a', b's', b'm', 0x0d, 0, 1, 0]);
    insta::assert_snapshot!(tampered(&component, &other), @r"
    invalid lock file `HOME/plugins.lock`
      `team/words` 0.1.0: `component` is not the component of `package`, which is sha256:DIGEST
    ");
    insta::assert_snapshot!(tampered("name = \"team/words\"", "name = \"team/wordy\""), @r"
    `--locked`, but `HOME/plugins.lock` does not fit
      `team/words` is not in it
    hint: `fthost plugin update` writes it anew; `--dry-run` shows what would change
    ");
    insta::assert_snapshot!(tampered("sha256:", "sha512:"), @r"
    invalid lock file `HOME/plugins.lock`
      `team/words`: `sha512:24eaf3439a60c96764c4f2c92a0a81b52bd4fe5d5b91f090184a0f6486b1bf29` is no digest
    ");
}

#[test]
fn what_a_registry_does_not_have_is_told() {
    let Some(registry) = Registry::start() else { return };
    publish(&registry.place(NAME), &plugin(NAME, "0.1.0", "a"), None, false).unwrap();
    let user = User::new();
    let told = |version: &str, place: &str| {
        user.refused(Mode::Keep, NAME, version, place).replace(&registry.host, "REGISTRY")
    };
    insta::assert_snapshot!(told("^2", &registry.place(NAME)), @"`oci://REGISTRY/team/words` has no version of `team/words` that satisfies `^2`; it has 0.1.0");
    insta::assert_snapshot!(told("*", &registry.place("nothing")), @"`oci://REGISTRY/nothing` has no version of `team/words` that satisfies `*`; it has none");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let told = user.refused(Mode::Keep, NAME, "*", &format!("oci://{nobody}/x"));
    assert!(told.contains("hint: is the address right, and is the registry up?"), "{told}");
}
