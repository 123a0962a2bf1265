//! The disk: layout, slots, boot partition, boot loader.

use super::{BootFileFact, DiskFacts, EspFacts, Facts, Finding, LoaderFacts};
use crate::{
    bios_boot::BiosState,
    layout::RECOVERY_SLOT,
    live_config::LiveConfig,
    machine::{EntryFact, SlotFact},
    reset::Reset,
    reuse::{self, NoSlot},
};

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let disk = match &facts.disk {
        Ok(disk) => disk,
        Err(error) => return vec![no_layout(error)],
    };
    if !disk.missing.is_empty() {
        return vec![no_layout(&format!("{} has no partition {}", disk.name, disk.missing.join(", no ")))];
    }
    let running = facts.host.as_ref().and_then(|host| host.running.as_deref());
    let mut findings = vec![layout(disk)];
    findings.push(state_filesystem(disk));
    match &disk.esp {
        Ok(esp) => {
            findings.extend(slots(disk, running));
            findings.extend(facts.host.iter().flat_map(|host| applied_live(disk, &host.live)));
            findings.extend([esp_writes(esp), esp_room(esp)]);
            findings.extend(boot_files(disk));
            findings.extend(disk.reset.as_ref().map(reset));
            findings.extend(loader(esp, facts));
            findings.extend(bios(&disk.bios));
        }
        Err(error) => findings.push(Finding::fail(
            "esp",
            error,
            "check the disk; `evenkeel-agent disk mend` makes a boot partition anew that is damaged; one that others have \
             mounted needs the kernel's vfat driver",
        )),
    }
    findings
}

fn layout(disk: &DiskFacts) -> Finding {
    if disk.lost_of_table.is_empty() && disk.unused == 0 {
        return Finding::ok("layout", format!("{} has Evenkeel's layout", disk.name));
    }
    if disk.lost_of_table.is_empty() {
        let message =
            format!("{} became larger, and {} MiB of it are not used", disk.name, disk.unused >> 20);
        let advice = "the state partition gets them by `evenkeel-agent grow`, for a disk or file by its name with --disk; a \
                      machine does so at its next boot, unless its cloud-config switches `growpart` off";
        return Finding::warn("layout", message, advice);
    }
    let message = format!("{} has lost {}", disk.name, disk.lost_of_table.join(" and "));
    Finding::warn("layout", message, "write it again by what is left with `evenkeel-agent disk mend`")
}

fn no_layout(message: &str) -> Finding {
    Finding::fail(
        "layout",
        message,
        "nothing was touched; a disk gets Evenkeel's layout by `evenkeel-agent install`, which costs what is on it",
    )
}

fn slots(disk: &DiskFacts, running: Option<&str>) -> Vec<Finding> {
    let slots = match &disk.slots {
        Ok(slots) => slots,
        Err(error) => return vec![Finding::fail("slots", error, "check the disk")],
    };
    let mut findings = vec![target(disk, slots, running), default(slots, running)];
    findings.extend(disk.damaged.iter().map(|name| {
        let message = format!("slot {name} does not hold what was written into it");
        Finding::warn(
            "slots",
            message,
            "stage an image into it (`evenkeel-agent stage --slot`), and check the disk",
        )
    }));
    findings
}

/// The slot that an update would write.
fn target(disk: &DiskFacts, slots: &[SlotFact], running: Option<&str>) -> Finding {
    let target = match reuse::choose(slots, running, None) {
        Ok(target) => &target.name,
        Err(error @ NoSlot::OnTrial { .. }) => {
            return Finding::warn("slots", error.to_string(), "wait until the trial has ended");
        }
        Err(error) => {
            return Finding::fail(
                "slots",
                error.to_string(),
                "see `evenkeel-agent slots` for what is in them",
            );
        }
    };
    match &disk.target_writes {
        Ok(()) => Finding::ok("slots", format!("an update would be written into slot {target}")),
        Err(error) => Finding::fail(
            "slots",
            format!("slot {target} cannot be written: {error}"),
            "unmount it, run this as root, or check whether the disk is read-only",
        ),
    }
}

/// What a machine boots when no trial is under way.
fn default(slots: &[SlotFact], running: Option<&str>) -> Finding {
    let kept = reuse::kept(slots);
    if running == Some(RECOVERY_SLOT) && kept.is_none_or(|kept| kept.content.is_none()) {
        return Finding::warn(
            "way-back",
            "no slot besides the recovery slot, which runs, boots: a trial comes back to that",
            "write a slot and begin with it: `evenkeel-agent reset IMAGE --keep-state` keeps what the machine had",
        );
    }
    match kept {
        None => Finding::fail(
            "way-back",
            "no slot is kept, so that a trial has nothing to come back to",
            "keep one with `evenkeel-agent commit`, or install an image",
        ),
        Some(kept) if kept.content.is_none() => Finding::fail(
            "way-back",
            format!("slot {} is what a trial comes back to, and it holds no complete image", kept.name),
            "stage an image into it, or go back to another slot with `evenkeel-agent rollback --to`",
        ),
        Some(kept) => Finding::ok("way-back", format!("a trial comes back to slot {}", kept.name)),
    }
}

/// Slots that boot with another cloud-config than the one that came with them.
fn applied_live(disk: &DiskFacts, live: &[LiveConfig]) -> Vec<Finding> {
    let slots = disk.slots.as_deref().unwrap_or_default();
    let kept = |slot: &SlotFact| {
        let kept = live.iter().find_map(|live| live.kept_for(&slot.name, slot.digest()?))?;
        let sha256 = kept.setting.document_sha256();
        let what = sha256.map_or("no cloud-config".to_owned(), |sha256| format!("cloud-config {sha256}"));
        (kept.setting.release != kept.under).then(|| {
            Finding::ok(
                "cloud-config",
                format!("slot {} boots with {what}, applied without a reboot", slot.name),
            )
        })
    };
    slots.iter().filter_map(kept).collect()
}

