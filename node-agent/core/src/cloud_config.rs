//! A machine's own configuration, in the two dialects that its users have: stages with steps, as Elemental and Kairos read
//! them (<https://github.com/rancher/yip>), and the common part of cloud-init's
//! (<https://docs.cloud-init.io/en/latest/reference/modules.html>). One document may have both.

mod cloud_init;
mod condition;
mod document;
mod growpart;
pub mod nocloud;
pub mod smbios;
mod source;
mod step;

use std::collections::BTreeMap;

use growpart::Growpart;

pub use condition::System;
pub use document::{CloudConfigError, DOCUMENT_BYTES_MAX, Parsed, parse};
pub use source::Source;
pub use step::{Account, Directory, ENVIRONMENT_FILE, Encoding, File, Step, Systemctl};

/// When steps are done, in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before anything else of the system runs; all three are one to us.
    Rootfs,
    /// As above, after it.
    Initramfs,
    /// As above, last; all file systems are there.
    Fs,
    /// Once the basic system is up.
    Boot,
    /// Once, in the first boot of a machine that was installed or began anew.
    AfterInstall,
    /// Once, in the first boot of another image than the one before.
    AfterUpgrade,
    /// Once the network is up.
    Network,
}

impl Stage {
    /// Those of the first unit.
    pub const EARLY: [Self; 3] = [Self::Rootfs, Self::Initramfs, Self::Fs];

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "rootfs" => Self::Rootfs,
            "initramfs" => Self::Initramfs,
            "fs" => Self::Fs,
            "boot" => Self::Boot,
            "after-install" => Self::AfterInstall,
            "after-upgrade" => Self::AfterUpgrade,
            "network" => Self::Network,
            _ => return None,
        })
    }
}

/// What one or more documents say, each stage's steps in the order in which they are done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudConfig {
    stages: BTreeMap<Stage, Vec<Step>>,
    growpart: Option<Growpart>,
    sources: Option<Vec<String>>,
}

impl CloudConfig {
    /// The steps of a stage.
    pub fn steps(&self, stage: Stage) -> &[Step] {
        self.stages.get(&stage).map_or(&[], Vec::as_slice)
    }

    /// Whether a stage has steps.
    pub fn has(&self, stage: Stage) -> bool {
        !self.steps(stage).is_empty()
    }

    /// Whether a disk that became larger is used to its end; nothing said means yes.
    pub fn grows(&self) -> bool {
        self.growpart != Some(Growpart::Off)
    }

    /// Whether a data source is asked for documents; nothing said means yes.
    pub fn asks(&self, source: Source) -> bool {
        self.sources.as_ref().is_none_or(|names| names.iter().any(|name| name == source.name()))
    }

    /// Names a machine that no document names.
    pub fn set_default_host_name(&mut self, name: String) {
        if self.stages.values().flatten().all(|step| step.hostname.is_none()) {
            self.push(Stage::Initramfs, Step { hostname: Some(name), ..Step::default() });
        }
    }

    /// Adds what a later document says.
    pub fn append(&mut self, later: Self) {
        for (stage, steps) in later.stages {
            self.stages.entry(stage).or_default().extend(steps);
        }
        self.growpart = later.growpart.or(self.growpart);
        self.sources = later.sources.or(self.sources.take());
    }

    fn check(&self) -> Result<(), String> {
        self.stages.values().flatten().try_for_each(Step::check)
    }

    fn push(&mut self, stage: Stage, step: Step) {
        if step != Step::default() {
            self.stages.entry(stage).or_default().push(step);
        }
    }
}
