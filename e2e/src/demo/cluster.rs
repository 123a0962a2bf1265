//! The demo's cluster: a control plane and a registry on the host, and machines that join.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde::Deserialize;
use tokio::process::Command;

use crate::{
    binaries::{self, Binaries, Binary},
    component_images,
    control_plane::{ControlPlane, Options},
    machine::{self, CloudConfig, HOST, Hardware, Machine, STAGES, ran},
    os_image,
    process::output,
    progress,
    registry::{self, Registry},
    tools::{self, Tool},
    wait,
};

/// Names of the machines and of their Nodes.
pub const MACHINES: [&str; 2] = ["vm1", "vm2"];
/// Tag of the demo's own component images.
pub const TAG: &str = "demo";
const DISK_SIZE: &str = "6GiB";
const SLOT_SIZE: &str = "1GiB";
/// A machine under emulation is Ready after about a minute; two at once on two busy cores take longer.
const READY_LIMIT: Duration = Duration::from_mins(7);

/// Everything that runs.
pub struct Cluster {
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The registry.
    pub registry: Registry,
    /// What was installed on each machine, in the order of [`MACHINES`].
    pub installed: Vec<Installed>,
    folder: PathBuf,
}

/// What `evenkeel-agent slots` says of a slot.
#[derive(Clone, Debug, Deserialize)]
pub struct Installed {
    /// Digest of the image in it.
    pub digest: Option<String>,
    /// Whether the boot loader takes it next.
    pub default: bool,
}

impl Cluster {
    /// Builds it, starts what runs on the host, and installs the machines' disks.
    pub async fn start(folder: &Path) -> Result<Self> {
        machine::prepare_host().await?;
        let tools = tools::ensure(&[
            Tool::Etcd,
            Tool::KubeApiserver,
            Tool::KubeControllerManager,
            Tool::KubeScheduler,
            Tool::Kubectl,
            Tool::Kubelet,
            Tool::Helm,
            Tool::Containerd,
            Tool::ContainerdShim,
        ])
        .await?;
        let binaries = binaries::build().await?;
        let mut options = Options::whole(folder.join("control-plane"));
        options.nodes = MACHINES.map(str::to_owned).to_vec();
        options.extra_names = vec![HOST.to_owned()];
        let control_plane = ControlPlane::start(&tools, &options).await?;
        let registry = Registry::start(&folder.join("registry"), registry::Options::default()).await?;
        os_image::publish(&registry, &tools, &binaries).await?;
        component_images::publish(&registry, &binaries, TAG).await?;
        let mut cluster = Self { control_plane, registry, installed: Vec::new(), folder: folder.to_owned() };
        cluster.installed = try_join_all(MACHINES.map(|name| cluster.install(name, &binaries))).await?;
        Ok(cluster)
    }

