//! From power-on to power-on: what starts, what runs, and how it ends.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use evenkeel_e2e::process::Service;
use evenkeel_node_agent::{
    boot,
    disk::{Disk, SlotRegion},
    reset,
    run::host::running_slot,
    state_dir::StateDir,
};
use evenkeel_node_agent_core::{
    erofs_read,
    reset::{DONE, REQUEST},
};
use kube::Client;
use tokio::{sync::mpsc::UnboundedReceiver, time::sleep};
use uuid::Uuid;

use super::{Boot, Event, MachineOptions, Seen, TICK, kubelet, program};
use crate::{
    loader,
    os_image::{HEALTH_CHECK, KERNEL_BOOTS},
};

/// A machine that fails so often in a row is lost; the loader may use up three tries.
const FAILURES_MAX: usize = 6;
/// From power-on until the kubelet reports.
const BOOT_TIME: Duration = Duration::from_millis(300);
/// What init gives services to stop.
const STOP_TIME: Duration = Duration::from_secs(2);
/// What systemd and the kubelet wait before they start something again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
const KUBELET_PERIOD: Duration = Duration::from_millis(500);

pub struct Power {
    client: Client,
    options: MachineOptions,
    disk: PathBuf,
    /// The pod's program.
    agent: PathBuf,
    seen: Arc<Mutex<Seen>>,
    events: UnboundedReceiver<Event>,
    ready: bool,
}

/// A system that runs.
struct Up {
    agent: Service,
    guard: Service,
    /// The unit for a cloud-config without a reboot, and the change that it was started for.
    unit: Option<Service>,
    noticed: Option<SystemTime>,
    boot_id: String,
    since: Instant,
    reported: bool,
    kubelet_next: Instant,
}

enum End {
    Reboot,
    PowerCut,
}

impl Power {
    pub fn new(
        client: Client,
        options: MachineOptions,
        disk: PathBuf,
        seen: Arc<Mutex<Seen>>,
        events: UnboundedReceiver<Event>,
    ) -> Self {
        let agent = options.agent.clone();
        Self { client, options, disk, agent, seen, events, ready: true }
    }

    /// Runs for good; a failure of the machine or of the model is left for the test to see.
    pub async fn run(mut self) {
        let Err(error) = self.on().await;
        self.seen().failure = Some(format!("{}: {error:#}", self.options.name));
    }

    async fn on(&mut self) -> Result<std::convert::Infallible> {
        loop {
            let boot_id = self.boot()?;
            let mut up = self.start(boot_id)?;
            match self.watch(&mut up).await? {
                End::Reboot => {
                    tokio::join!(up.agent.stop(STOP_TIME), up.guard.stop(STOP_TIME));
                }
                End::PowerCut => {}
            }
            drop(up);
            self.report(None, false).await;
        }
    }

    /// Firmware, loader, kernel, initrd: until something comes up.
    fn boot(&mut self) -> Result<String> {
        for _ in 0..FAILURES_MAX {
            let choice = loader::choose(&self.disk)?;
            let option = |key: &str| {
                let word = choice.options.split_whitespace().find_map(|word| word.strip_prefix(key));
                word.map(str::to_owned).with_context(|| format!("{} has no {key}", choice.file))
            };
            let boot_id = Uuid::new_v4().to_string();
            let (slot, digest) = (option("evenkeel.slot=")?, option("evenkeel.digest=")?);
            let root = self.root(&option("evenkeel.partuuid=")?);
            let kernel = choice.kernel.as_ref().is_some_and(|text| text.starts_with(KERNEL_BOOTS));
            let up = kernel && choice.initrd && root.is_ok();
            if up {
                self.begin_anew(&slot, &digest)?;
            }
            let boot = Boot { entry: choice.file, up, slot, digest, boot_id: boot_id.clone() };
            self.seen().boots.push(boot);
            if let (true, Ok(check)) = (up, root) {
                self.prepare(&choice.options, &boot_id, check.as_deref())?;
                return Ok(boot_id);
            }
        }
        bail!("nothing came up in {FAILURES_MAX} starts: this machine is lost")
    }

