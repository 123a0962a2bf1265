//! The agent's folder on the state partition: the journal, the order of a trial, and the guard's word on it.
//!
//! Each is one small JSON document, replaced as a whole: after a power cut it is the old one or the new one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use evenkeel_node_agent_core::{
    journal::{ChecksPassed, JOURNAL_VERSION, Journal, ResetDone, TrialOrder, Verdict},
    live_config::{Boots, Kept, LiveConfig, Order, Said},
    slot_check::SlotChecks,
};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Serialize, de::DeserializeOwned};

const JOURNAL: &str = "journal.json";
const TRIAL: &str = "trial.json";
const VERDICT: &str = "verdict.json";
const CHECKS_PASSED: &str = "checks-passed.json";
const RESET_DONE: &str = "reset-done.json";
const SLOT_CHECKS: &str = "slot-checks.json";
const LIVE_LOCK: &str = "live.lock";
const LIVE_SAID: &str = "live-said.json";
const LIVE_BOOTS: &str = "live-boots.json";
/// The unit that a change of it starts names it too.
const LIVE_ORDER: &str = "live-order.json";
const LOCK: &str = "agent.lock";
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// A document of ours has a few kilobytes; anything above this is not ours.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// The folder.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

/// Why a document could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}: is the state partition mounted, writable and not full?")]
pub struct StateError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl StateDir {
    /// Uses `path`, and makes it if it is not there.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(path).map_err(|source| error("create", path, source))?;
        Ok(Self(path.to_owned()))
    }

    /// Waits until no other process follows a plan with this folder.
    pub async fn lock(&self) -> Result<Flock<File>, StateError> {
        let path = self.0.join(LOCK);
        let failed = |source| error("lock", &path, source);
        let mut file = File::create(&path).map_err(failed)?;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((file, Errno::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(failed(errno.into())),
            };
            tracing::info!(path = %path.display(), "waiting for another agent to end");
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    /// The journal; an empty one when there is none. One that cannot be understood, or is of another version, is set
    /// aside, not lost.
    pub fn journal(&self) -> Result<Journal, StateError> {
        let ours = |journal: &Journal| journal.version == JOURNAL_VERSION;
        Ok(self.read_if(JOURNAL, ours)?.unwrap_or_default())
    }

    /// Replaces the journal, durably.
    pub fn write_journal(&self, journal: &Journal) -> Result<(), StateError> {
        self.write(JOURNAL, journal)
    }

    /// What the guard needs to know of a trial.
    pub fn trial(&self) -> Result<Option<TrialOrder>, StateError> {
        self.read(TRIAL)
    }

    /// Replaces the trial's order, durably.
    pub fn write_trial(&self, trial: &TrialOrder) -> Result<(), StateError> {
        self.write(TRIAL, trial)
    }

    /// What the guard left.
    pub fn verdict(&self) -> Result<Option<Verdict>, StateError> {
        self.read(VERDICT)
    }

    /// Replaces the guard's verdict, durably.
    pub fn write_verdict(&self, verdict: &Verdict) -> Result<(), StateError> {
        self.write(VERDICT, verdict)
    }

    /// In which boot the host's own health checks last passed.
    pub fn checks_passed(&self) -> Result<Option<ChecksPassed>, StateError> {
        self.read(CHECKS_PASSED)
    }

    /// Says, durably, that the host's own health checks passed.
    pub fn write_checks_passed(&self, passed: &ChecksPassed) -> Result<(), StateError> {
        self.write(CHECKS_PASSED, passed)
    }

    /// The last order of the cluster's to begin anew that was carried out.
    pub fn reset_done(&self) -> Result<Option<ResetDone>, StateError> {
        self.read(RESET_DONE)
    }

    /// Remembers, durably, that it was carried out.
    pub fn write_reset_done(&self, done: &ResetDone) -> Result<(), StateError> {
        self.write(RESET_DONE, done)
    }

    /// The last look at every byte of each slot.
    pub fn slot_checks(&self) -> Result<SlotChecks, StateError> {
        Ok(self.read(SLOT_CHECKS)?.unwrap_or_default())
    }

    /// Remembers the looks at slots, durably.
    pub fn write_slot_checks(&self, checks: &SlotChecks) -> Result<(), StateError> {
        self.write(SLOT_CHECKS, checks)
    }

    /// What is known of cloud-configs without a reboot where this slot runs; whether its system has a unit for them is not
    /// known here.
    pub fn live_config(&self, slot: &str) -> Result<LiveConfig, StateError> {
        Ok(LiveConfig {
            supported: false,
            kept: self.read(&live_kept(slot))?,
            order: self.read(LIVE_ORDER)?,
            said: self.read(LIVE_SAID)?,
            boots: self.read(LIVE_BOOTS)?,
        })
    }

    /// The same for each of these slots.
    pub fn live_configs<'a>(
        &self,
        slots: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<LiveConfig>, StateError> {
        slots.map(|slot| self.live_config(slot)).collect()
    }

    /// Held by who decides whether a trial is kept or given up: the agent and the host's unit never do both.
    pub fn lock_live(&self) -> Result<Flock<File>, StateError> {
        let path = self.0.join(LIVE_LOCK);
        let file = File::create(&path).map_err(|source| error("lock", &path, source))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| error("lock", &path, errno.into()))
    }

    /// Replaces what is kept for a slot, durably.
    pub fn write_live_kept(&self, kept: &Kept) -> Result<(), StateError> {
        self.write(&live_kept(&kept.slot), kept)
    }

    /// Forgets, durably, what was kept for a slot: what it holds itself counts.
    pub fn clear_live_kept(&self, slot: &str) -> Result<(), StateError> {
        self.remove(&live_kept(slot))
    }

    /// Replaces what the host's unit is asked for, durably.
    pub fn write_live_order(&self, order: &Order) -> Result<(), StateError> {
        self.write(LIVE_ORDER, order)
    }

    /// Replaces what the host's unit says of it, durably.
    pub fn write_live_said(&self, said: &Said) -> Result<(), StateError> {
        self.write(LIVE_SAID, said)
    }

    /// Takes back, durably, what the host's unit said.
    pub fn clear_live_said(&self) -> Result<(), StateError> {
        self.remove(LIVE_SAID)
    }

    /// Replaces the count of boots, durably.
    pub fn write_live_boots(&self, boots: &Boots) -> Result<(), StateError> {
        self.write(LIVE_BOOTS, boots)
    }

    /// Removes the count of boots, durably.
    pub fn clear_live_boots(&self) -> Result<(), StateError> {
        self.remove(LIVE_BOOTS)
    }

    /// Removes the verdict on an earlier trial, durably.
    pub fn clear_verdict(&self) -> Result<(), StateError> {
        self.remove(VERDICT)
    }

    fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error("remove", &path, source)),
            _ => self.sync(),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        self.read_if(name, |_| true)
    }

    /// A document that is there and understood; any other one is set aside.
    fn read_if<T: DeserializeOwned>(
        &self,
        name: &str,
        is_understood: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, StateError> {
        let path = self.0.join(name);
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(error("read", &path, source)),
        };
        let parsed = if length > DOCUMENT_BYTES_MAX {
            None
        } else {
            let bytes = fs::read(&path).map_err(|source| error("read", &path, source))?;
            serde_json::from_slice(&bytes).ok().filter(is_understood)
        };
        if parsed.is_none() {
            let aside = self.0.join(format!("{name}.unreadable"));
            let (unreadable, kept) = (path.display(), aside.display());
            tracing::warn!(%unreadable, %kept, "set aside a document that cannot be understood");
            fs::rename(&path, &aside).map_err(|source| error("rename", &path, source))?;
        }
        Ok(parsed)
    }

    fn write<T: Serialize>(&self, name: &str, document: &T) -> Result<(), StateError> {
        let path = self.0.join(name);
        let new = self.0.join(format!("{name}.new"));
        let failed = |source| error("write", &path, source);
        let bytes = serde_json::to_vec_pretty(document).map_err(|source| failed(source.into()))?;
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&new, &path).map_err(failed)?;
        self.sync()
    }

    fn sync(&self) -> Result<(), StateError> {
        File::open(&self.0)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| error("flush", &self.0, source))
    }
}

