//! Emulators that stop in the middle of the firmware, the loader or the kernel's start.
//!
//! What a system does before its first process is decided by the firmware, the kernel, and the initrd's bytes; where those
//! are the ones of a boot that came up before, a stop there is the emulator's. From the first process on every stop is the
//! system's, and nothing here speaks of it.

use std::{
    fmt,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::monitor;

/// Many times what any of those steps takes.
const SILENCE: Duration = Duration::from_secs(90);
/// The same in time on the host's processors, of which a busy host gives little: firmware and loader together need some
/// 15 s, and 45 s on a host that is three times slower.
const BUSY: Duration = Duration::from_mins(1);
/// The same for all from power on to the first process, whatever the kernel says meanwhile: one that hangs may report so
/// again and again. Some 30 s are usual.
const ENOUGH: Duration = Duration::from_mins(4);
/// The kernel's last word before the first process.
const FIRST_PROCESS: &str = "as init process";

/// What is known of an emulator's progress since it was powered on.
#[derive(Debug)]
pub(super) struct Watch {
    console: PathBuf,
    /// Bytes of the console when the power came.
    begin: u64,
    length: u64,
    moved: Instant,
    busy: Duration,
    first_process: bool,
}

/// An emulator that hangs, and what shows it.
#[derive(Debug)]
pub struct Hang {
    silence: Duration,
    busy: Duration,
    used: Duration,
    registers: String,
}

impl Watch {
    /// Begins when the power comes.
    pub(super) fn new(console: &Path) -> Self {
        let length = length(console);
        let (moved, busy) = (Instant::now(), Duration::ZERO);
        Self { console: console.to_owned(), begin: length, length, moved, busy, first_process: false }
    }

    /// Whether the emulator with the process ID `pid` hangs; to be asked all the time.
    pub(super) fn look(&mut self, pid: u32, socket: &Path) -> Result<Option<Hang>> {
        if self.first_process {
            return Ok(None);
        }
        let (length, used) = (length(&self.console), busy(pid)?);
        if length != self.length {
            (self.length, self.moved, self.busy) = (length, Instant::now(), used);
        }
        if used < ENOUGH && self.moved.elapsed() < SILENCE {
            return Ok(None);
        }
        self.first_process = self.said_since_power_on()?.contains(FIRST_PROCESS);
        if self.first_process {
            return Ok(None);
        }
        let registers = monitor::registers(socket).unwrap_or_else(|error| format!("{error:#}"));
        let busy = used.saturating_sub(self.busy);
        let hang = Hang { silence: self.moved.elapsed(), busy, used, registers };
        Ok((used >= ENOUGH || busy >= BUSY || hang.all_halted()).then_some(hang))
    }

    fn said_since_power_on(&self) -> Result<String> {
        let mut text = Vec::new();
        let mut file = File::open(&self.console).context("open the console's log")?;
        file.seek(SeekFrom::Start(self.begin)).context("read the console's log")?;
        file.read_to_end(&mut text).context("read the console's log")?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl std::error::Error for Hang {}

impl Hang {
    /// Whether every processor waits for an interrupt.
    fn all_halted(&self) -> bool {
        let halted = |word: &str| self.registers.matches(word).count();
        halted("HLT=1") > 0 && halted("HLT=0") == 0
    }
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.all_halted() { "its processors wait" } else { "its processors are busy" };
        write!(
            f,
            "the emulator hangs before the system's first process: it used {} s of this host's processors since power on, {} \
             of them since its last word {} s ago; {what}:\n{}",
            self.used.as_secs(),
            self.busy.as_secs(),
            self.silence.as_secs(),
            self.registers
        )
    }
}

fn length(console: &Path) -> u64 {
    fs::metadata(console).map_or(0, |metadata| metadata.len())
}

/// Time on the host's processors of all threads of a process: the first number of `schedstat`, in nanoseconds
/// (`Documentation/scheduler/sched-stats.rst` of Linux).
fn busy(pid: u32) -> Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let mut nanoseconds = 0;
    for thread in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        // A thread may have ended a moment ago.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}
