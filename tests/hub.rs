//! `fthost model pull` and runs with `model.hub`, against a small server on this machine that plays the hub for a few
//! repositories.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use crate::support::root;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const INDEX: &[u8] =
    br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;

/// A server until the test ends, and the requests it got.
struct StandIn {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &seen);
            }
        });
        Self { endpoint, asked }
    }

    /// Requests so far, which are forgotten.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|it| !it.is_empty()).map(|it| it.to_lowercase()).collect();
    let path = request.split(' ').nth(1).unwrap_or_default().to_string();
    asked.lock().unwrap().push(path.clone());
    let allowed = headers.iter().any(|it| it == "authorization: bearer secret");
    let first = headers.iter().find_map(|it| it.strip_prefix("range: bytes=")?.split_once('-'));
    let response = if path.contains("/gated/") && !allowed {
        response("401 Unauthorized", "", b"")
    } else if let Some(name) = path.strip_prefix("/api/models/") {
        match repository(name.trim_end_matches("/revision/main")) {
            Some(files) => {
                let siblings: Vec<_> = files.iter().map(|it| serde_json::json!({"rfilename": it})).collect();
                let told = serde_json::json!({"sha": COMMIT, "siblings": siblings});
                response("200 OK", "content-type: application/json\r\n", told.to_string().as_bytes())
            }
            None => response("404 Not Found", "", b""),
        }
    } else if let (Some((_, name)), Some((start, end))) =
        (path.split_once(&format!("/resolve/{COMMIT}/")), first)
    {
        let bytes = contents(name);
        let start: usize = start.parse().unwrap();
        let end = end.parse().map_or(bytes.len(), |end: usize| end + 1);
        let told = format!(
            "etag: \"{name}-1\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes {start}-{}/{}\r\n",
            end - 1,
            bytes.len()
        );
        response("206 Partial Content", &told, &bytes[start..end])
    } else {
        response("404 Not Found", "", b"")
    };
    let _ = stream.write_all(&response);
}

fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn repository(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "tiny/whole" | "gated/whole" => {
            Some(&["README.md", "config.json", "model.safetensors", "pytorch_model.bin"])
        }
        "tiny/sharded" => Some(&[
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ]),
        "tiny/chat" => Some(&[
            "chat_template.jinja",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ]),
        "tiny/pickled" => Some(&["config.json", "pytorch_model.bin"]),
        _ => None,
    }
}

fn contents(name: &str) -> Vec<u8> {
    match name {
        "model.safetensors.index.json" => INDEX.to_vec(),
        shard if shard.contains("-of-") => shard.as_bytes().to_vec(),
        name => std::fs::read(root().join("host/run/embedded/model").join(name)).unwrap(),
    }
}

/// Runs the program with `home` as the hub's home, and nothing else of this machine's settings.
fn fthost(args: &[&str], endpoint: &str, home: &Path, more: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fthost"));
    for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"] {
        command.env_remove(name);
    }
    command.args(args).current_dir(root()).env("HF_HOME", home).env("HF_ENDPOINT", endpoint);
    command.env("NO_PROXY", "127.0.0.1").envs(more.iter().copied()).output().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|it| it.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The folder that `pull` printed.
#[track_caller]
fn pulled(output: &Output) -> std::path::PathBuf {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().trim_matches('`').into()
}

#[track_caller]
fn refused(output: &Output, server: &str) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).replace(server, "[hub]").trim_end().to_string()
}

#[test]
fn only_what_a_model_needs_is_fetched_and_only_once() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    let pull = || fthost(&["model", "pull", "tiny/whole"], &hub.endpoint, home.path(), &[]);
    let folder = pulled(&pull());
    assert!(
        folder.starts_with(home.path().join("hub/models--tiny--whole/snapshots")),
        "{}",
        folder.display()
    );
    assert_eq!(names(&folder), ["config.json", "model.safetensors"]);
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), contents("model.safetensors"));
    hub.asked();
    assert_eq!(pulled(&pull()), folder);
    assert_eq!(hub.asked(), ["/api/models/tiny/whole/revision/main"], "asked which commit, nothing fetched");
}

