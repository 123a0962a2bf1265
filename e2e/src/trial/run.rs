//! One case: a copy of the base's disk, the case's troubles, and the boots that follow.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use evenkeel_node_agent_core::journal::TrialOrder;
use tokio::{process::Command, time::sleep};

use super::{
    base::{self, Base, HANGS_MAX, Host},
    boots,
    case::{Boot, Case, Circumstances, Then, up},
    cause, spoil, state,
};
use crate::{
    machine::{Hang, Hardware, Machine},
    process::output,
    progress,
};

const POLL: Duration = Duration::from_millis(250);
/// A boot that takes longer than this many usual ones has not come up.
const SLOWER: u32 = 4;
/// The guard asks checks three times with pauses, and a machine without a pulse is given up after some minutes.
const EXTRA: Duration = Duration::from_mins(5);
/// No port of a server on any machine.
const NOBODY: &str = "127.0.0.1:1";
/// What a machine does by itself where `activate` is to be refused: the first time nothing is known yet.
const ACTIVATE: &str = "if /usr/lib/evenkeel/evenkeel-agent activate --slot b --tries 1; then systemctl reboot; sleep 1000; fi\n";

/// How long a machine is waited for, and whether one that stops before its first process is begun again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub limit: Duration,
    pub hangs_are_the_emulators: bool,
}

/// Runs a case; one whose emulator hung is set up again from the start. Gives what the machine came to.
pub(super) async fn run(host: &Host, base: &Base, case: &Case) -> Result<String> {
    for attempt in 0.. {
        let folder = host.folder.join(format!("{}-{attempt}", case.name));
        let outcome = Attempt { host, base, case, disk: folder.join("disk.img"), folder: folder.clone() };
        let outcome = progress::long(&format!("{}: {}", case.name, case.about), outcome.run()).await;
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
    case: &'a Case,
    folder: PathBuf,
    disk: PathBuf,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<String> {
        self.set_up().await?;
        let boots = self.boot("machine", self.case.expected).await?;
        ensure!(boots::equal(&boots, self.case.expected), "the machine booted {boots:?}");
        match self.case.then {
            Then::Nothing => Ok("as it should".to_owned()),
            Then::Cause(expected) => {
                let verdict = state::verdict(&self.disk).await?;
                let said = cause::cause(&self.host.slots(&self.disk).await?, verdict)?;
                ensure!(said.cause == expected, "the cause is {:?}: {}", said.cause, said.message);
                Ok(format!("back on slot a, {:?}: {}", said.cause, said.message))
            }
            Then::CommitAndBootAgain => {
                self.agent(&["commit", "--slot", "b"]).await?;
                let boots = self.boot("kept", &[up("b")]).await?;
                ensure!(boots::equal(&boots, &[up("b")]), "the kept slot booted {boots:?}");
                Ok("slot b was kept, and boots again".to_owned())
            }
            Then::ActivateRefuses(words) => {
                let console =
                    fs::read(self.folder.join("machine/console.log")).context("read the console")?;
                let console = String::from_utf8_lossy(&console);
                ensure!(console.contains(words), "`activate` was not refused with `{words}`:\n{console}");
                Ok(format!("refused: {words}"))
            }
        }
    }

    async fn set_up(&self) -> Result<()> {
        fs::create_dir_all(&self.folder).context("make a folder for the case")?;
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"]).args([&self.base.disk, &self.disk]);
        output(copy).await.context("copy the disk")?;
        if self.case.image != "2" {
            self.agent(&["stage", &self.host.image(self.case.image), "--slot", "b", "--plain-http"]).await?;
        }
        if let Then::ActivateRefuses(_) = self.case.then {
            state::write_script(&self.disk, ACTIVATE).await?;
        } else {
            state::write_order(&self.disk, &self.order().await?).await?;
            self.agent(&["activate", "--slot", "b", "--tries", &self.case.tries.to_string()]).await?;
        }
        if self.case.kept {
            self.agent(&["commit", "--slot", "b"]).await?;
        }
        spoil::spoil(self.host, &self.disk, &self.folder, self.case.spoil).await
    }

    async fn order(&self) -> Result<TrialOrder> {
        let slots = self.host.slots(&self.disk).await?;
        let slot = slots.into_iter().find(|slot| slot.name == "b");
        let digest = slot.and_then(|slot| slot.digest).context("slot b holds no image")?;
        let away = self.case.machine == Circumstances::ClusterAway;
        Ok(TrialOrder {
            plan_id: "trial".to_owned(),
            digest,
            slot: "b".to_owned(),
            deadline_seconds: self.deadline().as_secs(),
            boot_id_before: "before".to_owned(),
            api_server: away.then(|| NOBODY.to_owned()),
        })
    }

    /// From the boot to the end of the trial: time to come up, and for checks that fail three times.
    fn deadline(&self) -> Duration {
        self.base.boot_time * 2 + Duration::from_secs(45)
    }

    async fn boot(&self, name: &str, expected: &[Boot]) -> Result<Vec<Boot<String>>> {
        let boots = u32::try_from(expected.len()).unwrap_or(u32::MAX);
        let patience = Patience {
            limit: self.base.boot_time * SLOWER * boots + self.deadline() + EXTRA,
            hangs_are_the_emulators: !self.case.spoil.before_first_process(),
        };
        boot(&self.disk, &self.folder.join(name), self.case.machine, expected, patience).await
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
    around: Circumstances,
    expected: &[Boot],
    patience: Patience,
) -> Result<Vec<Boot<String>>> {
    let clock_in_the_past = around == Circumstances::ClockFarInThePast;
    let hardware = Hardware { clock_in_the_past, one_processor: true, ..Hardware::default() };
    let mut machine = Machine::start_with("trial", disk, folder, hardware)?;
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