fn state_filesystem(disk: &DiskFacts) -> Finding {
    match &disk.state_filesystem {
        Ok(()) => Finding::ok("state-filesystem", "the state partition holds its file system"),
        Err(error) => Finding::fail(
            "state-filesystem",
            error,
            "reboot: what mounts it then mends it as far as e2fsck can; or check it with `e2fsck` from the recovery slot",
        ),
    }
}

fn esp_writes(esp: &EspFacts) -> Finding {
    match &esp.writes {
        Ok(()) => Finding::ok("esp", "the boot partition can be written"),
        Err(error) => Finding::fail(
            "esp",
            format!("the boot partition cannot be written: {error}"),
            "free room on it, and check whether it is damaged (`fsck.fat`) or the disk is read-only",
        ),
    }
}

fn esp_room(esp: &EspFacts) -> Finding {
    let (room, needed) = (esp.room >> 20, esp.largest.map(|bytes| bytes.div_ceil(1 << 20)));
    match needed {
        Some(needed) if room < needed => Finding::fail(
            "esp-room",
            format!(
                "the boot partition has room for {room} MiB, and kernel and initrd of an image here have {needed}"
            ),
            "remove what is not Evenkeel's from it, or make the image's initrd smaller",
        ),
        _ => Finding::ok(
            "esp-room",
            format!("the boot partition has room for a kernel and initrd of {room} MiB"),
        ),
    }
}

/// What the machine boots next, or comes back to, has to be whole.
fn boot_files(disk: &DiskFacts) -> Vec<Finding> {
    let damaged = match &disk.boot_files {
        Ok(damaged) if damaged.is_empty() => {
            let message = "kernels and initrds on the boot partition are what the slots hold";
            return vec![Finding::ok("boot-files", message)];
        }
        Ok(damaged) => damaged,
        Err(error) => return vec![Finding::fail("boot-files", error, "check the disk")],
    };
    let slots = disk.slots.as_deref().unwrap_or_default();
    let advice = "write it again from the slot with `evenkeel-agent disk mend`";
    let finding = |file: &BootFileFact| {
        let make = if is_needed(slots, &file.slot) { Finding::fail } else { Finding::warn };
        make("boot-files", file.message.clone(), advice)
    };
    damaged.iter().map(finding).collect()
}

/// Whether the machine boots this slot next, or comes back to it.
pub(super) fn is_needed(slots: &[SlotFact], name: &str) -> bool {
    let on_trial = |slot: &SlotFact| matches!(slot.entry, EntryFact::Trial { left: 1.. });
    reuse::kept(slots).is_some_and(|kept| kept.name == name)
        || slots.iter().any(|slot| slot.name == name && on_trial(slot))
}

fn reset(reset: &Reset) -> Finding {
    let message =
        format!("slot {} begins anew at its next boot, as was asked for: {}", reset.slot, reset.losses());
    Finding::warn(
        "reset",
        message,
        "reboot to do it; `evenkeel-agent rollback`, `activate` and an update take it back until then",
    )
}

/// Nothing where no BIOS was meant to boot the disk.
fn bios(state: &Result<BiosState, String>) -> Option<Finding> {
    let lost = match state {
        Ok(BiosState::Absent) => return None,
        Ok(BiosState::Whole) => return Some(Finding::ok("bios", "a machine with BIOS boots the disk too")),
        Ok(BiosState::NoBootSector) => "the disk's first sector does not start GRUB for BIOS, which is there",
        Ok(BiosState::NoCore) => "the disk's first sector starts GRUB for BIOS, which is not there",
        Err(error) => error,
    };
    Some(Finding::warn("bios", lost, "it is written again with `evenkeel-agent disk mend`"))
}

fn loader(esp: &EspFacts, facts: &Facts) -> Vec<Finding> {
    let Some(LoaderFacts { name, counts, part_uuid, .. }) = &esp.loader else {
        let message = "the boot partition has no boot loader of ours";
        return vec![Finding::fail("loader", message, "make it anew with `evenkeel-agent disk mend`")];
    };
    let mut findings = vec![match counts {
        Ok(()) => Finding::ok("loader", format!("{name} can count the boots of a trial")),
        Err(error) => Finding::fail("loader", error, "without a count a trial is refused: mend this first"),
    }];
    let running = facts.host.as_ref().and_then(|host| host.running.as_deref());
    let booted_by = facts.host.as_ref().and_then(|host| host.booted_by.as_ref());
    if let Some(other) = booted_by.filter(|booted_by| !booted_by.eq_ignore_ascii_case(part_uuid)) {
        findings.push(Finding::fail(
            "firmware",
            format!(
                "the firmware booted this machine from the boot partition {other}, and not from this disk's"
            ),
            "put this disk first in the firmware's boot order",
        ));
    }
    if let Ok(disk) = &facts.disk
        && let Ok(slots) = &disk.slots
        && slots.iter().all(|slot| slot.entry == EntryFact::Absent)
        && running != Some(RECOVERY_SLOT)
    {
        findings.push(Finding::fail(
            "entries",
            "the boot loader has no entry for any slot",
            "make them anew with `evenkeel-agent disk mend`, or install an image with `evenkeel-agent install`",
        ));
    }
    findings
}
