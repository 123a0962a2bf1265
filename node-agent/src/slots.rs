//! What is in each slot and how it boots: the facts that decisions are made of, and the account behind
//! `evenkeel-agent slots`.

use std::collections::BTreeMap;

use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_node_agent_core::{
    boot_entry::{BootEntry, next_boot},
    journal::BadDigest,
    layout::RECOVERY_SLOT,
    live_config::{LiveConfig, Setting},
    machine::{EntryFact, SlotContent, SlotFact},
    reset::Reset,
    slot_check::{SlotCheck, SlotChecks},
    slot_record::{RecordError, SlotRecord},
};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    disk::{Disk, DiskError, RegionError},
    pins::{self, PinError},
};

/// What is known of slots and images beside what the disk's slots and boot entries say.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The last look at every byte of each slot.
    pub checks: SlotChecks,
    /// Images that failed on this machine.
    pub bad_digests: Vec<BadDigest>,
    /// The slot that runs, if it is one of this disk.
    pub running: Option<String>,
    /// What the initrd is asked for.
    pub reset: Option<Reset>,
    /// What is known of cloud-configs without a reboot, for each slot.
    pub live: Vec<LiveConfig>,
}

/// One slot, in the command's JSON form.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a field of the JSON form, and all of them vary freely"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotReport {
    /// `a`, `b`, …, `recovery`.
    pub name: String,
    /// Bytes from the start of the disk.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whether it holds an image.
    pub state: SlotState,
    /// The reference as it was asked for.
    pub image: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
    /// The cluster's cloud-config that comes with it.
    pub cloud_config: Option<String>,
    /// The image's version.
    pub version: Option<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// When it was written.
    pub written_at: Option<Timestamp>,
    /// The plan that it was written for; absent when a person wrote it.
    pub plan_id: Option<String>,
    /// When all of it was last read and found to be what was written.
    pub verified_at: Option<Timestamp>,
    /// The first byte that was found to be another than what was written.
    pub damaged_at: Option<u64>,
    /// How the image failed on this machine, if it did.
    pub failed: Option<Failed>,
    /// Whether a person protected it from reuse.
    pub pinned: bool,
    /// Whether the loader would boot it now.
    pub bootable: bool,
    /// Whether the loader boots it next.
    pub default: bool,
    /// Boots left of a trial; absent when it is none.
    pub tries_left: Option<u32>,
    /// Whether it runs.
    pub running: bool,
    /// What its next boot begins anew; absent when it begins nothing anew.
    pub begins_anew: Option<BeginsAnew>,
    /// What it is configured by when it boots; absent when it holds no image.
    pub boots_with: Option<BootsWith>,
}

/// The cluster's cloud-config that a slot boots with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BootsWith {
    /// Image and cloud-config, as plans name them.
    pub release: String,
    /// SHA-256 of the cloud-config, lower-case hex; absent when it boots without one.
    pub cloud_config_sha256: Option<String>,
    /// Whether it was applied without a reboot and kept, in place of what came with the slot.
    pub applied_without_reboot: bool,
}

impl BootsWith {
    fn of(slot: &str, record: &SlotRecord, live: &[LiveConfig]) -> Self {
        let release = record.release();
        let kept = live.iter().find_map(|live| live.kept_for(slot, &release));
        let setting = kept.map_or_else(
            || Setting { release: release.clone(), document: record.cloud_config.clone() },
            |kept| kept.setting.clone(),
        );
        Self {
            cloud_config_sha256: setting.document_sha256(),
            applied_without_reboot: setting.release != release,
            release: setting.release,
        }
    }
}

/// What a boot begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BeginsAnew {
    /// Whether the state partition is made anew.
    pub wipe_state: bool,
    /// Whether the oem partition is made anew.
    pub wipe_oem: bool,
}

/// How an image failed on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// How it failed the last time.
    pub cause: RollbackCause,
    /// How often it failed.
    pub count: u32,
}

/// Whether a slot holds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotState {
    /// It was never written, or its record was wiped.
    Empty,
    /// It holds something else than its record says.
    Damaged,
    /// It holds a whole, verified image.
    Complete,
}

/// Why the slots could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A slot cannot be read.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The pins cannot be read.
    #[error(transparent)]
    Pins(#[from] PinError),
}

