//! Launchers that are at hand, and this program under them.

use std::path::PathBuf;
use std::process::{Command, Output};

use fthost_engine::parallel::LAUNCHERS;

use super::mpirun::mpirun;

/// One way to start ranks.
#[derive(Debug, Clone)]
pub enum Launcher {
    /// Open MPI's `mpirun`, over shared memory or over TCP.
    OpenMpi { tcp: bool },
    /// MPICH's `mpiexec` in a folder, by one of its two libraries.
    Mpich { folder: PathBuf, library: &'static str },
}

impl Launcher {
    /// `size` ranks of a program that is still to be named.
    pub fn command(&self, size: usize) -> Command {
        let mut command = match self {
            Self::OpenMpi { tcp } => {
                let mut command = mpirun().expect("it was found");
                if *tcp {
                    command.args(["--mca", "pml", "ob1", "--mca", "btl", "self,tcp"]);
                    command.args(["--mca", "btl_tcp_if_include", "lo"]);
                }
                command
            }
            Self::Mpich { folder, library } => {
                let mut command = Command::new(folder.join("bin/mpiexec"));
                command.env("FTHOST_MPI_LIBRARY", folder.join("lib").join(library));
                command
            }
        };
        command.args(["-np", &size.to_string()]).env("FTHOST_TEST_RANKS", size.to_string());
        command
    }

    /// No launcher: this program alone.
    pub fn none() -> Command {
        let mut command = Command::new("env");
        LAUNCHERS.iter().for_each(|it| {
            command.env_remove(it.1);
        });
        command
    }

    /// What the library calls itself.
    pub fn library(&self) -> &'static str {
        match self {
            Self::OpenMpi { .. } => "under Open MPI",
            Self::Mpich { .. } => "under MPICH",
        }
    }
}

/// Every launcher that is at hand; `test` says so where none is.
pub fn launchers(test: &str) -> Vec<Launcher> {
    let mut found = Vec::new();
    if mpirun().is_some() {
        found.extend([Launcher::OpenMpi { tcp: false }, Launcher::OpenMpi { tcp: true }]);
    }
    if let Some(folder) = std::env::var_os("FTHOST_TEST_MPICH").map(PathBuf::from) {
        let of = |library| Launcher::Mpich { folder: folder.clone(), library };
        found.extend(["libmpi.so.12", "libmpi_abi.so.1"].map(of));
    } else {
        eprintln!("SKIPPED {test} under MPICH: FTHOST_TEST_MPICH is not set");
    }
    if found.is_empty() {
        eprintln!("SKIPPED {test}: Open MPI's `mpirun` is not on the path");
    }
    found
}

/// Runs the test `name` of this program under `command`.
pub fn run(mut command: Command, name: &str) -> Output {
    let program = std::env::current_exe().unwrap();
    command.arg(program).args([name, "--exact", "--ignored", "--nocapture"]);
    // Ranks share the machine's cores.
    command.env("RAYON_NUM_THREADS", "1").output().unwrap()
}

/// As [`run`], and it passes; gives what it wrote.
pub fn under(command: Command, name: &str) -> String {
    let told = format!("{command:?}");
    let output = run(command, name);
    let said = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{told}:\n{said}");
    said
}
