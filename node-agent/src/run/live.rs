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
    let live = tools.state.live_config(&running.name)?;
    match action {
        LiveAction::Apply => apply(tools, disk, attempt, &running, &live),
        LiveAction::Keep => keep(tools, attempt, running),
        LiveAction::Withdraw => match live.order {
            Some(order) => Ok(tools.state.write_live_order(&Order { withdrawn: true, ..order })?),
            None => Ok(()),
        },
        LiveAction::GoBack => go_back(tools, disk, attempt, &running, &live),
    }
}

fn apply(
    tools: &Tools,
    disk: &Disk,
    attempt: &Attempt,
    running: &RunningSlot,
    live: &LiveConfig,
) -> Result<(), ActError> {
    if let Some(order) = live.order(&order_id(attempt), &running.boot_id) {
        // Written again, it starts a unit that did not hear of it.
        return Ok(tools.state.write_live_order(order)?);
    }
    let config = tools.cloud_config.as_ref();
    let digest = digest_of(&attempt.image).unwrap_or_default();
    let found = release(digest, config.map(|config| config.sha256.as_str()));
    if found != attempt.digest {
        let (slot, wanted) = (attempt.slot.clone(), attempt.digest.clone());
        return Err(ActError::OtherImage { slot, found, wanted });
    }
    let wanted = Setting { release: found, document: config.map(|config| config.document.clone()) };
    let before = match live.kept(running) {
        Some(kept) => kept.setting.clone(),
        None => came_with(disk, running)?,
    };
    Ok(tools.state.write_live_order(&order(tools, attempt, running, wanted, before))?)
}

/// The agent's word: from here on each boot applies it. Not while the host gives it up.
fn keep(tools: &Tools, attempt: &Attempt, running: RunningSlot) -> Result<(), ActError> {
    let _lock = tools.state.lock_live()?;
    let live = tools.state.live_config(&running.name)?;
    let id = order_id(attempt);
    let order = live.order.as_ref().filter(|_| live.may_be_kept(&id, &running.boot_id));
    let Some(Order { wanted, before, .. }) = order.cloned() else { return Err(ActError::GivenUp) };
    tools.state.write_live_kept(&Kept {
        slot: running.name,
        under: running.digest,
        setting: wanted,
        before,
    })?;
    Ok(tools.state.clear_live_boots()?)
}

/// First the order, so that the host applies what was before; then what counts from the next boot on.
fn go_back(
    tools: &Tools,
    disk: &Disk,
    attempt: &Attempt,
    running: &RunningSlot,
    live: &LiveConfig,
) -> Result<(), ActError> {
    let Some(kept) = live.kept(running).filter(|kept| kept.setting.release == attempt.digest).cloned() else {
        return Ok(());
    };
    let order = order(tools, attempt, running, kept.setting, kept.before.clone());
    tools.state.write_live_order(&Order { withdrawn: true, ..order })?;
    let before = came_with(disk, running)?;
    Ok(tools.state.write_live_kept(&Kept { setting: kept.before, before, ..kept })?)
}

fn order(tools: &Tools, attempt: &Attempt, running: &RunningSlot, wanted: Setting, before: Setting) -> Order {
    let deadline = tools.commit_deadline.unwrap_or(COMMIT_DEADLINE_SECONDS);
    Order {
        id: order_id(attempt),
        boot_id: running.boot_id.clone(),
        wanted,
        before,
        deadline_seconds: u64::try_from(deadline).unwrap_or_default(),
        api_server: tools.api_server.clone(),
        withdrawn: false,
    }
}

/// What came with the image of the slot that runs.
fn came_with(disk: &Disk, running: &RunningSlot) -> Result<Setting, ActError> {
    let record = disk.slot(&running.name)?.read_record()?;
    Ok(Setting { release: record.release(), document: record.cloud_config })
}
