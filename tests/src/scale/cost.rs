//! What a process has taken so far, from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Ticks of a second in `/proc/PID/stat`: fixed for all that read it, whatever the kernel's own clock is.
const TICKS: f64 = 100.0;

/// What a process has taken.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The most memory that was resident at once, in bytes.
    pub peak_rss: u64,
    /// Time of processors, its own and the kernel's for it.
    pub cpu: Duration,
}

impl Cost {
    /// Of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| -> Result<String> {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = peak.trim().trim_end_matches("kB").trim().parse()?;
        // The name, in parentheses, may hold spaces; after it come state (field 3) and so on.
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace().collect();
        let ticks = |field: usize| -> Result<f64> { Ok(fields.get(field - 3).context("short")?.parse()?) };
        let cpu = Duration::from_secs_f64((ticks(14)? + ticks(15)?) / TICKS);
        Ok(Self { peak_rss: kib * 1024, cpu })
    }
}
