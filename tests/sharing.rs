//! `fthost plugin push`, `pull` and their like: two users with homes of their own, and a registry on loopback.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::model::write_model;
use crate::support::registry::Registry;
use crate::support::root;
use crate::support::workplace::RUN_FILE;

/// Somebody with a home of their own, in which the program runs.
struct User {
    home: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn output(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_fthost"))
            .args(line.split(' '))
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("XDG_CACHE_HOME", self.home.path().join(".cache"))
            .env("XDG_CONFIG_HOME", self.home.path().join(".config"))
            .env_remove("FTHOST_PLUGIN_PATH")
            .env_remove("DOCKER_CONFIG")
            .output()
            .expect("the fthost program starts")
    }

    /// What `fthost <line>` says; what differs from run to run is left out.
    fn told(&self, line: &str) -> String {
        let output = self.output(line);
        let (mut text, code) = (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap());
        text += &String::from_utf8(output.stderr).unwrap();
        if code != 0 {
            text += &format!("exit code {code}\n");
        }
        let home = self.home.path().display().to_string();
        let mut text = text.replace(&format!("{home}/"), "").replace(&home, ".");
        for (pattern, short) in [
            ("sha256:[0-9a-f]{64}", "sha256:DIGEST"),
            ("sha256:[0-9a-f]{12}", "sha256:SHORT"),
            ("ed25519:[A-Za-z0-9+/]{43}=", "ed25519:KEY"),
            (r"127\.0\.0\.1:[0-9]+", "REGISTRY"),
        ] {
            text = regex::Regex::new(pattern).unwrap().replace_all(&text, short).into_owned();
        }
        text
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.home.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, path: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.home.path().join(path)).unwrap()
    }

    /// A plugin's folder `words`.
    fn write_plugin(&self, version: &str, words: &str) {
        self.write(
            "words/plugin.toml",
            format!(
                "name = \"team/words\"\nversion = \"{version}\"\nroles = [\"reward\"]\nlicense = \"MIT\"\n\
                 description = \"Counts words\"\ncontract = \"0.2\"\n[resources]\nlist = \"words.txt\"\n"
            ),
        );
        self.write("words/words.wasm", COMPONENT);
        self.write("words/words.txt", words);
    }

    /// A secret key; its public half.
    fn key(&self, file: &str) -> String {
        let output = self.output(&format!("plugin key new {file}"));
        let told = String::from_utf8(output.stdout).unwrap();
        told.split_whitespace().find(|it| it.starts_with("ed25519:")).unwrap().to_string()
    }
}

/// The smallest component: it can be shared, though nothing can be done with it.
const COMPONENT: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

