//! Packages in folders, and packages that are none.

use std::path::Path;

use fthost_registry::{Lock, Mode, Package, Place, SecretKey, Wanted, resolve, verify};

use crate::support::{User, plugin, publish, write_plugin};

#[test]
fn a_package_holds_what_is_published_and_nothing_else() {
    let package = plugin("team/words", "0.1.0", "a");
    let names: Vec<&String> = package.files.keys().collect();
    assert_eq!(names, ["README.md", "cases/a.jsonl", "plugin.toml", "resources/words.txt", "words.wasm"]);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a/b");
    package.write(&target, None).unwrap();
    assert_eq!(Package::unpacked(&target).unwrap(), package);
    assert!(package.write(&target, None).is_err(), "a package was written over another");
    assert_eq!(std::fs::read_dir(folder.path().join("a")).unwrap().count(), 1, "something was left behind");
}

#[test]
fn what_is_no_package_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let told = |path: &Path| {
        let error = Package::gather(path).unwrap_err().to_string();
        error.replace(&folder.path().display().to_string(), "FOLDER")
    };
    let plugin = folder.path().join("words");
    insta::assert_snapshot!(told(&plugin), @"`FOLDER/words` is no package: there is no such folder");
    std::fs::create_dir(&plugin).unwrap();
    insta::assert_snapshot!(told(&plugin), @"`FOLDER/words` is no package: it has no `plugin.toml`");
    write_plugin(&plugin, "words", "0.1.0", "a");
    std::fs::remove_file(plugin.join("words.wasm")).unwrap();
    insta::assert_snapshot!(told(&plugin), @"`FOLDER/words` is no package: its component `words.wasm` is not there");
    std::fs::write(plugin.join("words.wasm"), "(component)").unwrap();
    insta::assert_snapshot!(told(&plugin), @"`FOLDER/words` is no package: `words.wasm` is no WebAssembly component");
    write_plugin(&plugin, "words", "0.1.0", "a");
    std::fs::remove_file(plugin.join("resources/words.txt")).unwrap();
    insta::assert_snapshot!(told(&plugin), @r#"`FOLDER/words` is no package: `resources."words.txt"` names `resources/words.txt`, which is not there"#);
}

#[cfg(unix)]
#[test]
fn no_link_gets_into_a_package() {
    let folder = tempfile::tempdir().unwrap();
    write_plugin(folder.path(), "words", "0.1.0", "a");
    std::fs::remove_file(folder.path().join("README.md")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("README.md")).unwrap();
    let error = Package::gather(folder.path()).unwrap_err().to_string();
    assert!(error.contains("only plain files can be in a package, no links"), "{error}");
}

#[test]
fn a_file_outside_is_no_file_of_a_package() {
    let mut files = plugin("words", "0.1.0", "a").files;
    for path in
        ["../x", "/x", "a/../../x", ".hidden", "src/lib.rs", "cases/../x.jsonl", "C:\\x", "cases/a\n.jsonl"]
    {
        files.insert(path.to_string(), Vec::new());
        let error = Package::from_files(files.clone(), "here").unwrap_err().to_string();
        assert!(error.starts_with("`here` is no package: it has no place for the file"), "{path}: {error}");
        files.remove(path);
    }
}

#[test]
fn a_component_built_beside_the_folders_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("words");
    write_plugin(&own, "words", "0.1.0", "a");
    let there = Package::gather(&own).unwrap();
    std::fs::create_dir(folder.path().join("dist")).unwrap();
    std::fs::rename(own.join("words.wasm"), folder.path().join("dist/words.wasm")).unwrap();
    assert_eq!(Package::gather(&own).unwrap(), there);
}

#[test]
fn folders_are_places_too() {
    let place = tempfile::tempdir().unwrap();
    let address = format!("file://{}", place.path().display());
    let key = SecretKey::generate().unwrap();
    for version in ["0.1.0", "0.2.0", "0.10.0", "1.0.0"] {
        publish(&address, &plugin("team/words", version, version), Some(&key), false).unwrap();
    }
    publish(&address, &plugin("words", "0.1.0", "a"), None, false).unwrap();
    let mut user = User::new();
    user.trusts("team/*", &key);
    let resolution = user.run(Mode::Keep, "team/words", ">=0.1, <1", &address).unwrap();
    assert_eq!(resolution.plugins[0].pin.version.as_ref().unwrap().to_string(), "0.10.0");
    let found = Place::parse(&address, Path::new("")).unwrap().search("WORDS of").unwrap();
    let found: Vec<_> = found.iter().map(|it| format!("{} {}", it.name, it.version)).collect();
    assert_eq!(found, ["team/words 1.0.0", "words 0.1.0"]);
    // A version is published once, and may be published again as it is.
    publish(&address, &plugin("words", "0.1.0", "a"), Some(&key), false).unwrap();
    let told = publish(&address, &plugin("words", "0.1.0", "b"), None, false).unwrap_err().to_string();
    assert!(told.contains("holds another words 0.1.0; published versions don't change"), "{told}");
}

