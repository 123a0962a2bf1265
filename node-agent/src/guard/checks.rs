//! The host's own health checks: programs of the image that each say by their exit status whether this boot is healthy.

use std::{
    fs, io,
    io::{Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// How often a check is asked before its no counts: services may still be settling.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(10);
/// A check that takes longer hangs.
const TIMEOUT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);
/// What is read of a check's messages; the last line of it is told.
const MESSAGE_BYTES_MAX: u64 = 64 << 10;

/// Runs every program in `folder`, in the order of their names, and none beyond `end`. The error says which failed, and
/// how.
pub(super) fn run(folder: &Path, end: Instant) -> Result<(), String> {
    let mut programs: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(listing) => listing.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    programs.sort();
    programs.iter().try_for_each(|program| ask(program, end))
}

fn ask(program: &Path, end: Instant) -> Result<(), String> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let failure = match once(program, end.min(Instant::now() + TIMEOUT)) {
            Ok((Some(status), _)) if status.success() => return Ok(()),
            Ok((Some(status), said)) => format!("{status} ({said})"),
            Ok((None, said)) => format!("it did not end in time ({said})"),
            Err(error) => error.to_string(),
        };
        tracing::warn!(program = %program.display(), attempt, failure, "health check failed");
        if attempt == TRIES || Instant::now() + PAUSE >= end {
            return Err(format!(
                "the health check {} failed, asked {attempt} times: {failure}",
                program.display()
            ));
        }
        thread::sleep(PAUSE);
    }
}

/// How a program ended, if it did before `end`, and the last line that it wrote to stderr.
fn once(program: &Path, end: Instant) -> io::Result<(Option<ExitStatus>, String)> {
    let mut messages = tempfile::tempfile()?;
    let mut child = Command::new(program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages.try_clone()?)
        .process_group(0)
        .spawn()?;
    let mut status = child.try_wait()?;
    while status.is_none() && Instant::now() < end {
        thread::sleep(POLL);
        status = child.try_wait()?;
    }
    if status.is_none() {
        if let Ok(group) = i32::try_from(child.id()) {
            // It may have ended a moment ago.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        child.wait()?;
    }
    messages.rewind()?;
    let mut text = Vec::new();
    messages.take(MESSAGE_BYTES_MAX).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let said = text.trim().lines().last().unwrap_or("no message").to_owned();
    Ok((status, said))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder(script: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("10-check");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn in_seconds(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_folder_of_good_checks_or_of_none_passes() {
        assert_eq!(run(folder("exit 0").path(), in_seconds(30)), Ok(()));
        assert_eq!(run(Path::new("/nowhere/at/all"), in_seconds(30)), Ok(()));
    }

    #[test]
    fn a_failing_check_is_named_with_its_last_words() {
        let folder = folder("echo first >&2; echo 'no disk' >&2; exit 4");
        let said = run(folder.path(), in_seconds(1)).unwrap_err();
        assert!(said.contains("10-check") && said.contains("no disk") && said.contains('4'), "{said}");
    }

    #[test]
    fn a_check_that_never_ends_is_ended() {
        let folder = folder("sleep 1000 & sleep 1000");
        let begun = Instant::now();
        let said = run(folder.path(), in_seconds(2)).unwrap_err();
        assert!(said.contains("did not end in time"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