    /// What the initrd does when it was asked to (`evenkeel_reset`).
    fn begin_anew(&self, slot: &str, digest: &str) -> Result<()> {
        let loader = boot::open(&Disk::open(&self.disk)?)?;
        let Some(request) = reset::requested(loader.esp())?.filter(|request| request.is_of(slot, digest))
        else {
            return Ok(());
        };
        if request.wipe_state {
            let _ = fs::remove_dir_all(self.options.folder.join("state"));
        }
        Ok(loader.esp().rename(REQUEST, DONE)?)
    }

    /// Mounts the root: its health check, or why it cannot be mounted.
    fn root(&self, part_uuid: &str) -> Result<Option<Vec<u8>>> {
        let disk = Disk::open(&self.disk)?;
        let named =
            |name: &str| disk.slot(name).ok().filter(|slot| slot.part_uuid.eq_ignore_ascii_case(part_uuid));
        let slot: SlotRegion =
            ["a", "b"].into_iter().find_map(named).context("no partition has this PARTUUID")?;
        let window = slot.open_ro()?;
        let read = |at: u64, buffer: &mut [u8]| window.read_at(at, buffer);
        erofs_read::read_file(&read, "/usr/lib/os-release")?;
        Ok(erofs_read::read_file(&read, HEALTH_CHECK).ok())
    }

