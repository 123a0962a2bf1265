//! Reboots through the host's init, so that services and file systems are stopped in order.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use nix::libc;

/// systemd, as PID 1, documents SIGRTMIN+5 as a request for `reboot.target`; SIGRTMIN is 34 in the C library that
/// systemd is built with.
const REBOOT_SIGNAL: libc::c_int = 34 + 5;

/// Why the reboot could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum RebootError {
    /// PID 1 was not told.
    #[error("ask the host's init to reboot: the agent needs root and the host's process namespace (hostPID)")]
    Signal(#[source] io::Error),
    /// The program could not be run.
    #[error("run {0} to reboot: check --reboot-command")]
    Command(PathBuf, #[source] io::Error),
    /// The program said no.
    #[error("{0} did not reboot the host: {1}")]
    Refused(PathBuf, ExitStatus),
}

/// Asks for a reboot, by `command` if there is one. Returns before the host goes down.
pub fn reboot(command: Option<&Path>) -> Result<(), RebootError> {
    let Some(program) = command else { return signal_init() };
    let status =
        Command::new(program).status().map_err(|source| RebootError::Command(program.to_owned(), source))?;
    if status.success() { Ok(()) } else { Err(RebootError::Refused(program.to_owned(), status)) }
}

fn signal_init() -> Result<(), RebootError> {
    nix::unistd::sync();
    // SAFETY: kill takes two integers and touches no memory of this process.
    match unsafe { libc::kill(1, REBOOT_SIGNAL) } {
        0 => Ok(()),
        _ => Err(RebootError::Signal(io::Error::last_os_error())),
    }
}
