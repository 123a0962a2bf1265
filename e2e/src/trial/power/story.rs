//! One tale with cuts.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{process::Command, time::sleep};

use super::{
    dice::Dice,
    disk::{Cut, VolatileDisk},
    install,
    tales::{FAILED, KEPT, Part, Place, Tale},
};
use crate::{
    machine::{HOST, Hardware, Machine, SECOND_DISK},
    os_image,
    process::output,
    progress,
    trial::{
        base::{self, Base, DISK_BYTES, HANGS_MAX, Host},
        boots,
        case::Loader,
        run,
        slot::Slot,
        state,
    },
};

const POLL: Duration = Duration::from_millis(50);
/// A boot that takes longer than this many usual ones, or a stage in it, has not come up.
const SLOWER: u32 = 8;
/// A system that is up and has nothing left to do still writes what it has in memory: ext4 does after 5 s (`commit=` in ext4(5)).
const REST: Duration = Duration::from_secs(8);
/// What all scripts begin with.
const BEGIN: &str = r#"
agent=/usr/lib/evenkeel/evenkeel-agent
say() { echo "evenkeel-power: $*" > /dev/console; }
try_image() {
    say stage
    until $agent stage IMAGE --slot b --plain-http; do sleep 5; done
    say activate
    $agent activate --slot b && say reboot && systemctl reboot
    sleep 1000
}
"#;

/// A machine, and what it does while its power is cut.
pub(super) struct Story<'a> {
    pub host: &'a Host,
    pub base: &'a Base,
    pub loader: Loader,
    tale: &'static Tale,
    seed: u64,
    pub folder: PathBuf,
    /// The disk that forgets what was not flushed.
    pub disk: PathBuf,
}

impl<'a> Story<'a> {
    /// One that nothing was done for yet.
    pub(super) fn new(
        host: &'a Host,
        base: &'a Base,
        loader: Loader,
        tale: &'static Tale,
        seed: u64,
    ) -> Result<Self> {
        let folder = host.folder.join(format!("power-{seed}"));
        fs::create_dir_all(&folder).context("make a folder for the story")?;
        Ok(Self { host, base, loader, tale, seed, disk: folder.join("disk.img"), folder })
    }

    /// Copies the base, lets it do one thing with so many cuts at most, and looks at what came of it. Gives how many there were.
    pub(super) async fn tell(&self, dice: &mut Dice, cuts: usize) -> Result<usize> {
        let (name, seed) = (self.tale.name, self.seed);
        self.set_up().await?;
        let done =
            progress::long(&format!("{name} with {cuts} cuts, seed {seed}"), self.go_on(dice, cuts)).await;
        let looked = match done {
            Ok(hit) => self.check().await.map(|()| hit),
            Err(error) => Err(error),
        };
        if std::env::var_os("KEEP").is_none() {
            fs::remove_dir_all(&self.folder).context("remove the story's folder")?;
        }
        looked
    }

    /// The disk that the machine runs from.
    fn system(&self) -> PathBuf {
        if self.tale.installs { self.folder.join("system.img") } else { self.disk.clone() }
    }

    async fn set_up(&self) -> Result<()> {
        let system = self.system();
        copy(&self.base.disk, &system).await?;
        if self.tale.installs {
            File::create(&self.disk).and_then(|file| file.set_len(DISK_BYTES)).context("make a disk")?;
        } else if self.tale.begins_in_b {
            self.agent(&["rollback", "--to", "b"]).await?;
        } else {
            // All of the image is written anew.
            Slot::find(&self.host.agent, &self.disk, "b").await?.wipe()?;
        }
        if let Some(document) = self.tale.cloud_config {
            state::write_cloud_config(&system, document).await?;
        }
        let port = self.host.registry.port();
        let image = format!("{HOST}:{port}/{}:2", os_image::TRIALS_REPOSITORY);
        let script = format!("{BEGIN}{}", self.tale.script).replace("IMAGE", &image);
        let script = script.replace("DISK", SECOND_DISK).replace("LOADER", self.loader.option());
        state::write_script(&system, &script).await
    }

    pub(super) async fn agent(&self, arguments: &[&str]) -> Result<()> {
        base::agent(&self.host.agent, &self.disk, arguments).await.map(|_| ())
    }

    /// How long a boot may take, and what is done in it.
    pub(super) fn boot_limit(&self) -> Duration {
        self.base.boot_time * SLOWER + Duration::from_mins(6)
    }

    fn power_on(&self) -> Result<(Machine, VolatileDisk)> {
        let usual = Hardware::default();
        let (boots, socket, hardware) = if self.tale.installs {
            let socket = Machine::second_disk(&self.folder);
            (self.system(), socket, Hardware { second_disk: true, ..usual })
        } else {
            let socket = self.folder.join("nbd");
            (socket.clone(), socket, Hardware { remote_disk: true, ..usual })
        };
        let disk = VolatileDisk::serve(&self.disk, &socket)?;
        Ok((Machine::start("power", &boots, &self.folder, hardware)?, disk))
    }

