//! A machine that lives through a story.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{sleep, timeout};

use super::shell::{Said, Shell};
use crate::{
    machine::{HOST, Hardware, Machine},
    os_image, progress,
    trial::{
        base::{self, DISK_BYTES, HANGS_MAX, Host, Listed},
        boots,
        case::{Boot, Loader},
        run,
        slot::Slot,
    },
};

const POLL: Duration = Duration::from_millis(250);
/// For each boot; a loaded host is many times slower than one without other work.
const BOOT: Duration = Duration::from_mins(8);
/// An image is pulled, written and read back.
const COMMAND: Duration = Duration::from_mins(10);

/// A machine and its disk, from when that was empty.
pub(super) struct Lived<'a> {
    pub host: &'a Host,
    pub loader: Loader,
    folder: PathBuf,
    disk: PathBuf,
    machine: Option<Machine>,
    shell: Option<Shell>,
    /// Boots that were looked at already.
    seen: usize,
    hangs: u32,
}

impl<'a> Lived<'a> {
    /// A machine that is off, with an empty disk.
    pub(super) fn new(host: &'a Host, loader: Loader, story: &str) -> Result<Self> {
        let folder = host.folder.join(format!("{story}-{}", loader.name()));
        fs::create_dir_all(&folder).context("make a folder for the story")?;
        let disk = folder.join("disk.img");
        File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).context("make an empty disk")?;
        Ok(Self { host, loader, folder, disk, machine: None, shell: None, seen: 0, hangs: 0 })
    }

    pub(super) fn disk(&self) -> &Path {
        &self.disk
    }

    /// Gives a machine that is off a disk with so many bytes more, which nothing is written to.
    pub(super) fn enlarge_disk(&self, bytes: u64) -> Result<()> {
        ensure!(self.machine.is_none(), "the machine is on");
        let file = File::options().write(true).open(&self.disk).context("open the disk")?;
        let length = file.metadata().context("read the disk's length")?.len();
        file.set_len(length + bytes).context("enlarge the disk")
    }

    /// An image's reference as the machine has it.
    pub(super) fn image(&self, tag: &str) -> String {
        format!("{HOST}:{}/{}:{tag}", self.host.registry.port(), os_image::LIVES_REPOSITORY)
    }

    /// The same on this host.
    pub(super) fn image_here(&self, tag: &str) -> String {
        format!("{}/{}:{tag}", self.host.registry.address(), os_image::LIVES_REPOSITORY)
    }

    /// Runs the agent on the disk of a machine that is off, as from a live system. Gives what it prints.
    pub(super) async fn agent_on_disk(&self, arguments: &[&str]) -> Result<String> {
        ensure!(self.machine.is_none(), "the machine is on");
        let said = base::agent(&self.host.agent, &self.disk, arguments).await?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// A slot of a machine that is off.
    pub(super) async fn slot(&self, name: &str) -> Result<Slot> {
        Slot::find(&self.host.agent, &self.disk, name).await
    }

    /// Powers it on and lets it boot until a system is up.
    pub(super) async fn power_on(&mut self, expected: &[Boot]) -> Result<()> {
        let hardware = Hardware { shell: true, bios: self.loader.on_bios(), ..Hardware::default() };
        self.machine = Some(Machine::start("life", &self.disk, &self.folder.join("machine"), hardware)?);
        self.comes_up(expected).await
    }

    /// Cuts the power once all that was written is on the disk.
    pub(super) async fn power_off(&mut self) -> Result<()> {
        self.sh("sync").await?;
        self.shell = None;
        self.machine = None;
        Ok(())
    }

    /// A reboot as a person asks for it.
    pub(super) async fn reboot(&mut self, expected: &[Boot]) -> Result<()> {
        let mut shell = self.shell.take().context("the machine is not up")?;
        shell.begin("systemctl reboot").await?;
        self.comes_up(expected).await
    }

    /// Runs a command on the machine, which has to succeed. Gives what it says.
    pub(super) async fn sh(&mut self, command: &str) -> Result<String> {
        let said = self.ask(command).await?;
        ensure!(said.status == 0, "`{command}` ended with {}: {}", said.status, said.text);
        Ok(said.text)
    }

    /// Runs a command on the machine.
    pub(super) async fn ask(&mut self, command: &str) -> Result<Said> {
        let shell = self.shell.as_mut().context("the machine is not up")?;
        let said = timeout(COMMAND, shell.run(command)).await;
        let said = said.with_context(|| format!("`{command}` did not end"))??;
        progress::step(&format!("    # {command}\n{}", indented(&said.text)));
        Ok(said)
    }

    /// What the machine says of a slot.
    pub(super) async fn listed(&mut self, name: &str) -> Result<Listed> {
        let said = self.sh("evenkeel-agent slots --output json").await?;
        let slots: Vec<Listed> = serde_json::from_str(&said).context("read what `slots` says")?;
        slots.into_iter().find(|slot| slot.name == name).with_context(|| format!("there is no slot {name}"))
    }

    /// Waits for boots until a system is up, and compares them.
    async fn comes_up(&mut self, expected: &[Boot]) -> Result<()> {
        let begun = Instant::now();
        let limit = BOOT * u32::try_from(expected.len()).unwrap_or(1);
        let machine = self.machine.as_mut().context("the machine is off")?;
        let mut hung = Vec::new();
        let boots = loop {
            machine.tend()?;
            let all = boots::read(&machine.console())?;
            let news = (self.seen..).zip(all.iter().skip(self.seen)).filter(|(at, _)| !hung.contains(at));
            let (places, news): (Vec<usize>, Vec<Boot<String>>) =
                news.map(|(at, boot)| (at, boot.clone())).unzip();
            let came_up = news.last().is_some_and(|last| last.up) && news.len() >= expected.len();
            if came_up || news.len() > expected.len() {
                self.seen = all.len();
                break news;
            }
            if let Some(hang) = machine.hangs()? {
                self.hangs += 1;
                ensure!(self.hangs <= HANGS_MAX, "the emulator hung {} times: {hang}", self.hangs);
                run::tell(&hang.into());
                hung.extend(places.last());
                machine.cut_power()?;
            }
            if begun.elapsed() > limit {
                bail!(
                    "after {} s: {news:?}; the end of the console:\n{}",
                    limit.as_secs(),
                    machine.console_tail()
                );
            }
            sleep(POLL).await;
        };
        ensure!(boots::equal(&boots, expected), "the machine booted {boots:?}");
        self.shell = Some(Shell::open(&machine.serial()).await?);
        let slot = boots.last().map(|boot| boot.slot.clone()).unwrap_or_default();
        progress::step(&format!("  slot {slot} is up after {} s", begun.elapsed().as_secs()));
        Ok(())
    }

    /// Cuts the power; the disk and the console stay where the story failed and `KEEP` says so.
    pub(super) fn end(mut self, as_it_should: bool) -> Result<()> {
        self.shell = None;
        self.machine = None;
        if let Some(folder) = std::env::var_os("CONSOLES") {
            let to = Path::new(&folder).join(self.folder.file_name().unwrap_or_default());
            fs::create_dir_all(&to).context("make a folder for consoles")?;
            fs::copy(self.folder.join("machine/console.log"), to.join("console.log"))
                .context("keep a console")?;
        }
        if as_it_should || std::env::var_os("KEEP").is_none() {
            fs::remove_dir_all(&self.folder).context("remove the story's folder")?;
        }
        Ok(())
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
}