#[test]
fn a_run_file_names_a_model_of_the_hub() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    let row =
        r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}"#;
    std::fs::write(home.path().join("rows.jsonl"), row).unwrap();
    let path = home.path().join("run.toml");
    let text = "model.hub = \"tiny/chat\"\ndata.files = [\"rows.jsonl\"]\noutput.dir = \"out\"\n";
    std::fs::write(&path, text).unwrap();
    let run = |extra: &[&str]| {
        let args = [&["run", "--dry-run", path.to_str().unwrap()], extra].concat();
        fthost(&args, &hub.endpoint, home.path(), &[])
    };
    let output = run(&[]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("models--tiny--chat"), "{told}");
    let both = run(&["--set", "model.path=somewhere"]);
    assert_eq!(both.status.code(), Some(2));
    let told = String::from_utf8_lossy(&both.stderr).into_owned();
    assert!(told.contains("`model.path` and `hub` can't both be given"), "{told}");
}

#[test]
fn a_sharded_model_is_fetched_by_its_index() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    let folder = pulled(&fthost(&["model", "pull", "tiny/sharded"], &hub.endpoint, home.path(), &[]));
    assert_eq!(names(&folder).len(), 4, "{:?}", names(&folder));
}

#[test]
fn without_the_hub_what_was_fetched_is_used() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    let args = ["model", "pull", "tiny/whole"];
    let folder = pulled(&fthost(&args, &hub.endpoint, home.path(), &[]));
    hub.asked();
    // A port where nobody listens.
    let nobody = "http://127.0.0.1:9";
    assert_eq!(pulled(&fthost(&args, nobody, home.path(), &[])), folder);
    let offline = fthost(&args, &hub.endpoint, home.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(pulled(&offline), folder);
    let by_commit = ["model", "pull", "tiny/whole", "--revision", COMMIT];
    assert_eq!(pulled(&fthost(&by_commit, &hub.endpoint, home.path(), &[])), folder);
    assert_eq!(hub.asked(), [""; 0], "offline, and by commit, nothing is asked");
    let cache = home.path().join("hub");
    let elsewhere = [("HF_HUB_CACHE", cache.to_str().unwrap()), ("HF_HOME", "/nonexistent")];
    assert_eq!(pulled(&fthost(&args, nobody, home.path(), &elsewhere)), folder);
}

#[test]
fn a_token_opens_a_gated_model() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    let args = ["model", "pull", "gated/whole"];
    std::fs::write(home.path().join("token"), "secret\n").unwrap();
    let gated = |more: &[(&str, &str)]| fthost(&args, &hub.endpoint, home.path(), more);
    // The server's list of gated names is by path: `/api/models/gated/whole`.
    pulled(&gated(&[]));
    let told = refused(&gated(&[("HF_TOKEN", "wrong")]), &hub.endpoint);
    insta::assert_snapshot!(told, @r"
    error: can't get `gated/whole` from [hub]: the token gives no access to it
    hint: accept the model's terms on its page, or use a token that may read it
    ");
    let nothing = tempfile::tempdir().unwrap();
    let told = refused(&fthost(&args, &hub.endpoint, nothing.path(), &[]), &hub.endpoint);
    insta::assert_snapshot!(told, @r"
    error: can't get `gated/whole` from [hub]: it is private, asks for a login, or is not there
    hint: set `HF_TOKEN` to a token that may read it
    ");
}

#[test]
fn what_goes_wrong_is_told_with_one_hint() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    let told = |args: &[&str], endpoint: &str, more: &[(&str, &str)]| {
        let args = [&["model", "pull"], args].concat();
        refused(&fthost(&args, endpoint, home.path(), more), endpoint)
            .replace(home.path().to_str().unwrap(), "[home]")
    };
    let all = [
        told(&["tiny/none"], &hub.endpoint, &[]),
        told(&["tiny/whole", "--revision", "v2"], &hub.endpoint, &[]),
        told(&["tiny/pickled"], &hub.endpoint, &[]),
        told(&["../whole"], &hub.endpoint, &[]),
        told(&["tiny/whole"], &hub.endpoint, &[("HF_HUB_OFFLINE", "1")]),
        told(&["tiny/whole"], "http://127.0.0.1:9", &[]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_hub_that_says_nothing_is_given_up_after_ten_seconds() {
    // Connections are taken by the system and never answered.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (home, began) = (tempfile::tempdir().unwrap(), std::time::Instant::now());
    let output = fthost(&["model", "pull", "tiny/whole"], &endpoint, home.path(), &[]);
    let took = began.elapsed().as_secs();
    assert!((9..30).contains(&took), "{took} s");
    insta::assert_snapshot!(refused(&output, &endpoint), @r"
    error: can't get `tiny/whole` from [hub]: there was no answer within 10 s
    hint: check the network, or set `HF_ENDPOINT`; a model's folder (`model.path`) needs no network
    ");
}
