//! What must be true of a disk whenever the power goes.

use std::{collections::BTreeMap, sync::Arc};

use evenkeel_node_agent::{
    disk::{BlockDevice, Disk},
    slot::verity,
};
use evenkeel_node_agent_core::{digest::hex, journal::Step};
use sha2::{Digest as _, Sha256};

use super::{
    UPDATE_SLOTS,
    firmware::{self, Entry},
    node::{Known, esp_of, said},
};
use crate::recorder::Recorder;

/// Root hashes of the images' file systems, by the images' digests.
pub type Images = BTreeMap<String, String>;

/// What boots, whatever else is known of the disk: the first is chosen.
pub fn boots(recorder: &Arc<Recorder<Known>>, images: &Images) -> Result<(Disk, Vec<Entry>), String> {
    let device: Arc<dyn BlockDevice> = recorder.clone();
    let disk = Disk::on(&device, std::path::Path::new("memory")).map_err(said)?;
    let entries = firmware::entries(&esp_of(recorder, &disk))?;
    // Not only the one that is chosen: any may be, when another did not come up.
    entries.iter().try_for_each(|entry| is_complete(entry, &disk, images))?;
    records_are_true(&disk, images)?;
    if entries.is_empty() { Err("nothing boots any more".into()) } else { Ok((disk, entries)) }
}

/// The disk as the firmware sees it and as the journal says it is.
pub fn hold(recorder: &Arc<Recorder<Known>>, known: &Known, images: &Images) -> Result<(), String> {
    let (disk, entries) = boots(recorder, images)?;
    let chosen = &entries[0];
    let attempt = known.journal.attempt.as_ref();
    let may_boot = chosen.slot == known.running
        || attempt.is_some_and(|attempt| {
            attempt.slot == chosen.slot || matches!(attempt.step, Step::Reverting { .. })
        });
    if !may_boot {
        return Err(format!("{} boots, while {} ran: {known:?}", chosen.file, known.running));
    }
    let Some(attempt) = attempt else { return Ok(()) };
    let own: Vec<&Entry> = entries.iter().filter(|entry| entry.slot == attempt.slot).collect();
    let kept = |entry: &&Entry| entry.tries.is_none();
    let broken = match &attempt.step {
        Step::Staged if own.is_empty() => {
            // It is said to be there, and is not bootable.
            let region = disk.slot(&attempt.slot).map_err(said)?;
            let record = region.read_record().map_err(|error| format!("staged, but {}", said(error)))?;
            (record.release() != attempt.digest).then_some("another image is staged")
        }
        Step::Staged => Some("a staged slot has an entry"),
        Step::Rebooting { .. } => {
            (chosen.slot != attempt.slot || kept(&chosen)).then_some("no trial is next")
        }
        Step::Trial => {
            (known.running == attempt.slot && own.is_empty()).then_some("the trial has lost its entry")
        }
        Step::Committed => (chosen.slot != attempt.slot || !own.iter().any(kept))
            .then_some("what was kept is not the default"),
        Step::RolledBack { .. } if known.running != attempt.slot => {
            (chosen.slot == attempt.slot).then_some("what was rolled back boots")
        }
        _ => None,
    };
    broken.map_or(Ok(()), |what| Err(format!("{what}: {known:?}, entries {:?}", names(&entries))))
}

/// A slot with a record holds all that it says, whether it boots or not: the next way back may lead there.
fn records_are_true(disk: &Disk, images: &Images) -> Result<(), String> {
    for name in UPDATE_SLOTS {
        let region = disk.slot(name).map_err(said)?;
        let Ok(record) = region.read_record() else { continue };
        if images.get(&record.digest) != Some(&record.root_hash) {
            return Err(format!("slot {name} has a record of something that was never staged"));
        }
        if !verity::holds(&region, &record).map_err(said)? {
            return Err(format!("slot {name} does not hold what its record says"));
        }
    }
    Ok(())
}

/// The slot that an entry boots holds all of the image that the entry names, and so does the boot partition.
fn is_complete(entry: &Entry, disk: &Disk, images: &Images) -> Result<(), String> {
    let file = &entry.file;
    let region = disk.slot(&entry.slot).map_err(said)?;
    let record = region.read_record().map_err(|error| format!("{file}: {}", said(error)))?;
    if record.release() != entry.digest || images.get(&record.digest) != Some(&record.root_hash) {
        return Err(format!("{file} boots {}, and the slot has {}", entry.digest, record.release()));
    }
    for (content, expected) in [(&entry.kernel, &record.kernel), (&entry.initrd, &record.initrd)] {
        let content = content.as_ref().ok_or_else(|| format!("{file}: {} is not there", expected.path))?;
        if hex(&Sha256::digest(content)) != expected.sha256 {
            return Err(format!("{file}: {} is not what the image holds", expected.path));
        }
    }
    Ok(())
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.file.as_str()).collect()
}
