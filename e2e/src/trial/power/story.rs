//! One tale with cuts.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{process::Command, time::sleep};

use super::{
    dice::Dice,
    disk::VolatileDisk,
    tales::{KEPT, Tale},
};
use crate::{
    machine::{HOST, Hardware, Machine},
    os_image,
    process::output,
    progress,
    trial::{
        base::{self, Base, HANGS_MAX, Host},
        boots, run,
        slot::Slot,
        state,
    },
};

const POLL: Duration = Duration::from_millis(50);
/// A boot that takes longer than this many usual ones, or a stage in it, has not come up.
const SLOWER: u32 = 8;
/// What all scripts begin with.
const BEGIN: &str = r#"
agent=/usr/lib/evenkeel/evenkeel-agent
say() { echo "evenkeel-power: $*" > /dev/console; }
"#;

/// Copies the base, lets it do one thing with so many cuts, and looks at what came of it.
pub(super) async fn tell(host: &Host, base: &Base, dice: &mut Dice, seed: u64, cuts: u32) -> Result<String> {
    let folder = host.folder.join(format!("power-{seed}"));
    fs::create_dir_all(&folder).context("make a folder for the story")?;
    let tale = Tale::choose(dice);
    let story = Story { host, base, tale, disk: folder.join("disk.img"), folder };
    story.set_up().await?;
    let done =
        progress::long(&format!("{} with {cuts} cuts, seed {seed}", tale.name), story.go_on(dice, cuts))
            .await;
    let looked = match done {
        Ok(said) => story.check().await.map(|()| format!("{}: {}", tale.name, said.join("; "))),
        Err(error) => Err(error),
    };
    if std::env::var_os("KEEP").is_none() {
        fs::remove_dir_all(&story.folder).context("remove the story's folder")?;
    }
    looked
}

struct Story<'a> {
    host: &'a Host,
    base: &'a Base,
    tale: &'static Tale,
    folder: PathBuf,
    disk: PathBuf,
}

impl Story<'_> {
    async fn set_up(&self) -> Result<()> {
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"]).args([&self.base.disk, &self.disk]);
        output(copy).await.context("copy the disk")?;
        if self.tale.begins_in_b {
            self.agent(&["activate", "--slot", "b"]).await?;
            self.agent(&["commit", "--slot", "b"]).await?;
        } else {
            // All of the image is written anew.
            Slot::find(&self.host.agent, &self.disk, "b").await?.wipe()?;
        }
        if let Some(document) = self.tale.cloud_config {
            state::write_cloud_config(&self.disk, document).await?;
        }
        let port = self.host.registry.port();
        let image = format!("{HOST}:{port}/{}:2", os_image::TRIALS_REPOSITORY);
        let script = format!("{BEGIN}{}", self.tale.script.replace("IMAGE", &image));
        state::write_script(&self.disk, &script).await
    }

    async fn agent(&self, arguments: &[&str]) -> Result<()> {
        base::agent(&self.host.agent, &self.disk, arguments).await.map(|_| ())
    }

    /// Gives what each cut hit.
    async fn go_on(&self, dice: &mut Dice, cuts: u32) -> Result<Vec<String>> {
        let socket = self.folder.join("nbd");
        let disk = VolatileDisk::serve(&self.disk, &socket)?;
        let hardware = Hardware { remote_disk: true, one_processor: true, ..Hardware::default() };
        let mut machine = Machine::start_with("power", &socket, &self.folder, hardware)?;
        let mut said = Vec::new();
        let mut hangs = 0;
        for number in 0..=cuts {
            let places = self.tale.places;
            let (words, writes) =
                places[usize::try_from(dice.below(places.len() as u64)).unwrap_or_default()];
            let cut = (number < cuts).then(|| (words, 1 + dice.below(writes)));
            let begun = self.console().len();
            while !self.boot(&mut machine, &disk, cut, begun).await? {
                hangs += 1;
                ensure!(hangs <= HANGS_MAX, "the emulator hung {hangs} times");
                machine.cut_power()?;
            }
            machine.power_off();
            let lost = disk.lose_power(dice)?;
            if let Some((words, writes)) = cut {
                let reached = self.console().get(begun..).is_some_and(|news| news.contains(words));
                let place =
                    if reached { format!("{writes} writes after `{words}`") } else { "at rest".to_owned() };
                said.push(format!("{place}, {lost} in doubt"));
                machine.power_on()?;
            }
        }
        Ok(said)
    }

    /// Lets the machine go on until its power is cut, or without a cut until it has come to its end and is up. False when
    /// its emulator hung.
    async fn boot(
        &self,
        machine: &mut Machine,
        disk: &VolatileDisk,
        cut: Option<(&str, u64)>,
        begun: usize,
    ) -> Result<bool> {
        let mut armed = false;
        let limit = self.base.boot_time * SLOWER + Duration::from_mins(6);
        let end = Instant::now() + limit;
        loop {
            machine.tend()?;
            let console = self.console();
            let news = console.get(begun..).unwrap_or_default();
            if let Some((words, writes)) = cut.filter(|_| !armed) {
                // A step that is over does not come again.
                let over = news.contains(KEPT) && up(&console);
                if news.contains(words) || over {
                    disk.cut_after(if over { 1 } else { writes });
                    armed = true;
                }
            }
            let done = cut.is_none() && up(&console) && console.contains(KEPT);
            // A step that writes less than its cut waits for never writes again in a system that is up and idle.
            let idle = armed && up(&console) && news.contains(KEPT);
            if disk.is_cut() || done || idle {
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
        let last = self.tale.ends_in;
        let slots = self.host.slots(&self.disk).await?;
        let kept = slots.iter().find(|slot| slot.name == last).context("the disk has no such slot")?;
        ensure!(
            kept.bootable && kept.default && kept.tries_left.is_none(),
            "slot {last} is not kept: {kept:?}"
        );
        self.agent(&["verify"]).await.context("verify both slots")?;
        let boots = boots::parse(&self.console());
        ensure!(
            boots.last().is_some_and(|boot| boot.slot == last && boot.up),
            "the machine booted {boots:?}"
        );
        ensure!(boots.iter().all(|boot| !boot.damage_found), "a slot was damaged: {boots:?}");
        Ok(())
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("console.log")).unwrap_or_default()).into_owned()
    }
}

fn up(console: &str) -> bool {
    boots::parse(console).last().is_some_and(|last| last.up)
}
