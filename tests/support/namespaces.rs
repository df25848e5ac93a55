//! Two network namespaces with a cable between them: two machines, as far as a network can tell.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::mpirun::many;

/// The two, until they are dropped.
pub struct Namespaces {
    names: [String; 2],
    links: [String; 2],
    /// What `mpirun` calls to start something on the other machine.
    agent: PathBuf,
    _folder: tempfile::TempDir,
}

/// Addresses of the two.
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
const NETWORK: &str = "10.77.0.0/24";

fn ip(arguments: &str) -> Option<Output> {
    Command::new("ip").args(arguments.split_whitespace()).output().ok().filter(|it| it.status.success())
}

impl Namespaces {
    /// `None` where this process may not make any, or lacks what it takes.
    pub fn new() -> Option<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let id = format!("{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let [names, links] = ["fthost", "ft"].map(|it| ["a", "b"].map(|which| format!("{it}{which}{id}")));
        let folder = tempfile::tempdir().ok()?;
        let agent = folder.path().join("agent");
        // A machine has a name of its own.
        let [_, other] = &names;
        let script = format!(
            "#!/bin/sh\nshift\nexec ip netns exec {other} unshare --uts sh -c \"hostname {other}; $*\"\n"
        );
        std::fs::write(&agent, script).ok()?;
        Command::new("chmod").arg("+x").arg(&agent).status().ok()?;
        let made = Self { names, links, agent, _folder: folder };
        let ([a, b], [x, y]) = (&made.names, &made.links);
        ip(&format!("netns add {a}"))?;
        ip(&format!("netns add {b}"))?;
        ip(&format!("link add {x} netns {a} type veth peer name {y} netns {b}"))?;
        for (name, (link, address)) in made.names.iter().zip(made.links.iter().zip(ADDRESSES)) {
            ip(&format!("-n {name} addr add {address}/24 dev {link}"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set {link} up"))?;
        }
        Some(made)
    }

    /// `mpirun` on the first machine, with a rank on each, which reach each other by TCP alone.
    pub fn mpirun(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[0], "mpirun"]);
        many(&mut command);
        command.args(["-np", "2", "--host", &ADDRESSES.join(","), "--mca", "plm_rsh_agent"]).arg(&self.agent);
        for (key, value) in [
            ("pml", "ob1"),
            ("btl", "self,tcp"),
            ("btl_tcp_if_include", NETWORK),
            ("oob_tcp_if_include", NETWORK),
        ] {
            command.args(["--mca", key, value]);
        }
        command.args(["-x", "RAYON_NUM_THREADS"]);
        command
    }

    /// Pulls the cable.
    pub fn disconnect(&self) {
        assert!(ip(&format!("-n {} link set {} down", self.names[1], self.links[1])).is_some());
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // Whatever still runs there.
            if let Some(found) = ip(&format!("netns pids {name}")) {
                for pid in String::from_utf8_lossy(&found.stdout).lines() {
                    let _ = Command::new("kill").args(["-KILL", pid]).status();
                }
            }
            ip(&format!("netns del {name}"));
        }
    }
}
