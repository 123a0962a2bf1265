//! What a process has taken so far, from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use evenkeel_e2e::control_plane::ControlPlane;

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

/// Time of processors that each took so far, or within a time.
#[derive(Clone, Copy, Debug)]
pub struct Processor {
    /// The API server.
    pub api_server: Duration,
    /// The store.
    pub etcd: Duration,
    /// Controller manager and scheduler.
    pub controllers: Duration,
    /// The operator.
    pub operator: Duration,
    /// All agents and kubelets, which are this process.
    pub crowd: Duration,
}

impl Processor {
    /// What was taken so far.
    pub fn of(plane: &ControlPlane, operator: u32) -> Result<Self> {
        let cpu = |pid: u32| Ok::<_, anyhow::Error>(Cost::of(pid)?.cpu);
        Ok(Self {
            api_server: cpu(plane.api_server_pid())?,
            etcd: cpu(plane.etcd_pid())?,
            controllers: plane.other_pids().map(cpu).sum::<Result<Duration>>()?,
            operator: cpu(operator)?,
            crowd: cpu(std::process::id())?,
        })
    }

    /// What was taken since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            api_server: self.api_server.saturating_sub(before.api_server),
            etcd: self.etcd.saturating_sub(before.etcd),
            controllers: self.controllers.saturating_sub(before.controllers),
            operator: self.operator.saturating_sub(before.operator),
            crowd: self.crowd.saturating_sub(before.crowd),
        }
    }

    /// All of it.
    pub fn whole(&self) -> Duration {
        self.api_server + self.etcd + self.controllers + self.operator + self.crowd
    }
}