/// Looks at the slots of a disk with the given boot entries.
pub fn report(disk: &Disk, entries: &[BootEntry], memory: &Memory) -> Result<Vec<SlotReport>, SlotsError> {
    let pins = pins::read(disk)?;
    let names = disk.slot_names().chain([RECOVERY_SLOT]);
    names
        .map(|name| {
            let (state, record) = content(disk, name)?;
            let fact = fact(name, record.as_ref(), entries, pins.contains(name), &memory.checks);
            let region = disk.slot(name)?;
            let bad = memory.bad_digests.iter().find(|bad| Some(bad.digest.as_str()) == fact.digest());
            let damaged_at = fact.check.as_ref().and_then(|check| check.damaged_at);
            let reset = memory.reset.as_ref();
            let reset = reset.filter(|reset| fact.digest().is_some_and(|digest| reset.is_of(name, digest)));
            Ok(SlotReport {
                name: name.to_owned(),
                running: memory.running.as_deref() == Some(name),
                begins_anew: reset
                    .map(|reset| BeginsAnew { wipe_state: reset.wipe_state, wipe_oem: reset.wipe_oem }),
                offset: region.disk_offset,
                length: region.length,
                state: if damaged_at.is_some() { SlotState::Damaged } else { state },
                verified_at: fact.verified_at(),
                damaged_at,
                failed: bad.map(|bad| Failed { cause: bad.cause, count: bad.count }),
                pinned: fact.pinned,
                bootable: matches!(fact.entry, EntryFact::Permanent | EntryFact::Trial { left: 1.. }),
                default: next_boot(entries).is_some_and(|next| next.name.slot == name),
                tries_left: match fact.entry {
                    EntryFact::Trial { left } => Some(left),
                    _ => None,
                },
                boots_with: record.as_ref().map(|record| BootsWith::of(name, record, &memory.live)),
                image: record.as_ref().map(|record| record.image.clone()),
                digest: record.as_ref().map(|record| record.digest.clone()),
                cloud_config: record.as_ref().and_then(|record| record.cloud_config.clone()),
                version: record.as_ref().map(|record| record.version.clone()),
                labels: record.as_ref().map(|record| record.labels.clone()).unwrap_or_default(),
                written_at: record.as_ref().map(|record| record.written_at),
                plan_id: record.and_then(|record| record.plan_id),
            })
        })
        .collect()
}

/// The facts of the slots that updates write.
pub fn facts(disk: &Disk, entries: &[BootEntry], checks: &SlotChecks) -> Result<Vec<SlotFact>, SlotsError> {
    let pins = pins::read(disk)?;
    disk.slot_names()
        .map(|name| {
            let (_, record) = content(disk, name)?;
            Ok(fact(name, record.as_ref(), entries, pins.contains(name), checks))
        })
        .collect()
}

/// The facts of the recovery slot; none on a disk without one.
pub fn recovery(
    disk: &Disk,
    entries: &[BootEntry],
    checks: &SlotChecks,
) -> Result<Option<SlotFact>, SlotsError> {
    if disk.slot(RECOVERY_SLOT).is_err() {
        return Ok(None);
    }
    let (_, record) = content(disk, RECOVERY_SLOT)?;
    Ok(Some(fact(RECOVERY_SLOT, record.as_ref(), entries, false, checks)))
}

fn content(disk: &Disk, name: &str) -> Result<(SlotState, Option<SlotRecord>), SlotsError> {
    match disk.slot(name)?.read_record() {
        Ok(record) => Ok((SlotState::Complete, Some(record))),
        Err(RegionError::Record { source: RecordError::Absent, .. }) => Ok((SlotState::Empty, None)),
        Err(RegionError::Record { .. } | RegionError::Unreadable { .. }) => Ok((SlotState::Damaged, None)),
        Err(error) => Err(error.into()),
    }
}

fn fact(
    name: &str,
    record: Option<&SlotRecord>,
    entries: &[BootEntry],
    pinned: bool,
    checks: &SlotChecks,
) -> SlotFact {
    // While an entry is replaced there may be two of a slot: the newer one counts.
    let own = entries.iter().filter(|entry| entry.name.slot == name);
    let entry = own.max_by_key(|entry| entry.body.generation);
    let content = record.map(|record| SlotContent {
        image: record.image.clone(),
        digest: record.release(),
        version: record.version.clone(),
        written_at: record.written_at,
    });
    let of_content = |check: &&SlotCheck| {
        content.as_ref().is_some_and(|content| check.is_of(&content.digest, content.written_at))
    };
    SlotFact {
        name: name.to_owned(),
        entry: entry.map_or(EntryFact::Absent, |entry| match entry.name.tries {
            Some(tries) => EntryFact::Trial { left: tries.left },
            None => EntryFact::Permanent,
        }),
        generation: entry.map_or(0, |entry| entry.body.generation),
        pinned,
        check: checks.get(name).filter(of_content).cloned(),
        content,
    }
}