#[test]
fn a_plugins_own_folder_is_a_source() {
    let user = User::new();
    write_plugin(&user.folder().join("words"), "words", "0.1.0", "a");
    let resolution = user.run(Mode::Keep, "words", "^0.1", "words").unwrap();
    assert_eq!(resolution.plugins[0].pin.source.as_deref(), Some("words"));
    // Edited without another version: the pin says so.
    write_plugin(&user.folder().join("words"), "words", "0.1.0", "b");
    user.store().remove(&"words".parse().unwrap(), None).unwrap();
    let told = user.refused(Mode::Locked, "words", "^0.1", "words");
    assert!(
        told.starts_with("`words` 0.1.0 from `HOME/words` was changed: its digest is sha256:DIGEST"),
        "{told}"
    );
}

#[test]
fn components_in_no_package_are_pinned_too() {
    let mut user = User::new();
    let component = user.folder().join("mine.wasm");
    std::fs::write(&component, "one").unwrap();
    let wanted = [Wanted { name: "mine".into(), component: Some(component.clone()), ..Wanted::default() }];
    let resolution = resolve(&user.resolver(Mode::Keep), &wanted, &[]).unwrap();
    assert!(!resolution.save().unwrap() && !user.lock_path().exists(), "a run of one's own left a lock file");
    resolution.save_all().unwrap();
    resolve(&user.resolver(Mode::Locked), &wanted, &[]).unwrap();
    std::fs::write(&component, "two").unwrap();
    let told = resolve(&user.resolver(Mode::Locked), &wanted, &[]).unwrap_err().to_string();
    insta::assert_snapshot!(user.told(&told), @r"
    `--locked`, but `HOME/plugins.lock` does not fit
      `mine`: `HOME/mine.wasm` has digest sha256:DIGEST, but sha256:DIGEST is pinned
    hint: `fthost plugin update` writes it anew; `--dry-run` shows what would change
    ");
    // Without `--locked` one's own component may change, and the lock file follows.
    let resolution = resolve(&user.resolver(Mode::Keep), &wanted, &[]).unwrap();
    assert_eq!(resolution.changes().len(), 1);
    assert!(resolution.save().unwrap());
    // Where a policy asks for a signature of every name, one's own is none.
    user.trusts("*", &SecretKey::generate().unwrap());
    let told = resolve(&user.resolver(Mode::Keep), &wanted, &[]).unwrap_err().to_string();
    assert!(told.starts_with("`mine` (a component in no package) is not signed"), "{told}");
}

#[test]
fn what_is_changed_in_the_store_is_refused_and_pulled_anew() {
    let place = tempfile::tempdir().unwrap();
    let address = place.path().display().to_string();
    publish(&address, &plugin("words", "0.1.0", "a"), None, false).unwrap();
    let user = User::new();
    let resolution = user.run(Mode::Keep, "words", "*", &address).unwrap();
    let (words, _) = &resolution.plugins[0].resources["words.txt"];
    std::fs::write(words, "b").unwrap();
    let told = user.refused(Mode::Locked, "words", "*", &address);
    assert!(told.starts_with("`words` 0.1.0 from `HOME/cache/packages/"), "{told}");
    let from = Place::parse(&address, Path::new("")).unwrap();
    let any = "*".parse().unwrap();
    fthost_registry::pull(&user.resolver(Mode::Keep), &from, &"words".parse().unwrap(), &any, false).unwrap();
    user.run(Mode::Locked, "words", "*", &address).unwrap();
}

#[test]
fn an_update_says_what_would_change() {
    let place = tempfile::tempdir().unwrap();
    let address = place.path().display().to_string();
    publish(&address, &plugin("words", "0.1.0", "a"), None, false).unwrap();
    let user = User::new();
    user.run(Mode::Keep, "words", "^0.1", &address).unwrap();
    publish(&address, &plugin("words", "0.1.1", "b"), None, false).unwrap();
    // A run stays with what is pinned.
    let kept = user.run(Mode::Keep, "words", "^0.1", &address).unwrap();
    assert!(kept.changes().is_empty());
    let updated = user.run(Mode::Update, "words", "^0.1", &address).unwrap();
    let changes = updated.changes();
    assert!(changes.len() == 1 && changes[0].starts_with("~ words 0.1.0 sha256:"), "{changes:?}");
    assert!(changes[0].contains(" -> 0.1.1 sha256:"), "{changes:?}");
    assert_eq!(
        Lock::read(&user.lock_path()).unwrap(),
        Some(kept.lock.clone()),
        "looking changed the lock file"
    );
}

#[test]
fn a_signature_is_verified_against_a_key() {
    let (team, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    let package = plugin("words", "0.1.0", "a");
    let envelope = fthost_registry::Envelope::sign(&package, &team, None);
    let trust = fthost_registry::TrustPolicy::default();
    assert_eq!(verify(&trust, &package, Some(&envelope), Some(&team.public())).unwrap(), [team.public()]);
    assert!(verify(&trust, &package, Some(&envelope), Some(&other.public())).is_err());
    let told = verify(&trust, &package, None, None).unwrap_err().to_string();
    assert_eq!(told, "the signature of `words` 0.1.0 is wrong: there is none; it is refused");
}
