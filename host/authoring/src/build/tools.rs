//! Other people's programs: found, installed below the cache folder, run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Workshop;
use crate::error::{AuthorError, Result, io};

/// Lines of a failed program's output that an error shows.
const SHOWN: usize = 20;

/// A program on `PATH`; a path is taken as it stands.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).is_file().then(|| program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|it| it.join(program)).find(|it| it.is_file())
}

/// The first of `programs` that is there.
pub(super) fn need(programs: &[&str], purpose: &str, hint: &str) -> Result<PathBuf> {
    programs.iter().find_map(|it| find(it)).ok_or_else(|| AuthorError::ToolMissing {
        tool: programs[0].to_string(),
        purpose: purpose.to_string(),
        hint: hint.to_string(),
    })
}

/// Runs `command` and gives what it printed.
pub(super) fn run(what: &str, command: &mut Command, hint: &str) -> Result<Output> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| failed(what, &error.to_string(), "", hint))?;
    if output.status.success() {
        return Ok(output);
    }
    let printed =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(failed(what, &output.status.to_string(), &tail(&printed), hint))
}

/// Runs `command`, whose messages on stderr go to the person who waits; gives its stdout.
pub(super) fn run_aloud(what: &str, command: &mut Command, hint: &str) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| failed(what, &error.to_string(), "", hint))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failed(what, &output.status.to_string(), "", hint)),
    }
}

fn failed(what: &str, reason: &str, output: &str, hint: &str) -> AuthorError {
    AuthorError::ToolFailed {
        what: what.into(),
        reason: reason.into(),
        output: output.into(),
        hint: hint.into(),
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|it| !it.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// The folder `toolchains/<name>` of the cache, filled by `install` at its first use. A failed installation leaves
/// nothing that the next build would take for a whole one.
pub(super) fn installed(
    workshop: &Workshop<'_>,
    name: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let parent = workshop.cache_dir.join("toolchains");
    std::fs::create_dir_all(&parent).map_err(io("make", &parent))?;
    let (folder, mark) = (parent.join(name), parent.join(format!("{name}.whole")));
    // One process installs, the others wait for it.
    let lock = parent.join(format!("{name}.lock"));
    let file = std::fs::File::create(&lock).map_err(io("write", &lock))?;
    file.lock().map_err(io("lock", &lock))?;
    if !mark.is_file() {
        (workshop.say)(&format!("installing {name} into `{}`", folder.display()));
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(io("remove", &folder))?;
        }
        std::fs::create_dir_all(&folder).map_err(io("make", &folder))?;
        install(&folder)?;
        std::fs::write(&mark, "").map_err(io("write", &mark))?;
    }
    Ok(folder)
}

/// A virtual environment with one package; gives its Python.
pub(super) fn python_with(
    workshop: &Workshop<'_>,
    package: &str,
    version: &str,
    purpose: &str,
) -> Result<PathBuf> {
    let folder = installed(workshop, &format!("{package}-{version}"), |folder| {
        let chosen = std::env::var("FTHOST_PYTHON").unwrap_or_else(|_| "python3".into());
        let python = need(
            &[&chosen, "python"],
            purpose,
            "install Python 3.10 or newer, or name one by FTHOST_PYTHON",
        )?;
        let hint = "Debian and Ubuntu: apt-get install python3-venv; or name another Python by FTHOST_PYTHON";
        run("python -m venv", Command::new(python).args(["-m", "venv"]).arg(folder), hint)?;
        let wanted = format!("{package}=={version}");
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &wanted]);
        run(
            &format!("pip install {wanted}"),
            &mut pip,
            "PyPI must be reachable once; what is installed is kept",
        )?;
        Ok(())
    })?;
    Ok(folder.join("bin/python"))
}
