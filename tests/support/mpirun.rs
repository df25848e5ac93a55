//! Open MPI's launcher, for the tests of the program and of the engine.

use std::process::Command;

/// `mpirun` with more ranks than cores, and as root where the tests are; `None` where Open MPI's is not on the path.
pub fn mpirun() -> Option<Command> {
    let version = Command::new("mpirun").arg("--version").output();
    if !version.is_ok_and(|it| it.stdout.starts_with(b"mpirun (Open MPI)")) {
        return None;
    }
    let mut command = Command::new("mpirun");
    many(&mut command);
    Some(command)
}

/// Lets a `command` of `mpirun` start more ranks than there are cores, and as root.
pub fn many(command: &mut Command) {
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(["--oversubscribe", "--bind-to", "none"]);
}