    /// Tells what each cut hit, and gives how many there were: there is none once all is done.
    async fn go_on(&self, dice: &mut Dice, cuts: usize) -> Result<usize> {
        let (mut machine, disk) = self.power_on()?;
        let (mut hit, mut hangs) = (0, 0);
        // Places before this one do not come again, or are a step that was told in an earlier boot.
        let mut first = 0;
        loop {
            let planned = (hit < cuts).then(|| self.plan(dice, first)).transpose()?;
            let begun = self.console().len();
            while !self.boot(&mut machine, &disk, planned.as_ref(), begun).await? {
                hangs += 1;
                ensure!(hangs <= HANGS_MAX, "the emulator hung {hangs} times");
                machine.cut_power()?;
            }
            machine.power_off();
            let planned = planned.filter(|_| disk.is_cut());
            // What is in doubt is lost, kept or torn; the cuts behind this one are the same, however much that is.
            let lost = disk.lose_power(&mut Dice::new(dice.below(u64::MAX)))?;
            let Some(planned) = planned else { return Ok(hit) };
            let mut what = format!("{}, {lost} in doubt", planned.told());
            if self.tale.installs {
                let left = install::look(self, hit).await.with_context(|| what.clone())?;
                what = format!("{what}, {left}");
                if dice.below(2) == 0 && hit + 1 < cuts {
                    what += "; the disk is emptied";
                    install::empty(&self.disk)?;
                }
            } else {
                first = first.max(planned.index);
            }
            progress::step(&format!("  {}: {what}", self.tale.name));
            hit += 1;
            machine.power_on()?;
        }
    }

    /// A place that can still come: each boot begins with the first one.
    fn plan(&self, dice: &mut Dice, first: usize) -> Result<Planned> {
        let may_come: Vec<usize> =
            (0..self.tale.places.len()).filter(|index| *index == 0 || *index >= first).collect();
        let index = may_come[usize::try_from(dice.below(may_come.len() as u64)).unwrap_or_default()];
        let place = &self.tale.places[index];
        let (writes, part) = (place.skipped + 1 + dice.below(place.writes), place.part.range()?);
        // Asked for these parts alone: the numbers of the other tales stay what they were.
        let at_flush = place.part != Part::All && dice.below(2) == 1;
        Ok(Planned { index, place, cut: Cut { writes, part, at_flush } })
    }

    /// Lets the machine go on until its power is cut, or it has come to its end and is up, and rests where a cut was to come. False
    /// when its emulator hung.
    async fn boot(
        &self,
        machine: &mut Machine,
        disk: &VolatileDisk,
        cut: Option<&Planned>,
        begun: usize,
    ) -> Result<bool> {
        let (mut armed, mut over_since) = (false, None);
        let limit = self.boot_limit();
        let end = Instant::now() + limit;
        loop {
            machine.tend()?;
            let console = self.console();
            let news = console.get(begun..).unwrap_or_default();
            ensure!(!news.contains(FAILED), "the machine gave up:\n{}", machine.console_tail());
            if let Some(Planned { place, cut, .. }) = cut.filter(|_| !armed)
                && news.contains(place.words)
            {
                disk.cut(cut.clone());
                armed = true;
            }
            if news.contains(KEPT) && up(&console) {
                over_since.get_or_insert_with(Instant::now);
            }
            let rests = if cut.is_some() { REST } else { Duration::ZERO };
            let over = over_since.is_some_and(|since: Instant| since.elapsed() >= rests);
            if disk.is_cut() || over {
                return Ok(true);
            }
            if let Some(hang) = machine.hangs()? {
                run::tell(&hang.into());
                return Ok(false);
            }
            if Instant::now() > end {
                let seconds = limit.as_secs();
                bail!("no end after {seconds} s; the end of the console:\n{}", machine.console_tail());
            }
            sleep(POLL).await;
        }
    }

    async fn check(&self) -> Result<()> {
        let boots = boots::parse(&self.console());
        ensure!(boots.iter().all(|boot| !boot.damage_found), "a slot was damaged: {boots:?}");
        if self.tale.installs {
            ensure!(boots.iter().all(|boot| boot.slot == "a"), "the live system booted {boots:?}");
            base::agent(&self.host.agent, &self.system(), &["verify"]).await.context("the live system")?;
            return install::check(self).await;
        }
        let last = self.tale.ends_in;
        let slots = self.host.slots(&self.disk).await?;
        let kept = slots.iter().find(|slot| slot.name == last).context("the disk has no such slot")?;
        ensure!(
            kept.bootable && kept.default && kept.tries_left.is_none(),
            "slot {last} is not kept: {kept:?}"
        );
        self.agent(&["verify"]).await.context("verify both slots")?;
        ensure!(
            boots.last().is_some_and(|boot| boot.slot == last && boot.up),
            "the machine booted {boots:?}"
        );
        Ok(())
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("console.log")).unwrap_or_default()).into_owned()
    }
}

/// Where the power is to go.
struct Planned {
    /// Of the place.
    index: usize,
    place: &'static Place,
    cut: Cut,
}

impl Planned {
    fn told(&self) -> String {
        let Self { place, cut, .. } = self;
        let behind = if cut.at_flush { ", at the flush behind them," } else { "" };
        let part = if place.part == Part::All { String::new() } else { format!(" to {:?}", place.part) };
        format!("{} writes{part}{behind} after `{}`", cut.writes, place.words)
    }
}

/// A sparse copy of a disk.
pub(super) async fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.args(["--sparse=always", "--reflink=auto"]).args([from, to]);
    output(copy).await.context("copy the disk").map(|_| ())
}

fn up(console: &str) -> bool {
    boots::parse(console).last().is_some_and(|last| last.up)
}
