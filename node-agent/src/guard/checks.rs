//! The host's own health checks: programs of the image that each say by their exit status whether this boot is healthy.

use std::{
    collections::BTreeMap,
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
/// How often a check that has passed may say no before it counts.
const RELAPSES: u32 = 2;
const PAUSE: Duration = Duration::from_secs(10);
/// A check that takes longer hangs.
const TIMEOUT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);
/// What is read of a check's messages; the last line of it is told.
const MESSAGE_BYTES_MAX: u64 = 64 << 10;

/// The programs of a folder, and what they said in this boot.
pub(crate) struct Checks {
    folder: PathBuf,
    /// When all of them said yes for the first time, or were asked again.
    passed: Option<Instant>,
    /// How often each said no after that.
    relapses: BTreeMap<PathBuf, u32>,
}

impl Checks {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), passed: None, relapses: BTreeMap::new() }
    }

    /// Whether all of them said yes once.
    pub(crate) fn passed(&self) -> bool {
        self.passed.is_some()
    }

    /// Whether it is time to ask: what is healthy when it has just started may not stay so.
    pub(crate) fn due(&self) -> bool {
        self.passed.is_none_or(|asked| asked.elapsed() >= PAUSE)
    }

    /// Runs every program, in the order of their names, and none beyond `end`. The error says which failed, and how.
    pub(crate) fn ask(&mut self, end: Instant) -> Result<(), String> {
        for program in programs(&self.folder) {
            if self.passed() { self.again(&program, end)? } else { first(&program, end)? }
        }
        self.passed = Some(Instant::now());
        Ok(())
    }

    /// One no of a program that said yes before may be an accident; a second one is not, whatever it said between them.
    fn again(&mut self, program: &Path, end: Instant) -> Result<(), String> {
        let relapses = self.relapses.entry(program.to_owned()).or_default();
        while let Err(failure) = once(program, end) {
            if Instant::now() >= end {
                // It was cut off, which says nothing.
                return Ok(());
            }
            *relapses += 1;
            tracing::warn!(program = %program.display(), relapses, failure, "health check failed after it had passed");
            if *relapses == RELAPSES {
                return Err(format!(
                    "the health check {} said no {RELAPSES} times after it had passed: {failure}",
                    program.display()
                ));
            }
            thread::sleep(PAUSE.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}

fn programs(folder: &Path) -> Vec<PathBuf> {
    let mut programs: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(listing) => listing.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    programs.sort();
    programs
}

fn first(program: &Path, end: Instant) -> Result<(), String> {
    let mut attempt = 0;
    while let Err(failure) = once(program, end) {
        attempt += 1;
        tracing::warn!(program = %program.display(), attempt, failure, "health check failed");
        if attempt == TRIES || Instant::now() + PAUSE >= end {
            return Err(format!(
                "the health check {} failed, asked {attempt} times: {failure}",
                program.display()
            ));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Asks a program; the error says how it said no.
fn once(program: &Path, end: Instant) -> Result<(), String> {
    match run(program, end.min(Instant::now() + TIMEOUT)) {
        Ok((Some(status), _)) if status.success() => Ok(()),
        Ok((Some(status), said)) => Err(format!("{status} ({said})")),
        Ok((None, said)) => Err(format!("it did not end in time ({said})")),
        Err(error) => Err(error.to_string()),
    }
}

/// How a program ended, if it did before `end`, and the last line that it wrote to stderr.
fn run(program: &Path, end: Instant) -> io::Result<(Option<ExitStatus>, String)> {
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

    fn ask(folder: &Path, end: Instant) -> Result<(), String> {
        Checks::new(folder).ask(end)
    }

    #[test]
    fn a_folder_of_good_checks_or_of_none_passes() {
        assert_eq!(ask(folder("exit 0").path(), in_seconds(30)), Ok(()));
        assert_eq!(ask(Path::new("/nowhere/at/all"), in_seconds(30)), Ok(()));
    }

    #[test]
    fn a_failing_check_is_named_with_its_last_words() {
        let folder = folder("echo first >&2; echo 'no disk' >&2; exit 4");
        let said = ask(folder.path(), in_seconds(9)).unwrap_err();
        assert!(said.contains("10-check") && said.contains("no disk") && said.contains('4'), "{said}");
    }

    #[test]
    fn a_check_that_never_ends_is_ended() {
        let folder = folder("sleep 1000 & sleep 1000");
        let begun = Instant::now();
        let said = ask(folder.path(), in_seconds(2)).unwrap_err();
        assert!(said.contains("did not end in time"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_check_that_flaps_fails_at_its_second_no() {
        let count = tempfile::NamedTempFile::new().unwrap();
        // Yes, no, yes, no, …
        let count = count.path().display();
        let flapping = folder(&format!("echo >> '{count}'; [ $(($(wc -l < '{count}') % 2)) -eq 1 ]"));
        let mut checks = Checks::new(flapping.path());
        assert!(checks.due() && !checks.passed());
        assert_eq!(checks.ask(in_seconds(60)), Ok(()));
        assert!(checks.passed() && !checks.due());
        assert_eq!(checks.ask(in_seconds(1)), Ok(()));
        // When the second was cut off, it is not known which comes next.
        let said = (0..3).find_map(|_| checks.ask(in_seconds(60)).err()).unwrap();
        assert!(said.contains("10-check") && said.contains("2 times after it had passed"), "{said}");
    }

    #[test]
    fn what_the_deadline_cuts_off_is_not_held_against_a_check_that_passed() {
        let marker = tempfile::tempdir().unwrap();
        let folder = folder(&format!("mkdir '{}/once' || sleep 1000", marker.path().display()));
        let mut checks = Checks::new(folder.path());
        assert_eq!(checks.ask(in_seconds(30)), Ok(()));
        for _ in 0..3 {
            assert_eq!(checks.ask(in_seconds(1)), Ok(()));
        }
    }
}
