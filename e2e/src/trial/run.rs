//! One case: a copy of the base's disk, the case's troubles, and the boots that follow.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_node_agent_core::journal::TrialOrder;
use tokio::{process::Command, time::sleep};

use super::{
    base::{self, Base, HANGS_MAX, Host},
    boots,
    case::{Boot, Circumstances, Loader, Then, Trial, up},
    cause,
    slot::Slot,
    spoil, state,
};
use crate::{
    machine::{HOST, Hang, Hardware, Machine},
    process::output,
    progress,
};

const POLL: Duration = Duration::from_millis(250);
/// A boot that takes longer than this many usual ones has not come up.
const SLOWER: u32 = 4;
/// A trial that is to end by something else.
const NO_DEADLINE: Duration = Duration::from_hours(1);
/// No port of a server on any machine.
const NOBODY: &str = "127.0.0.1:1";
/// What a machine does by itself where `activate` is to be refused: the first time nothing is known yet.
const ACTIVATE: &str = "exec > /dev/console 2>&1\nif /usr/lib/evenkeel/evenkeel-agent activate --slot b --tries 1; then systemctl reboot; sleep 1000; fi\n";
/// What a machine says of itself; `doctor` ends with an error where something is amiss.
const EXAMINE: &str = "/usr/lib/evenkeel/evenkeel-agent doctor > /dev/console 2>&1 || :\n";

/// How long a machine is waited for, and whether one that stops before its first process is begun again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub limit: Duration,
    pub hangs_are_the_emulators: bool,
}

/// Runs a case; one whose emulator hung is set up again from the start. Gives what the machine came to.
pub(super) async fn run(host: &Host, base: &Base, trial: Trial) -> Result<String> {
    let name = trial.name();
    for attempt in 0.. {
        let folder = host.folder.join(format!("{name}-{attempt}"));
        let disk = folder.join("disk.img");
        let outcome = Attempt { host, base, trial, disk, folder: folder.clone() };
        let outcome = progress::long(&format!("{name}: {}", trial.case.about), outcome.run()).await;
        match outcome {
            Err(hang) if attempt < HANGS_MAX && is_hang(&hang) => tell(&hang),
            outcome => {
                if std::env::var_os("KEEP").is_none() {
                    fs::remove_dir_all(&folder).context("remove a case's folder")?;
                }
                return outcome;
            }
        }
    }
    unreachable!("the loop ends with its last attempt")
}

pub(super) fn is_hang(error: &Error) -> bool {
    error.downcast_ref::<Hang>().is_some()
}

pub(super) fn tell(hang: &Error) {
    progress::step(&format!("the machine is set up again from the start: {hang:#}"));
}

