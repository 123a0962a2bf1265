//! What the agent writes for a cloud-config that is applied without a reboot. The host's unit reads it.

use evenkeel_crds::cloud_config::{digest_of, release};
use evenkeel_node_agent_core::{
    journal::Attempt,
    live_config::{Kept, LiveConfig, Order, Setting},
    machine::{LiveAction, RunningSlot, order_id},
};

use super::{
    act::{ActError, COMMIT_DEADLINE_SECONDS, Tools},
    host,
};
use crate::disk::Disk;

/// Does an action; each is safe to repeat.
pub(super) fn act(tools: &Tools, disk: &Disk, action: LiveAction) -> Result<(), ActError> {
    let (Some(running), Some(attempt)) = (host::running_slot(&tools.proc)?, &tools.attempt) else {
        return Ok(());
    };
    let change = Change { tools, disk, attempt, running };
    match action {
        LiveAction::Apply => change.apply(),
        LiveAction::Keep => change.keep(),
        LiveAction::Withdraw => match change.known()?.order {
            Some(order) => Ok(tools.state.write_live_order(&Order { withdrawn: true, ..order })?),
            None => Ok(()),
        },
        LiveAction::GoBack => change.go_back(),
    }
}

/// An attempt on the machine that runs.
struct Change<'a> {
    tools: &'a Tools,
    disk: &'a Disk,
    attempt: &'a Attempt,
    running: RunningSlot,
}

impl Change<'_> {
    fn known(&self) -> Result<LiveConfig, ActError> {
        Ok(self.tools.state.live_config(&self.running.name)?)
    }

    fn apply(&self) -> Result<(), ActError> {
        let live = self.known()?;
        if let Some(order) = live.order(&order_id(self.attempt), &self.running.boot_id) {
            // Written again, it starts a unit that did not hear of it.
            return Ok(self.tools.state.write_live_order(order)?);
        }
        let config = self.tools.cloud_config.as_ref();
        let digest = digest_of(&self.attempt.image).unwrap_or_default();
        let found = release(digest, config.map(|config| config.sha256.as_str()));
        if found != self.attempt.digest {
            let (slot, wanted) = (self.attempt.slot.clone(), self.attempt.digest.clone());
            return Err(ActError::OtherImage { slot, found, wanted });
        }
        let wanted = Setting { release: found, document: config.map(|config| config.document.clone()) };
        let before = match live.kept(&self.running) {
            Some(kept) => kept.setting.clone(),
            None => self.came_with()?,
        };
        Ok(self.tools.state.write_live_order(&self.order(wanted, before))?)
    }

    /// The agent's word: from here on each boot applies it. Not while the host gives it up.
    fn keep(&self) -> Result<(), ActError> {
        let _lock = self.tools.state.lock_live()?;
        let live = self.known()?;
        let may_be_kept = live.may_be_kept(&order_id(self.attempt), &self.running.boot_id);
        let Some(Order { wanted, before, .. }) = live.order.filter(|_| may_be_kept) else {
            return Err(ActError::GivenUp);
        };
        self.tools.state.write_live_kept(&Kept {
            slot: self.running.name.clone(),
            under: self.running.digest.clone(),
            setting: wanted,
            before,
        })?;
        Ok(self.tools.state.clear_live_boots()?)
    }

    /// First the order, so that the host applies what was before; then what counts from the next boot on.
    fn go_back(&self) -> Result<(), ActError> {
        let live = self.known()?;
        let kept = live.kept(&self.running).filter(|kept| kept.setting.release == self.attempt.digest);
        let Some(kept) = kept.cloned() else { return Ok(()) };
        let order = self.order(kept.setting, kept.before.clone());
        self.tools.state.write_live_order(&Order { withdrawn: true, ..order })?;
        let before = self.came_with()?;
        Ok(self.tools.state.write_live_kept(&Kept { setting: kept.before, before, ..kept })?)
    }

    fn order(&self, wanted: Setting, before: Setting) -> Order {
        let deadline = self.tools.commit_deadline.unwrap_or(COMMIT_DEADLINE_SECONDS);
        Order {
            id: order_id(self.attempt),
            boot_id: self.running.boot_id.clone(),
            wanted,
            before,
            deadline_seconds: u64::try_from(deadline).unwrap_or_default(),
            api_server: self.tools.api_server.clone(),
            withdrawn: false,
        }
    }

    /// What came with the image of the slot that runs.
    fn came_with(&self) -> Result<Setting, ActError> {
        let record = self.disk.slot(&self.running.name)?.read_record()?;
        Ok(Setting { release: record.release(), document: record.cloud_config })
    }
}
