//! A registry that is started for a test and ended with it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A registry on loopback, ended when it is dropped.
pub struct Registry {
    child: Child,
    pub host: String,
    data: tempfile::TempDir,
}

impl Registry {
    /// `None`, with a loud line, where there is no registry to start: `FTHOST_TEST_REGISTRY` names the program of
    /// Debian's package `docker-registry`, else it is looked for on the path.
    pub fn start() -> Option<Self> {
        Self::with("")
    }

    /// As [`Registry::start`], with `more` lines of configuration.
    pub fn with(more: &str) -> Option<Self> {
        let program = std::env::var_os("FTHOST_TEST_REGISTRY").unwrap_or_else(|| "docker-registry".into());
        let data = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            // Free a moment ago; somebody may take it before the registry does.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let config = data.path().join("config.yml");
            let storage = data.path().join("data").display().to_string();
            let text = format!(
                "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: \"{storage}\" }} }}\n\
                 http: {{ addr: \"{address}\" }}\n{more}"
            );
            std::fs::write(&config, text).unwrap();
            let started = Command::new(&program)
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let Ok(mut child) = started else {
                assert!(
                    std::env::var_os("FTHOST_TEST_REGISTRY").is_none(),
                    "FTHOST_TEST_REGISTRY names no program"
                );
                println!(
                    "SKIPPED: no registry to test with: `apt-get install docker-registry`, or FTHOST_TEST_REGISTRY"
                );
                return None;
            };
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none() {
                if std::net::TcpStream::connect(address).is_ok() {
                    return Some(Self { child, host: address.to_string(), data });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the registry did not start");
    }

    pub fn place(&self, path: &str) -> String {
        format!("oci://{}/{path}", self.host)
    }

    /// Where it keeps what it was given.
    pub fn storage(&self) -> PathBuf {
        self.data.path().join("data/docker/registry/v2")
    }

    /// The file in which it keeps the blob that holds exactly `bytes`.
    pub fn blob(&self, bytes: &[u8]) -> PathBuf {
        let folders = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
        let mut blobs =
            folders(self.storage().join("blobs/sha256")).flat_map(folders).map(|it| it.join("data"));
        blobs.find(|it| std::fs::read(it).unwrap() == bytes).expect("it was pushed")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
