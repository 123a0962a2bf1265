//! Programs that run beside their owner and never outlive it.

mod output;
mod port;
mod scratch;
mod spawner;

use std::{
    fs::{self, File},
    future::Future,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::time::sleep;

pub use output::output;
pub use port::Port;
pub use scratch::Scratch;

/// Lines of a log that an error shows: what a program says when it gives up is at the end.
const TAIL_LINES: usize = 25;
const POLL: Duration = Duration::from_millis(50);

/// A program that runs; it and all that it started ends when this is dropped, and when this process ends, however.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Service {
    /// Starts a program with its output appended to the file `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let open = || -> io::Result<File> {
            if let Some(folder) = log.parent() {
                fs::create_dir_all(folder)?;
            }
            File::options().create(true).append(true).open(log)
        };
        let output = open().with_context(|| format!("open the log {}", log.display()))?;
        let errors = output.try_clone().context("duplicate a file descriptor")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let program = command.get_program().to_owned();
        let child = spawner::spawn(command)
            .with_context(|| format!("start {name} ({})", Path::new(&program).display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), ended: None })
    }

    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log's file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// SIGKILL to it and all that it started.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::SIGKILL);
            self.ended = self.child.wait().ok();
        }
    }

    /// SIGTERM, without waiting for its end.
    pub fn terminate(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM);
        }
    }

    /// SIGTERM, and SIGKILL if it has not ended within `patience`. Whether it ended by itself, and how.
    pub async fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.terminate();
        let end = Instant::now() + patience;
        while self.ended().is_none() && Instant::now() < end {
            sleep(POLL).await;
        }
        let ended = self.ended();
        self.kill();
        ended
    }

    /// SIGSTOP to it and all that it started: it stands still until it is resumed or killed.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT: it goes on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // It may have ended a moment ago.
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }

    /// The end of the log.
    pub fn tail(&self) -> String {
        last_lines(&fs::read(&self.log).unwrap_or_default())
    }

    /// Waits until `probe` gives a value. The error says why the program ended, or what the last probe said, with the
    /// end of the log.
    pub async fn wait<T, P, F>(&mut self, what: &str, limit: Duration, mut probe: P) -> Result<T>
    where
        P: FnMut() -> F,
        F: Future<Output = Result<T>>,
    {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                bail!(
                    "{} ended ({status}) before it was {what}; the end of its log:\n{}",
                    self.name,
                    self.tail()
                );
            }
            let said = match tokio::time::timeout(limit, probe()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer".to_owned(),
            };
            if start.elapsed() > limit {
                let seconds = limit.as_secs();
                return Err(anyhow!(
                    "{} was not {what} within {seconds} s ({said}); the end of its log:\n{}",
                    self.name,
                    self.tail()
                ));
            }
            sleep(POLL).await;
        }
    }
}

/// The end of what a program said.
pub(crate) fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}