    /// An image's reference as the machines have it.
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.registry_in_machines())
    }

    /// The registry's address as the machines have it.
    pub fn registry_in_machines(&self) -> String {
        format!("{HOST}:{}", self.registry.port())
    }

    /// Where a machine's disk is.
    pub fn disk(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("disk.img")
    }

    /// Where a machine's console is logged.
    pub fn console(&self, name: &str) -> PathBuf {
        machine::console(&self.folder.join(name))
    }

    /// kubectl for this cluster.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.control_plane.tools().path(Tool::Kubectl));
        command.arg("--kubeconfig").arg(self.control_plane.kubeconfig());
        command
    }

    /// Installs version 1 onto a new disk with the agent's own code, as on a machine.
    async fn install(&self, name: &str, binaries: &Binaries) -> Result<Installed> {
        let disk = self.disk(name);
        let config = disk.with_file_name("cloud-config.yaml");
        fs::create_dir_all(self.folder.join(name)).with_context(|| format!("make a folder for {name}"))?;
        let server = format!("https://{HOST}:{}", self.control_plane.port());
        let kubeconfig = self.control_plane.kubeconfig_for(self.control_plane.node_token(name)?, &server);
        let text = CloudConfig {
            name,
            kubeconfig: &kubeconfig,
            registry_port: self.registry.port(),
            sandbox_image: &self.reference("evenkeel/pause", TAG),
        };
        fs::write(&config, text.render()).context("write a machine's cloud-config")?;
        let image = format!("{}/{}:1", self.registry.address(), os_image::REPOSITORY);
        let agent = || Command::new(binaries.path(Binary::Agent));
        let mut install = agent();
        install.args(["install", &image, "--plain-http", "--disk"]).arg(&disk);
        install.args(["--size", DISK_SIZE, "--slot-size", SLOT_SIZE, "--cloud-config"]).arg(&config);
        progress::long(&format!("install {image} onto the disk of {name}"), output(install)).await?;
        let mut slots = agent();
        slots.args(["slots", "--output", "json", "--disk"]).arg(&disk);
        let slots: Vec<Installed> =
            serde_json::from_slice(&output(slots).await?).context("read what `evenkeel-agent slots` says")?;
        slots
            .into_iter()
            .find(|slot| slot.default)
            .with_context(|| format!("no slot of {name}'s disk would boot"))
    }

    /// Powers the machines on and waits until every one is Ready.
    pub async fn boot(&self) -> Result<Vec<Machine>> {
        let mut machines = Vec::new();
        for name in MACHINES {
            let folder = self.folder.join(name);
            machines.push(Machine::start(name, &self.disk(name), &folder, Hardware::default())?);
        }
        let waiting = format!("boot {} until they are Ready", MACHINES.join(" and "));
        let nodes: Api<Node> = Api::all(self.control_plane.client());
        let ready = MACHINES.map(|name| {
            let nodes = nodes.clone();
            wait::until(READY_LIMIT, async move || {
                let node = nodes.get_opt(name).await?.with_context(|| format!("{name} has not joined"))?;
                wait::ready(&node).then_some(()).with_context(|| format!("{name} is not Ready"))
            })
        });
        let all = async {
            tokio::select! {
                outcome = try_join_all(ready) => outcome.map(|_| ()),
                error = tend(&mut machines) => Err(error),
            }
        };
        let outcome = progress::long(&waiting, all).await;
        outcome.with_context(|| consoles(&machines))?;
        Ok(machines)
    }
}

/// What `demo/upgrade.yaml` has every machine say on its console.
const FROM_THE_CLUSTER: &str = "the cloud-config of the cluster was applied";
const WITHOUT_A_REBOOT: &str = "the cloud-config of the cluster was changed";

/// Whether each stage of each machine's cloud-config ran as often as it should: once, and in each boot; and that of the
/// cluster with the version that it came with.
///
/// For a machine in `anew` its last begin counts as an installation too.
pub fn stages_ran(machines: &[Machine], anew: Option<&str>) -> Result<()> {
    for machine in machines {
        let console = fs::read(machine.console()).context("read a machine's console")?;
        let console = String::from_utf8_lossy(&console);
        let times = |stage: &str| console.matches(&ran(stage)).count();
        let seen = STAGES.map(times);
        let [install, upgrade, boot, network] = seen;
        let installed = 1 + usize::from(anew == Some(machine.name()));
        // Every machine boots once after its installation and once after its good upgrade, and some more than that.
        let right = install == installed && upgrade >= 1 && boot >= 2 && network >= 2;
        for said in [FROM_THE_CLUSTER, WITHOUT_A_REBOOT] {
            ensure!(console.contains(said), "the console of {} does not say that {said}", machine.name());
        }
        ensure!(right, "stages {STAGES:?} of {}'s cloud-config ran {seen:?} times", machine.name());
    }
    Ok(())
}

/// The ends of all consoles, for messages.
pub fn consoles(machines: &[Machine]) -> String {
    let tails = machines.iter().map(|machine| {
        format!(
            "console of {} ({}):\n{}",
            machine.name(),
            machine.console().display(),
            machine.console_tail()
        )
    });
    tails.collect::<Vec<_>>().join("\n")
}

/// Powers machines on again that reboot, and those whose emulator hangs, as whoever stands beside them would. Ends only
/// with an error: when an emulator fails.
pub async fn tend(machines: &mut [Machine]) -> anyhow::Error {
    loop {
        if let Err(error) = machines.iter_mut().try_for_each(tend_one) {
            return error;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn tend_one(machine: &mut Machine) -> Result<()> {
    machine.tend()?;
    if let Some(hang) = machine.hangs()? {
        progress::step(&format!("cut the power of {}: {hang}", machine.name()));
        machine.cut_power()?;
    }
    Ok(())
}
