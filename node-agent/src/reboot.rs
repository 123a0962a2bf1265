//! Reboots through the host's init, so that services and file systems are stopped in order.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::reboot::{RebootMode, reboot as kernel_reboot},
};

/// systemd, as PID 1, documents SIGRTMIN+5 as a request for `reboot.target`; SIGRTMIN is 34 in the C library that
/// systemd is built with.
const REBOOT_SIGNAL: libc::c_int = 34 + 5;
/// A disk that takes longer may never answer.
const SYNC_LIMIT: Duration = Duration::from_secs(20);

/// Why the reboot could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum RebootError {
    /// PID 1 was not told.
    #[error("ask the host's init to reboot: the agent needs root and the host's process namespace (hostPID)")]
    Signal(#[source] io::Error),
    /// The kernel did not restart the machine.
    #[error("restart this machine: the guard needs root and the host's process namespace")]
    Reset(#[source] io::Error),
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

/// Restarts the machine without its init, which did not do it: the last way back from a system that hangs.
pub fn reset() -> Result<(), RebootError> {
    let sync = thread::spawn(nix::unistd::sync);
    let end = Instant::now() + SYNC_LIMIT;
    while !sync.is_finished() && Instant::now() < end {
        thread::sleep(Duration::from_millis(100));
    }
    let Err(errno) = kernel_reboot(RebootMode::RB_AUTOBOOT);
    Err(RebootError::Reset(errno.into()))
}

fn signal_init() -> Result<(), RebootError> {
    nix::unistd::sync();
    // SAFETY: kill takes two integers and touches no memory of this process.
    match unsafe { libc::kill(1, REBOOT_SIGNAL) } {
        0 => Ok(()),
        _ => Err(RebootError::Signal(io::Error::last_os_error())),
    }
}
