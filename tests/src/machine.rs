//! A model of a machine: a real disk in a file, the real agent and the real guard as processes, and a model of what lies
//! between them: firmware, boot loader, init and kubelet.

pub mod kubelet;
mod power;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use evenkeel_e2e::process::Service;
use tokio::{
    process::Command,
    sync::mpsc::{self, UnboundedSender},
    task::JoinHandle,
};

use crate::{binaries::Binaries, cluster::Cluster, rights};

/// ESP (512 MiB), oem (64 MiB), three slots of 64 MiB, state: files are sparse, so that only what is written is there.
const DISK_SIZE: &str = "1100MiB";
const SLOT_SIZE: &str = "64MiB";

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// Name of the node.
    pub name: String,
    /// Folder for everything of this machine.
    pub folder: PathBuf,
    /// The image that is installed.
    pub image: String,
    /// The program that installs it, and is the host's own and at first the pod's.
    pub agent: PathBuf,
    /// The agent's service account; its token is bound to the node.
    pub agent_account: String,
    /// Labels of the node.
    pub labels: Vec<(String, String)>,
    /// Docker configuration with credentials.
    pub docker_config: Option<PathBuf>,
    /// How much faster than ours the machine's time since boot runs.
    pub haste: u32,
}

/// One start of the machine, as the boot loader saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The entry's file before its try was counted.
    pub entry: String,
    /// Whether a system came up.
    pub up: bool,
    /// The slot of the kernel's command line.
    pub slot: String,
    /// The digest of the kernel's command line.
    pub digest: String,
    /// The boot's identity.
    pub boot_id: String,
}

/// What happens to a machine from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGKILL to the agent; the kubelet starts it again.
    KillAgent,
    /// The same, and the pod has another program from then on; the host's own stays what it is.
    ReplaceAgent(PathBuf),
    /// Everything ends at once, and the machine starts again.
    PowerCut,
    /// The kubelet reports a node that is not Ready, or Ready again.
    Ready(bool),
}

#[derive(Debug, Default)]
struct Seen {
    boots: Vec<Boot>,
    agent_starts: u32,
    failure: Option<String>,
    agent_log: PathBuf,
    guard_log: PathBuf,
}

/// A machine that runs until it is dropped.
pub struct Machine {
    /// Its disk.
    pub disk: PathBuf,
    /// The agent's folder on its state partition.
    pub state_dir: PathBuf,
    name: String,
    seen: Arc<Mutex<Seen>>,
    events: UnboundedSender<Event>,
    task: JoinHandle<()>,
}

impl Machine {
    /// Installs the image with the agent's own command and switches the machine on; its Node is there already.
    pub async fn start(cluster: &Cluster, options: MachineOptions) -> Result<Self> {
        let folder = options.folder.clone();
        fs::create_dir_all(&folder)?;
        let disk = folder.join("disk.img");
        install(&options, &disk).await?;
        let reboot = folder.join("reboot.sh");
        fs::write(&reboot, format!("#!/bin/sh\n: > {}\n", folder.join("reboot").display()))?;
        fs::set_permissions(&reboot, fs::Permissions::from_mode(0o755))?;
        let seen = Arc::new(Mutex::new(Seen {
            agent_log: folder.join("agent.log"),
            guard_log: folder.join("guard.log"),
            ..Seen::default()
        }));
        let client = cluster.client().await?;
        let token = rights::token(&client, &options.agent_account, Some(&options.name)).await?;
        let kubeconfig = cluster.plane.kubeconfig_for(&token, &cluster.plane.url());
        fs::write(folder.join("agent.kubeconfig"), kubeconfig)?;
        let (events, received) = mpsc::unbounded_channel();
        let (name, state_dir) = (options.name.clone(), folder.join("state"));
        let power = power::Power::new(client, options, disk.clone(), Arc::clone(&seen), received);
        let task = tokio::spawn(power.run());
        Ok(Self { disk, state_dir, name, seen, events, task })
    }

    /// Name of the node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its root, as far as the model has one.
    pub fn root(&self) -> PathBuf {
        self.state_dir.with_file_name("proc").join("1/root")
    }

    /// Every start so far.
    pub fn boots(&self) -> Vec<Boot> {
        self.seen().boots.clone()
    }

    /// How often the agent was started.
    pub fn agent_starts(&self) -> u32 {
        self.seen().agent_starts
    }

    /// Why the model gave up, if it did: a machine that does not boot any more, or a model that is wrong.
    pub fn failure(&self) -> Option<String> {
        self.seen().failure.clone()
    }

    /// Makes something happen to it.
    pub fn happen(&self, event: Event) {
        // A machine whose model gave up shows it by `failure`.
        let _ = self.events.send(event);
    }

    /// The end of the agent's log and of the guard's.
    pub fn logs(&self) -> String {
        let seen = self.seen();
        let tail = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(15)..].join("\n")
        };
        format!("agent of {}:\n{}\nguard:\n{}", self.name, tail(&seen.agent_log), tail(&seen.guard_log))
    }

    /// What the agent's own command says of the slots.
    pub async fn slots(&self) -> Result<Vec<serde_json::Value>> {
        let output = Command::new(&Binaries::built().await?.agent)
            .args(["slots", "--output", "json", "--disk"])
            .arg(&self.disk)
            .output()
            .await?;
        if !output.status.success() {
            bail!("slots of {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("the slots are JSON")
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The task owns the processes, which end with it.
        self.task.abort();
    }
}

async fn install(options: &MachineOptions, disk: &Path) -> Result<()> {
    let mut command = Command::new(&options.agent);
    command.args(["install", &options.image, "--plain-http", "--size", DISK_SIZE, "--slot-size", SLOT_SIZE]);
    command.arg("--disk").arg(disk);
    if let Some(config) = &options.docker_config {
        command.arg("--docker-config").arg(config);
    }
    let output = command.output().await.context("run evenkeel-agent install")?;
    if !output.status.success() {
        bail!("install on {}: {}", options.name, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A program of the machine's host, with what the model gives it for a world.
fn program(name: &str, command: std::process::Command, folder: &Path) -> Result<Service> {
    Service::start(name, command, &folder.join(format!("{name}.log")))
}

/// How often the model looks at what its programs want.
const TICK: Duration = Duration::from_millis(50);