fn live_kept(slot: &str) -> String {
    format!("live-kept-{slot}.json")
}

fn error(operation: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(state.journal().unwrap(), Journal::default());
        let mut journal = Journal::default();
        journal.remember_bad("sha256:bad", evenkeel_crds::node_plan::RollbackCause::HostCheck);
        state.write_journal(&journal).unwrap();
        assert_eq!(state.journal().unwrap(), journal);
    }

    #[test]
    fn nonsense_is_set_aside_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(JOURNAL), b"{ half a docu").unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(state.journal().unwrap(), Journal::default());
        assert_eq!(fs::read(folder.path().join("journal.json.unreadable")).unwrap(), b"{ half a docu");
    }

    /// What a newer agent wrote says which images are bad: it is there when that agent comes back.
    #[test]
    fn a_journal_of_another_version_is_set_aside_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let newer = Journal { version: JOURNAL_VERSION + 1, ..Journal::default() };
        state.write_journal(&newer).unwrap();
        let bytes = fs::read(folder.path().join(JOURNAL)).unwrap();
        assert_eq!(state.journal().unwrap(), Journal::default());
        state.write_journal(&Journal::default()).unwrap();
        assert_eq!(fs::read(folder.path().join("journal.json.unreadable")).unwrap(), bytes);
    }
}