struct Attempt<'a> {
    host: &'a Host,
    base: &'a Base,
    trial: Trial,
    folder: PathBuf,
    disk: PathBuf,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<String> {
        let digest = self.set_up().await?;
        let begun = Instant::now();
        let boots = self.boot("machine", self.trial.case.machine, self.trial.case.expected).await?;
        ensure!(boots::equal(&boots, self.trial.case.expected), "the machine booted {boots:?}");
        let seconds = begun.elapsed().as_secs();
        self.must_say(self.trial.case.says)?;
        match self.trial.case.then {
            Then::Nothing => Ok(format!("as it should, {seconds} s after it was powered on")),
            Then::Cause(expected) => {
                let verdict = state::verdict(&self.disk).await?;
                let told = cause::tell(&self.host.slots(&self.disk).await?, &digest, verdict)?;
                let (cause, message) = (told.rolled_back.cause, told.rolled_back.message);
                ensure!(cause == expected, "the cause is {cause:?}: {message}");
                let innocent = cause == RollbackCause::ClusterUnreachable;
                ensure!(told.condemned != innocent, "the image is condemned: {}", told.condemned);
                Ok(format!("back on slot a {seconds} s after it was powered on, {cause:?}: {message}"))
            }
            Then::CommitAndBootAgain => {
                self.agent(&["commit", "--slot", "b"]).await?;
                let boots = self.boot("kept", Circumstances::Usual, &[up("b")]).await?;
                ensure!(boots::equal(&boots, &[up("b")]), "the kept slot booted {boots:?}");
                Ok("slot b was kept, and boots again".to_owned())
            }
            Then::DoctorSays(words) => {
                self.must_say(words)?;
                Ok(format!("doctor says: {words}"))
            }
            Then::ActivateRefuses(words) => {
                self.must_say(words)?;
                Ok(format!("refused: {words}"))
            }
        }
    }

    fn must_say(&self, words: &str) -> Result<()> {
        let console = fs::read(self.folder.join("machine/console.log")).context("read the console")?;
        let console = String::from_utf8_lossy(&console);
        ensure!(console.contains(words), "the console does not say `{words}`:\n{console}");
        Ok(())
    }

    /// Gives the digest of the image in slot b.
    async fn set_up(&self) -> Result<String> {
        fs::create_dir_all(&self.folder).context("make a folder for the case")?;
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"]).args([&self.base.disk, &self.disk]);
        output(copy).await.context("copy the disk")?;
        if self.trial.case.image != "2" {
            let image = self.host.image(self.trial.loader, self.trial.case.image);
            self.agent(&["stage", &image, "--slot", "b", "--plain-http"]).await?;
        }
        let digest = self.digest().await?;
        if let Then::DoctorSays(_) = self.trial.case.then {
            state::write_script(&self.disk, EXAMINE).await?;
        }
        if let Then::ActivateRefuses(_) = self.trial.case.then {
            state::write_script(&self.disk, ACTIVATE).await?;
        } else {
            state::write_order(&self.disk, &self.order(&digest)).await?;
            self.agent(&["activate", "--slot", "b", "--tries", &self.trial.case.tries.to_string()]).await?;
        }
        if self.trial.case.kept {
            self.agent(&["rollback", "--to", "b"]).await?;
        }
        spoil::spoil(self.host, &self.disk, &self.folder, self.trial).await?;
        Ok(digest)
    }

    fn order(&self, digest: &str) -> TrialOrder {
        let here = format!("{HOST}:{}", self.host.registry.port());
        let away = self.trial.case.machine == Circumstances::ClusterAway;
        TrialOrder {
            plan_id: "trial".to_owned(),
            digest: digest.to_owned(),
            slot: "b".to_owned(),
            deadline_seconds: self.deadline().as_secs(),
            boot_id_before: "before".to_owned(),
            // That somebody listens there is all that is asked.
            api_server: Some(if away { NOBODY.to_owned() } else { here }),
        }
    }

    async fn digest(&self) -> Result<String> {
        let slots = self.host.slots(&self.disk).await?;
        let slot = slots.into_iter().find(|slot| slot.name == "b");
        slot.and_then(|slot| slot.digest).context("slot b holds no image")
    }

    /// From the boot to the end of the trial. One that ends before must do so also on a host that is slower by then than it
    /// was.
    fn deadline(&self) -> Duration {
        match self.trial.case.then {
            Then::Cause(RollbackCause::Deadline | RollbackCause::ClusterUnreachable) => {
                self.base.boot_time * SLOWER + Duration::from_secs(45)
            }
            _ => NO_DEADLINE,
        }
    }

    /// How long to wait for the deadline.
    fn wait(&self) -> Duration {
        Some(self.deadline()).filter(|deadline| *deadline != NO_DEADLINE).unwrap_or_default()
    }

    async fn boot(&self, name: &str, around: Circumstances, expected: &[Boot]) -> Result<Vec<Boot<String>>> {
        let boots = u32::try_from(expected.len()).unwrap_or(u32::MAX);
        let around = match around {
            Circumstances::RootUnreadable { .. } => {
                let slot = Slot::find(&self.host.agent, &self.disk, "b").await?;
                Circumstances::RootUnreadable { byte: slot.on_disk(slot.root_inode()?) }
            }
            around => around,
        };
        let patience = Patience {
            limit: self.base.boot_time * SLOWER * boots + self.wait() + self.trial.case.lasts,
            hangs_are_the_emulators: !self.trial.case.spoil.before_first_process(),
        };
        boot(&self.disk, &self.folder.join(name), self.trial.loader, around, expected, patience).await
    }

    async fn agent(&self, arguments: &[&str]) -> Result<()> {
        base::agent(&self.host.agent, &self.disk, arguments).await.map(|_| ())
    }
}

/// Lets a machine boot as often as is expected and until a system is up. Gives every boot until then; an error is the
/// [`Hang`] of an emulator, or a machine that came to nothing.
pub(super) async fn boot(
    disk: &Path,
    folder: &Path,
    loader: Loader,
    around: Circumstances,
    expected: &[Boot],
    patience: Patience,
) -> Result<Vec<Boot<String>>> {
    let clock_in_the_past = around == Circumstances::ClockFarInThePast;
    let unreadable_at = if let Circumstances::RootUnreadable { byte } = around { Some(byte) } else { None };
    let (no_watchdog, bios) = (around == Circumstances::NoWatchdog, loader.on_bios());
    let hardware = Hardware {
        clock_in_the_past,
        unreadable_at,
        no_watchdog,
        bios,
        secure_boot: loader.secure_boot(),
        ..Hardware::default()
    };
    let mut machine = Machine::start("trial", disk, folder, hardware)?;
    let mut cuts = if let Circumstances::PowerGoes { times } = around { times } else { 0 };
    let mut begun = 0;
    let end = Instant::now() + patience.limit;
    loop {
        machine.tend()?;
        let boots = boots::read(&machine.console())?;
        let came_up = boots.last().is_some_and(|last| last.up) && boots.len() >= expected.len();
        if came_up || boots.len() > expected.len() {
            return Ok(boots);
        }
        if cuts > 0 && boots.len() > begun {
            (cuts, begun) = (cuts - 1, boots.len());
            machine.cut_power()?;
        }
        if let Some(hang) = machine.hangs()? {
            if patience.hangs_are_the_emulators {
                return Err(hang.into());
            }
            bail!("{hang}\nThis case changes what runs before the first process: it counts as its outcome");
        }
        if Instant::now() > end {
            let seconds = patience.limit.as_secs();
            bail!("after {seconds} s: {boots:?}; the end of the console:\n{}", machine.console_tail());
        }
        sleep(POLL).await;
    }
}