    fn prepare(&self, options: &str, boot_id: &str, check: Option<&[u8]>) -> Result<()> {
        let folder = &self.options.folder;
        let random = folder.join("proc/sys/kernel/random");
        fs::create_dir_all(&random)?;
        fs::write(random.join("boot_id"), format!("{boot_id}\n"))?;
        fs::write(folder.join("proc/cmdline"), format!("{options}\n"))?;
        fs::write(folder.join("proc/uptime"), "0.00 0.00\n")?;
        // What the image's own program leaves in /run when it has applied what came with the slot, or what is kept since.
        let run = folder.join("proc/1/root/run/evenkeel");
        fs::create_dir_all(&run)?;
        let state = StateDir::open(&folder.join("state"))?;
        let running = running_slot(&folder.join("proc"))?.context("no slot runs")?;
        let live = state.live_config(&running.name)?;
        if let Some(boots) = live.count_boot(&running) {
            state.write_live_boots(&boots)?;
        }
        fs::write(run.join("cloud-config-applied"), live.release(&running))?;
        let units = folder.join("proc/1/root/usr/lib/systemd/system");
        fs::create_dir_all(&units)?;
        fs::write(units.join("evenkeel-cloud-config-live.path"), "")?;
        let health = folder.join("health.d");
        let _ = fs::remove_dir_all(&health);
        fs::create_dir_all(&health)?;
        if let Some(check) = check {
            let path = health.join("50-check");
            fs::write(&path, check)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let _ = fs::remove_file(folder.join("reboot"));
        Ok(())
    }

    fn start(&self, boot_id: String) -> Result<Up> {
        let now = Instant::now();
        Ok(Up {
            agent: self.start_agent()?,
            guard: self.start_guard()?,
            unit: None,
            noticed: self.changed(),
            boot_id,
            since: now,
            reported: false,
            kubelet_next: now,
        })
    }

    fn start_agent(&self) -> Result<Service> {
        let folder = &self.options.folder;
        let mut command = self.world(&self.agent, "run");
        command.env("NODE_NAME", &self.options.name).env("KUBECONFIG", folder.join("agent.kubeconfig"));
        if let Some(config) = &self.options.docker_config {
            command.env("EVENKEEL_DOCKER_CONFIG", config);
        }
        self.seen().agent_starts += 1;
        program("agent", command, folder)
    }

    fn start_guard(&self) -> Result<Service> {
        let folder = &self.options.folder;
        let mut command = self.world(&self.options.agent, "guard");
        command.arg("--health-dir").arg(folder.join("health.d"));
        // Without systemctl the guard takes the host for up, as the model's is.
        command.env("PATH", folder.join("nothing"));
        program("guard", command, folder)
    }

    fn world(&self, program: &Path, subcommand: &str) -> Command {
        let folder = &self.options.folder;
        let mut command = Command::new(program);
        command.arg(subcommand).env("EVENKEEL_DISK", &self.disk).env("NO_COLOR", "1");
        command.env("EVENKEEL_STATE_DIR", folder.join("state")).env("EVENKEEL_PROC", folder.join("proc"));
        command.env("EVENKEEL_REBOOT_COMMAND", folder.join("reboot.sh"));
        command
    }

    async fn watch(&mut self, up: &mut Up) -> Result<End> {
        let reboot = self.options.folder.join("reboot");
        loop {
            sleep(TICK).await;
            if reboot.exists() {
                return Ok(End::Reboot);
            }
            self.tell_time(up)?;
            while let Ok(event) = self.events.try_recv() {
                match event {
                    Event::KillAgent => up.agent.kill(),
                    Event::ReplaceAgent(program) => {
                        self.agent = program;
                        up.agent.kill();
                    }
                    Event::PowerCut => return Ok(End::PowerCut),
                    Event::Ready(ready) => {
                        self.ready = ready;
                        up.reported = false;
                    }
                }
            }
            if up.agent.ended().is_some() {
                sleep(RESTART_PAUSE).await;
                up.agent = self.start_agent()?;
            }
            if up.guard.ended().is_some_and(|status| !status.success()) {
                sleep(RESTART_PAUSE).await;
                up.guard = self.start_guard()?;
            }
            self.be_path_unit(up)?;
            self.be_kubelet(up).await;
        }
    }

    /// What systemd does when the agent's order changes, or what it started for that fails.
    fn be_path_unit(&self, up: &mut Up) -> Result<()> {
        let changed = self.changed();
        let failed = up.unit.as_mut().and_then(Service::ended).map(|status| !status.success());
        let runs = up.unit.is_some() && failed.is_none();
        if !runs && (changed != up.noticed || failed == Some(true)) {
            up.noticed = changed;
            let mut command = self.world(&self.options.agent, "cloud-config");
            command.arg("live").arg("--health-dir").arg(self.options.folder.join("health.d"));
            command.arg("--root").arg(self.options.folder.join("proc/1/root"));
            up.unit = Some(program("unit", command, &self.options.folder)?);
        }
        Ok(())
    }

    /// When the agent wrote its order.
    fn changed(&self) -> Option<SystemTime> {
        fs::metadata(self.options.folder.join("state/live-order.json"))
            .and_then(|order| order.modified())
            .ok()
    }

    fn tell_time(&self, up: &Up) -> Result<()> {
        let uptime = (up.since.elapsed() * self.options.haste).as_secs_f64();
        let path = self.options.folder.join("proc/uptime");
        let new = path.with_extension("new");
        fs::write(&new, format!("{uptime:.2} 0.00\n"))?;
        Ok(fs::rename(new, path)?)
    }

    async fn be_kubelet(&mut self, up: &mut Up) {
        if up.since.elapsed() < BOOT_TIME || Instant::now() < up.kubelet_next {
            return;
        }
        up.kubelet_next = Instant::now() + KUBELET_PERIOD;
        if !up.reported {
            up.reported = self.report(Some(&up.boot_id), self.ready).await;
        }
        // An API server that is away is asked again.
        let _ = kubelet::tend_pods(&self.client, &self.options.name).await;
    }

    /// Whether the API server took the report.
    async fn report(&self, boot_id: Option<&str>, ready: bool) -> bool {
        let report = kubelet::report(&self.client, &self.options.name, boot_id, ready);
        matches!(tokio::time::timeout(Duration::from_secs(5), report).await, Ok(Ok(())))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
