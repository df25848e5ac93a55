//! Released versions of the contract are frozen: a plugin that was built against one must load for ever.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::root;

/// SHA-256 of every released file. A line is added when a version is released and never changed.
const RELEASED: &[(&str, &str)] = &[
    ("0.1.0/host.wit", "ee6a76ab58363dce5e3a3515bb43941f0b97cf7d7b1fd6e847fa53a9e5f28292"),
    ("0.1.0/roles.wit", "087f5a85da2b378eb5a784cd68f4cd00dc01fbcf7d379ac1abad9e1e12aaf9a1"),
    ("0.1.0/types.wit", "4c6c01df2b58161d1688fdd478f16879f8e1beb36d45618545a8e593d8d87a92"),
    ("0.1.0/worlds.wit", "980131b56839def471003163124fd44772fe11fafc091a689f2e5d576c299ac0"),
    ("0.2.0/host.wit", "c8fa47f08d615bd6a61f3a2ad23effec70a0d52000af90b3466023901a922018"),
    ("0.2.0/roles.wit", "f1c62feb220f9ded0be2c452635391c84e9bd5f4de48abf16a29c0d94f59d8e5"),
    ("0.2.0/types.wit", "437b87b114b239a06812f7c08684682230dcc6920c1940720e1b1e1f5d83efe0"),
    ("0.2.0/worlds.wit", "48f200bdc7be5b5767052b0b78a75adcdccd3cf0d3ea6a07c18c33c36b0a30ae"),
    ("1.0.0/host.wit", "337388fc29039fc4e7ae80b2ad873702463b186e6033ee5d555dae02a9d42f9f"),
    ("1.0.0/roles.wit", "56010ad8c844b4d04662f9c5087fa253cd4752ed2d68b366f3795d62311431f8"),
    ("1.0.0/types.wit", "f563d2ad414b2db3b41d840a6308bd038dc2a0f19b0ed6ecaff2d9810158f2ee"),
    ("1.0.0/worlds.wit", "7033fa1c6cd5e17c854ac5a5dfad907833d449e8df5620f00a41c1fc132f1837"),
];

/// Files below `folder` that end in `.wit`, by their path from it.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for version in std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
        for path in std::fs::read_dir(&version).unwrap().map(|it| it.unwrap().path()) {
            let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            let output = Command::new("sha256sum").arg(&path).output().unwrap();
            let digest = String::from_utf8(output.stdout).unwrap();
            found.insert(name, digest.split_whitespace().next().unwrap().to_string());
        }
    }
    found
}

#[test]
fn a_released_file_never_changes() {
    let released: BTreeMap<String, String> =
        RELEASED.iter().map(|(name, digest)| ((*name).to_string(), (*digest).to_string())).collect();
    assert_eq!(files(&root().join("wit/released")), released);
}

#[test]
fn every_version_is_described_and_the_one_in_work_is_the_newest_or_its_own() {
    let changes = std::fs::read_to_string(root().join("wit/CHANGES.md")).unwrap();
    let in_work = std::fs::read_to_string(root().join("wit/types.wit")).unwrap();
    let version =
        in_work.lines().next().unwrap().rsplit_once('@').unwrap().1.trim_end_matches(';').to_string();
    assert!(changes.contains(&format!("## {version}\n")), "{version} has no part in wit/CHANGES.md");
    for (name, _) in RELEASED {
        let (released, _) = name.split_once('/').unwrap();
        assert!(changes.contains(&format!("## {released}\n")), "{released} has no part in wit/CHANGES.md");
    }
    let newest = root().join("wit/released").join(&version);
    for name in ["host", "roles", "types", "worlds"].map(|it| format!("{it}.wit")) {
        let Ok(released) = std::fs::read_to_string(newest.join(&name)) else { continue };
        let here = std::fs::read_to_string(root().join("wit").join(&name)).unwrap();
        assert_eq!(here, released, "{name}: raise the version in wit/ before it changes again");
    }
}