#[test]
fn two_homes_exchange_a_signed_set() {
    let Some(registry) = Registry::start() else { return };
    let (team, user) = (User::new(), User::new());
    let place = registry.place("shared/");
    let public = team.key("team.key");
    team.write_plugin("0.1.0", "a");
    team.write(
        "length.toml",
        format!(
            "name = \"team/length\"\nversion = \"1.0.0\"\nsummary = \"Short answers\"\n\
             [plugins.\"team/words\"]\nversion = \"^0.1\"\nsource = \"{place}\"\n"
        ),
    );
    insta::assert_snapshot!(team.told(&format!("plugin push words {place} --key team.key --no-verify")), @r"
    published team/words 0.1.0
      place     oci://REGISTRY/shared/team/words:0.1.0
      digest    sha256:DIGEST
      signed by ed25519:KEY
    ");
    insta::assert_snapshot!(team.told("plugin sign length.toml --key team.key"), @r"
    signed team/length 1.0.0 in `length.sig`
      digest    sha256:DIGEST
      signed by ed25519:KEY
    ");
    insta::assert_snapshot!(team.told("plugin verify length.toml"), @r"
    team/length 1.0.0 is as it was signed
      digest    sha256:DIGEST
      signed by ed25519:KEY
    ");
    team.told(&format!("plugin push length.toml {place}"));

    insta::assert_snapshot!(user.told(&format!("plugin search {place}")), @r"
    team/length  1.0.0     Short answers
    team/words   0.1.0     Counts words
    ");
    insta::assert_snapshot!(user.told(&format!("plugin search {place} SHORT")), @"team/length  1.0.0     Short answers");
    user.write(
        ".config/fthost/trust.toml",
        format!("[[publishers]]\nname-patterns = [\"team/*\"]\nkeys = [\"{public}\"]\n"),
    );
    insta::assert_snapshot!(user.told(&format!("plugin pull team/length {place}")), @r"
    pulled team/length 1.0.0
      from      oci://REGISTRY/shared/
      digest    sha256:DIGEST
      signed by ed25519:KEY
    ");
    user.write("run.toml", "plugin_sets = [\"team/length\"]\n");
    insta::assert_snapshot!(user.told("plugin update run.toml --dry-run"), @r"
    + team/words 0.1.0 sha256:SHORT
    + set team/length 1.0.0 sha256:SHORT
    `plugins.lock` is left as it is
    ");
    assert!(!user.home.path().join("plugins.lock").exists());
    insta::assert_snapshot!(user.told("plugin update run.toml"), @r"
    + team/words 0.1.0 sha256:SHORT
    + set team/length 1.0.0 sha256:SHORT
    `plugins.lock` is written
    ");
    let lock = user.read("plugins.lock");
    assert_eq!(lock.matches(&format!("signer = \"{public}\"")).count(), 2, "{lock}");
    insta::assert_snapshot!(user.told("plugin update run.toml"), @"`plugins.lock` is up to date");

    // A new version; one that a squatter signs; the old one again.
    team.write_plugin("0.1.1", "b");
    team.told(&format!("plugin push words {place} --key team.key --no-verify"));
    insta::assert_snapshot!(user.told("plugin update run.toml --dry-run"), @r"
    ~ team/words 0.1.0 sha256:SHORT -> 0.1.1 sha256:SHORT
    `plugins.lock` is left as it is
    ");
    team.key("squatter.key");
    team.write_plugin("0.1.2", "c");
    team.told(&format!("plugin push words {place} --key squatter.key --no-verify"));
    insta::assert_snapshot!(user.told("plugin update run.toml"), @r"
    error: `team/words` 0.1.2 is signed by ed25519:KEY, whom `.config/fthost/trust.toml` does not allow to publish `team/*`; it is refused
    hint: if that key is its publisher's, add it to `keys`
    exit code 4
    ");
    assert_eq!(user.read("plugins.lock"), lock, "a refused update changed the lock file");
    insta::assert_snapshot!(user.told("plugin verify team/words"), @r"
    team/words 0.1.1 is as it was signed
      digest    sha256:DIGEST
      signed by ed25519:KEY
    ");
    insta::assert_snapshot!(user.told("plugin verify team/words --key ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="), @r"
    error: the signature of `team/words` 0.1.1 is wrong: ed25519:KEY did not sign this; it is refused
    exit code 4
    ");
    insta::assert_snapshot!(user.told("plugin remove team/words@0.1.0"), @"removed team/words 0.1.0");
    insta::assert_snapshot!(user.told("plugin remove team/words"), @"removed team/words 0.1.1");
}

#[test]
fn a_changed_byte_in_the_registry_is_refused() {
    let Some(registry) = Registry::start() else { return };
    let (team, user) = (User::new(), User::new());
    let place = registry.place("team/words");
    team.write_plugin("0.1.0", "a word");
    team.told(&format!("plugin push words {place} --no-verify"));
    std::fs::write(registry.blob(b"a word"), "a worm").unwrap();
    insta::assert_snapshot!(user.told(&format!("plugin pull team/words {place}")), @r"
    error: `words.txt` from `oci://REGISTRY/team/words:0.1.0` was changed: its digest is sha256:DIGEST, not sha256:DIGEST; it is refused
    exit code 4
    ");
    assert!(!user.home.path().join(".cache/fthost/packages").exists(), "something of it was kept");
}

#[test]
fn a_run_pins_its_packages_and_locked_takes_nothing_else() {
    let component = root().join("plugins/dist/json-match.wasm");
    assert!(component.is_file(), "`{}` is missing: run `plugins/build`", component.display());
    let (team, user) = (User::new(), User::new());
    let shared = tempfile::tempdir().unwrap();
    let place = format!("file://{}", shared.path().display());
    let manifest = "name = \"team/json-match\"\nversion = \"0.1.0\"\nroles = [\"reward\"]\nlicense = \"Apache-2.0\"\n\
                    description = \"The expected object\"\ncontract = \"0.2\"\n";
    team.write("json-match/plugin.toml", manifest);
    team.write("json-match/json-match.wasm", std::fs::read(component).unwrap());
    let public = team.key("team.key");
    team.told(&format!("plugin push json-match {place} --key team.key"));

    write_model(&user.home.path().join("model"));
    user.write("rows.jsonl", "{\"prompt\": \"What?\", \"completion\": \" That.\"}\n".repeat(8));
    user.write(
        "run.toml",
        format!("{RUN_FILE}\n[plugins.\"team/json-match\"]\nversion = \"^0.1\"\nsource = \"{place}\"\n"),
    );
    insta::assert_snapshot!(user.told("run run.toml --quiet --locked"), @r"
    error: `--locked`, but `plugins.lock` does not fit
      there is no such file
    hint: `fthost plugin update` writes it anew; `--dry-run` shows what would change
    exit code 2
    ");
    insta::assert_snapshot!(user.told("run run.toml --quiet --set train.steps=1"), @"");
    let lock = user.read("plugins.lock");
    assert!(
        lock.contains("name = \"team/json-match\"") && lock.contains(&format!("signer = \"{public}\"")),
        "{lock}"
    );
    let audit = user.told("plugin audit out --json");
    assert!(audit.contains("ed25519:KEY"), "{audit}");
    // The same, pinned.
    insta::assert_snapshot!(user.told("run run.toml --quiet --locked --overwrite --set train.steps=1"), @"");
    assert_eq!(user.read("plugins.lock"), lock);
    insta::assert_snapshot!(user.told("run run.toml --quiet --locked --overwrite --set plugins.team/json-match.version=^0.2"), @r"
    error: `--locked`, but `plugins.lock` does not fit
      `team/json-match` must satisfy `^0.2`, but 0.1.0 is pinned
    hint: `fthost plugin update` writes it anew; `--dry-run` shows what would change
    exit code 2
    ");
    // Whose key is not trusted, now that somebody asks.
    user.write("trust.toml", "[[publishers]]\nname-patterns = [\"team/*\"]\nkeys = []\n");
    insta::assert_snapshot!(user.told("run run.toml --quiet --locked --overwrite"), @r"
    error: `team/json-match` 0.1.0 is signed by ed25519:KEY, whom `trust.toml` does not allow to publish `team/*`; it is refused
    hint: if that key is its publisher's, add it to `keys`
    exit code 4
    ");
}

#[test]
fn a_component_that_is_not_what_its_manifest_says_is_not_published() {
    let component = root().join("plugins/dist/json-match.wasm");
    assert!(component.is_file(), "`{}` is missing: run `plugins/build`", component.display());
    let team = User::new();
    team.write_plugin("0.3.0", "a");
    team.write("words/words.wasm", std::fs::read(component).unwrap());
    insta::assert_snapshot!(team.told("plugin push words shared"), @r"
    error: `words`: manifest and component disagree
      `name` is `team/words`, the component's own is `json-match`
      `version` is 0.3.0, the component's own is 0.1.0
    hint: build the component again, or correct `plugin.toml`
    exit code 2
    ");
    assert!(!team.home.path().join("shared").exists(), "something of it was published");
    let key = team.key("team.key");
    team.told("plugin sign words --key team.key");
    let told = team.told("plugin inspect words");
    assert!(told.contains("\n  signature of sha256:DIGEST by ed25519:KEY\n"), "{key}: {told}");
    // What is shared is shown as it was signed, and not at all where policy or bytes are against it.
    team.told("plugin push words shared --no-verify");
    team.told("plugin pull team/words shared");
    let told = team.told("plugin inspect team/words");
    assert!(told.contains("\n  from      team/words (team/words 0.3.0)\n"), "{told}");
    assert!(told.contains("\n  signature of sha256:DIGEST by ed25519:KEY\n"), "{told}");
    team.write("words/words.txt", "b");
    insta::assert_snapshot!(team.told("plugin inspect words"), @r"
    error: the signature of `team/words` 0.3.0 is wrong: `words.txt` is not the file that was signed; it is refused
    exit code 4
    ");
}

#[test]
fn who_pushes_is_said_by_dockers_credential_file() {
    // `open sesame` by bcrypt.
    let users = "ali:$2b$04$vBwG66zx0jG5Xq7HFv1ah.rKImf5EY3usPiqy5prvhTcvA6MUWYDG\n";
    let team = User::new();
    team.write("users", users);
    let path = team.home.path().join("users").display().to_string();
    let auth = format!("auth: {{ htpasswd: {{ realm: test, path: \"{path}\" }} }}\n");
    let Some(registry) = Registry::with(&auth) else { return };
    team.write_plugin("0.1.0", "a");
    let push = format!("plugin push words {} --no-verify", registry.place("team/words"));
    insta::assert_snapshot!(team.told(&push), @r"
    error: oci://REGISTRY/team/words:0.1.0: Not authorized: url http://REGISTRY/v2/team/words/manifests/0.1.0
    hint: log in with `docker login`: its credential file is read
    exit code 4
    ");
    let credentials = |auth: &str| {
        let config = serde_json::json!({"auths": {&registry.host: {"auth": auth}}});
        team.write(".docker/config.json", config.to_string());
    };
    // Base64 of `ali:open barley`, then of `ali:open sesame`.
    credentials("YWxpOm9wZW4gYmFybGV5");
    insta::assert_snapshot!(team.told(&push), @r"
    error: oci://REGISTRY/team/words:0.1.0: Not authorized: url http://REGISTRY/v2/team/words/manifests/0.1.0
    hint: log in with `docker login`: its credential file is read
    exit code 4
    ");
    credentials("YWxpOm9wZW4gc2VzYW1l");
    insta::assert_snapshot!(team.told(&push), @r"
    published team/words 0.1.0
      place     oci://REGISTRY/team/words:0.1.0
      digest    sha256:DIGEST
      signed by nobody
    ");
}

#[test]
fn what_is_published_stays_and_what_is_lower_is_refused() {
    let (team, user) = (User::new(), User::new());
    let shared = tempfile::tempdir().unwrap();
    let place = format!("file://{}", shared.path().display());
    let told =
        |user: &User, line: &str| user.told(line).replace(&shared.path().display().to_string(), "SHARED");
    team.write_plugin("0.2.0", "a");
    insta::assert_snapshot!(told(&team, &format!("plugin push words {place} --no-verify")), @r"
    published team/words 0.2.0
      place     SHARED/team/words/0.2.0
      digest    sha256:DIGEST
      signed by nobody
    ");
    team.write_plugin("0.2.0", "b");
    insta::assert_snapshot!(told(&team, &format!("plugin push words {place} --no-verify")), @r"
    error: `SHARED/team/words/0.2.0` holds another team/words 0.2.0; published versions don't change
    hint: raise `version`, or replace it with `--force`, which breaks every lock file that pins it
    exit code 4
    ");
    user.write("run.toml", format!("[plugins.\"team/words\"]\nsource = \"{place}\"\n"));
    user.told("plugin update run.toml");
    let other = tempfile::tempdir().unwrap();
    let old = format!("file://{}", other.path().display());
    team.write_plugin("0.1.0", "a");
    team.told(&format!("plugin push words {old} --no-verify"));
    insta::assert_snapshot!(user.told(&format!("plugin pull team/words {old}")), @r"
    error: `team/words` 0.1.0 is lower than 0.2.0, which `plugins.lock` pins; it is refused
    hint: `--allow-downgrade` takes it
    exit code 4
    ");
    assert!(
        user.told(&format!("plugin pull team/words {old} --allow-downgrade"))
            .starts_with("pulled team/words 0.1.0\n")
    );
    user.write("trust.toml", "[[publishers]]\nname-patterns = [\"team/*\"]\nkeys = []\n");
    insta::assert_snapshot!(user.told(&format!("plugin pull team/words {place}")), @r"
    error: `team/words` 0.2.0 is not signed, and `trust.toml` asks for a signature of `team/*`; it is refused
    hint: ask its publisher for one (`fthost plugin sign`)
    exit code 4
    ");
    user.write("trust.toml", "[[publisher]]\n");
    insta::assert_snapshot!(user.told(&format!("plugin pull team/words {place}")), @r"
    error: invalid trust policy `trust.toml`
      TOML parse error at line 1, column 3
        |
      1 | [[publisher]]
        |   ^^^^^^^^^
      unknown field `publisher`, expected `publishers`
    exit code 2
    ");
}

#[test]
fn what_is_typed_wrong_is_told() {
    let user = User::new();
    insta::assert_snapshot!(user.told("plugin pull Team/words somewhere"), @r"
    error: `Team/words` names no package: its name can't be read
    hint: a package is `team/bleu`, `team/bleu@^0.1`, or where one version is meant `team/bleu@0.1.0`
    exit code 2
    ");
    insta::assert_snapshot!(user.told("plugin pull team/words@? somewhere"), @r"
    error: `team/words@?` names no package: its requirement can't be read
    hint: a package is `team/bleu`, `team/bleu@^0.1`, or where one version is meant `team/bleu@0.1.0`
    exit code 2
    ");
    insta::assert_snapshot!(user.told("plugin search https://example.org/x"), @r"
    error: `https://example.org/x` is no place for packages: only `oci://` and `file://` are known
    hint: a place is `oci://host/repository`, `oci://host/prefix/` for many packages, `file:///folder`, or a folder
    exit code 2
    ");
    insta::assert_snapshot!(user.told("plugin push nowhere somewhere"), @r"
    error: `nowhere` is no package: there is no such folder
    exit code 4
    ");
    user.write("words/plugin.toml", "name = \"Words\"\nversion = \"1\"\n");
    insta::assert_snapshot!(user.told("plugin push words somewhere"), @r"
    error: invalid manifest `words/plugin.toml`
      `name`: `Words` is no package's name: a name is `[a-z][a-z0-9-]*`, or two of those as in `team/bleu`
      `version`: unexpected end of input while parsing major version number
      `roles` is missing
      `license` is missing
      `description` is missing
      `contract` is missing
    exit code 2
    ");
    insta::assert_snapshot!(user.told("plugin remove team/words"), @r"
    error: `team/words` is not among the pulled packages
    hint: `fthost plugin list` names them
    exit code 4
    ");
    user.key("a.key");
    insta::assert_snapshot!(user.told("plugin key new a.key"), @r"
    error: can't write `a.key`: File exists (os error 17)
    exit code 4
    ");
    user.write("b.key", "not a key");
    insta::assert_snapshot!(user.told("plugin sign words --key a.key"), @r"
    error: invalid manifest `words/plugin.toml`
      `name`: `Words` is no package's name: a name is `[a-z][a-z0-9-]*`, or two of those as in `team/bleu`
      `version`: unexpected end of input while parsing major version number
      `roles` is missing
      `license` is missing
      `description` is missing
      `contract` is missing
    exit code 2
    ");
}

#[test]
fn each_verb_says_what_it_does() {
    let user = User::new();
    insta::assert_snapshot!(user.told("plugin push --help"), @r"
    Publish a plugin's folder or a set's file

    A place is `oci://host/repository`, `oci://host/prefix/` for many packages, each under its name,
    `file:///folder` or a folder. Docker's credential file says who pushes.

    Usage: fthost plugin push [OPTIONS] <PACKAGE> <PLACE>

    Arguments:
      <PACKAGE>
              A plugin's folder, or a set's file

      <PLACE>
              Where to publish it

    Options:
          --key <FILE>
              Sign it with this secret key

          --force
              Replace other files that were published under this version

          --no-verify
              Do not load the component to compare what it says of itself with the manifest

      -h, --help
              Print help (see a summary with '-h')
    ");
    insta::assert_snapshot!(user.told("plugin pull --help"), @r"
    Fetch a package, check it, and keep it for runs

    Usage: fthost plugin pull [OPTIONS] <PACKAGE> <PLACE>

    Arguments:
      <PACKAGE>  `name`, or `name@requirement` as in `team/bleu@^0.1`; the highest version that will do
                 is taken
      <PLACE>    Where it is published

    Options:
          --lock <FILE>      A lock file whose pins are kept to [default: plugins.lock]
          --allow-downgrade  Take a lower version than the pinned one
          --trust <FILE>     A further trust policy, beside the user's and `trust.toml` of this folder
      -h, --help             Print help
    ");
}
