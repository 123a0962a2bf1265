//! The disk's part.

use evenkeel_node_agent_core::{
    bios_boot::BiosState,
    boot_entry::BootEntry,
    doctor::{BootFileFact, DiskFacts, EspFacts, LoaderFacts},
    layout::Role,
    machine::SlotFact,
    reuse,
    slot_check::SlotChecks,
};

use super::{Look, words};
use crate::{
    boot::{self, Bootloader, FileDamage, Loader},
    disk::{Access, Disk},
    esp::Esp,
    reset,
    slots::{self, Memory, SlotState},
};

const PROBE: &str = "evenkeel/doctor.tmp";
const PROBE_CONTENT: &[u8] = b"evenkeel-agent doctor\n";
/// Of the ext4 superblock (Linux, `Documentation/filesystems/ext4/super.rst`): its place in the partition, and in it a
/// magic number and the state, both of two bytes.
const EXT4_SUPERBLOCK: u64 = 1024;
const EXT4_MAGIC_AT: usize = 0x38;
const EXT4_MAGIC: u16 = 0xEF53;
const EXT4_STATE_AT: usize = 0x3A;
/// The kernel found errors in it.
const EXT4_ERRORS: u16 = 2;

pub(super) fn look(disk: &Disk, running: Option<&str>, how: Look) -> DiskFacts {
    let roles = [Role::Esp, Role::Oem, Role::Recovery, Role::Slot(0), Role::Slot(1), Role::State];
    let missing =
        roles.into_iter().filter(|role| disk.partition(*role).is_err()).map(Role::partition_name).collect();
    let loader = boot::open(disk).map_err(words);
    let entries = loader.as_ref().map_err(Clone::clone).and_then(|loader| loader.entries().map_err(words));
    let slots = entries
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|entries| slots::facts(disk, entries, &SlotChecks::default()).map_err(words));
    let target = slots.as_ref().ok().and_then(|slots| reuse::choose(slots, running, None).ok());
    let target_writes = target.map_or(Ok(()), |target| writes(disk, &target.name));
    let boot_files = loader.as_ref().map_err(Clone::clone).and_then(|loader| boot_files(disk, &**loader));
    let reset = loader.as_ref().ok().and_then(|loader| reset::requested(loader.esp()).ok()?);
    let esp = loader.and_then(|loader| esp(disk, &*loader, target, how));
    DiskFacts {
        name: disk.path().display().to_string(),
        missing,
        lost_of_table: disk.lost_of_table().unwrap_or_default(),
        unused: disk.unused().map_or(0, |(bytes, _)| bytes),
        damaged: entries.map(|entries| damaged(disk, &entries)).unwrap_or_default(),
        boot_files,
        reset,
        slots,
        target_writes,
        esp,
        bios: bios(disk),
        state_filesystem: state_filesystem(disk),
    }
}

fn damaged(disk: &Disk, entries: &[BootEntry]) -> Vec<String> {
    let report = slots::report(disk, entries, &Memory::default()).unwrap_or_default();
    report.into_iter().filter(|slot| slot.state == SlotState::Damaged).map(|slot| slot.name).collect()
}

fn boot_files(disk: &Disk, loader: &dyn Bootloader) -> Result<Vec<BootFileFact>, String> {
    let fact = |file: FileDamage| BootFileFact { message: file.to_string(), slot: file.slot };
    let damaged = boot::damaged_files(disk, loader).map_err(words)?;
    Ok(damaged.into_iter().map(fact).collect())
}

fn writes(disk: &Disk, slot: &str) -> Result<(), String> {
    disk.slot(slot).map_err(words)?.check_writable().map_err(words)
}

fn esp(
    disk: &Disk,
    loader: &dyn Bootloader,
    target: Option<&SlotFact>,
    how: Look,
) -> Result<EspFacts, String> {
    let esp = loader.esp();
    let name = boot::installed(disk).map_err(words)?.map(Loader::name);
    let part_uuid = disk.partition(Role::Esp).map_err(words)?.part_uuid.clone();
    let of_loader = |name| LoaderFacts {
        name,
        counts: loader.can_count().map_err(words),
        part_uuid,
        unsigned: boot::unsigned(loader).map_err(words),
    };
    Ok(EspFacts {
        writes: if how == Look::AndWrite { write_probe(esp).map_err(words) } else { Ok(()) },
        room: loader.room_without(target.map(|target| target.name.as_str())).map_err(words)?,
        largest: largest(disk),
        loader: name.map(of_loader),
    })
}

fn bios(disk: &Disk) -> Result<BiosState, String> {
    match boot::installed(disk) {
        Ok(Some(Loader::Grub)) => disk.bios_state().map_err(words),
        _ => Ok(BiosState::Absent),
    }
}

fn write_probe(esp: &dyn Esp) -> std::io::Result<()> {
    esp.write(PROBE, &mut &*PROBE_CONTENT)?;
    let mut read = Vec::new();
    esp.read(PROBE, &mut read)?;
    esp.remove(PROBE)?;
    if read == PROBE_CONTENT { Ok(()) } else { Err(std::io::Error::other("it reads back differently")) }
}

/// Bytes of the largest kernel and initrd in a slot.
fn largest(disk: &Disk) -> Option<u64> {
    let records = disk.slot_names().filter_map(|name| disk.slot(name).ok()?.read_record().ok());
    records.map(|record| record.kernel.length + record.initrd.length).max()
}

fn state_filesystem(disk: &Disk) -> Result<(), String> {
    let mut superblock = [0; 1024];
    let state = disk.partition(Role::State).map_err(words)?;
    let read = state.open(Access::Read).and_then(|device| device.read_at(EXT4_SUPERBLOCK, &mut superblock));
    read.map_err(|error| format!("the state partition cannot be read: {error}"))?;
    let word = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
    if word(EXT4_MAGIC_AT) != EXT4_MAGIC {
        return Err("the state partition holds no ext4 file system".to_owned());
    }
    if word(EXT4_STATE_AT) & EXT4_ERRORS != 0 {
        return Err("the kernel has found errors in the file system of the state partition".to_owned());
    }
    Ok(())
}
