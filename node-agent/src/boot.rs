//! What the machine boots next.
//!
//! A trial is bootable a counted number of times and comes before the kept entry; nothing here ever touches the entry
//! of another slot than the one that is named.

mod damage;
mod files;
mod grub;
mod signed;
mod systemd;

use std::io;

use evenkeel_node_agent_core::{
    boot_entry::{BootEntry, EntryBody, next_boot},
    erofs::BLOCK,
    slot_record::{BootFile, SlotRecord},
};

pub use damage::{FileDamage, Wrong, damaged_files};
pub use grub::Grub;
pub use signed::unsigned;
pub use systemd::SystemdBoot;

use crate::{
    disk::{Disk, SlotRegion},
    esp::{self, Esp, EspError},
};

/// A boot loader with one entry per slot.
pub trait Bootloader {
    /// The boot partition that it is on.
    fn esp(&self) -> &dyn Esp;
    /// Removes what no entry needs, and fails if the files of a slot do not fit then. Changes nothing that boots.
    fn make_room(&self, kernel: &BootFile, initrd: &BootFile) -> Result<(), BootError> {
        files::collect(self.esp(), &self.entries()?, Some((kernel, initrd)))?;
        files::missing(self.esp(), kernel, initrd).map(|_| ())
    }
    /// Copies the slot's kernel and initrd to where the loader finds them. Changes nothing that boots.
    fn place_files(&self, slot: &SlotRegion, record: &SlotRecord) -> Result<(), BootError> {
        files::collect(self.esp(), &self.entries()?, Some((&record.kernel, &record.initrd)))?;
        files::place(self.esp(), slot, record)
    }
    /// Makes the slot boot next, at most `tries` times.
    fn arm_trial(&self, slot: &SlotRegion, record: &SlotRecord, tries: u32) -> Result<(), BootError>;
    /// Keeps a slot that was on trial: its entry loses the count.
    fn commit(&self, slot: &str) -> Result<(), BootError>;
    /// Makes a slot on trial unbootable; nothing happens to one that was kept.
    fn disarm(&self, slot: &str) -> Result<(), BootError>;
    /// Makes a slot unbootable, on trial or kept: the first step before it is written.
    fn clear(&self, slot: &str) -> Result<(), BootError>;
    /// Makes the slot the default, without a count: installation, and the way back after a commit.
    fn make_default(&self, slot: &SlotRegion, record: &SlotRecord) -> Result<(), BootError>;
    /// Fails when it is known that this loader cannot count the boots of a trial.
    fn can_count(&self) -> Result<(), BootError> {
        Ok(())
    }
    /// Bytes that are free on the boot partition once what `slot` alone needs is gone.
    fn room_without(&self, slot: Option<&str>) -> Result<u64, BootError> {
        let others = self.entries()?.into_iter().filter(|entry| Some(entry.name.slot.as_str()) != slot);
        files::room(self.esp(), &others.collect::<Vec<_>>())
    }
    /// Makes the slot the one that boots when no other does.
    fn make_last_resort(&self, slot: &SlotRegion, record: &SlotRecord) -> Result<(), BootError>;
    /// What is there.
    fn entries(&self) -> Result<Vec<BootEntry>, BootError>;
}

/// Why the boot loader's files could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// No room for kernel and initrd.
    #[error(
        "the boot partition has {free} bytes free and what boots this image needs {needed}: remove what is not \
         Evenkeel's from it, or make the image's initrd smaller"
    )]
    EspFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The boot partition did not answer.
    #[error("{operation} {path} on the boot partition: check the disk")]
    Io {
        /// `write`, `rename`, …
        operation: &'static str,
        /// Path on the partition.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The boot partition takes nothing.
    #[error(
        "{operation} {path} on the boot partition, which is mounted read-only: look at the kernel's log for errors of it, \
         then `mount -o remount,rw` it, or unmount it"
    )]
    ReadOnly {
        /// `write`, `rename`, …
        operation: &'static str,
        /// Path on the partition.
        path: String,
        /// Where it is mounted.
        source: io::Error,
    },
    /// The slot did not answer.
    #[error("read {path} from slot {slot}: check the disk, then stage the image again")]
    Slot {
        /// The slot.
        slot: String,
        /// Path in the image.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was written is not what the image holds.
    #[error(
        "{path} on the boot partition is not what the image holds: check the disk, then stage the image again"
    )]
    Mismatch {
        /// Path on the partition.
        path: String,
    },
    /// Nothing to keep.
    #[error("slot {0} has no boot entry, so it cannot be kept: activate it first")]
    NoEntry(String),
    /// GRUB did not write when it was asked to.
    #[error(
        "GRUB could not write its environment block in the last boot, so that it could count no tries: check \
         /evenkeel/grub/grubenv on the boot partition, and whether GRUB's configuration there is the one that \
         `evenkeel-agent install` wrote"
    )]
    CannotCount,
    /// systemd-boot did not count a boot, and the initrd did.
    #[error(
        "systemd-boot could not count the last trial's boots, so that a kernel that does not start would be booted \
         again and again: check that firmware can write to the boot partition and that no file in /loader/entries \
         there is read-only, then remove /{0} from it"
    )]
    DidNotCount(&'static str),
    /// The partition cannot be opened.
    #[error(transparent)]
    Esp(#[from] EspError),
}

impl BootError {
    /// The kind of error, in the form of a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::EspFull { .. } => "EspFull",
            Self::Io { .. } | Self::Esp(_) => "EspUnavailable",
            Self::ReadOnly { .. } => "EspReadOnly",
            Self::Slot { .. } => "SlotUnreadable",
            Self::Mismatch { .. } => "BootFileMismatch",
            Self::NoEntry(_) => "NoBootEntry",
            Self::CannotCount | Self::DidNotCount(_) => "LoaderCannotCount",
        }
    }

    /// Whether the same may work later without a person's help.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Slot { .. } | Self::Mismatch { .. } | Self::Esp(_))
    }
}

/// The boot loaders that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Loader {
    /// systemd-boot, with its boot counting.
    #[default]
    SystemdBoot,
    /// GRUB, with tries in its environment block.
    Grub,
}

impl Loader {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::SystemdBoot => "systemd-boot",
            Self::Grub => "GRUB",
        }
    }
}

/// What firmware starts, as an image brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderProgram {
    /// The loader.
    pub loader: Vec<u8>,
    /// shim, which firmware with Secure Boot on starts and which starts the loader.
    pub shim: Option<Vec<u8>>,
}

/// The loader that a disk was installed with, if it was.
pub fn installed(disk: &Disk) -> Result<Option<Loader>, BootError> {
    let esp = esp::open(disk)?;
    if Grub::is_on(&*esp)? {
        return Ok(Some(Loader::Grub));
    }
    Ok(SystemdBoot::is_on(&*esp)?.then_some(Loader::SystemdBoot))
}

/// Opens the disk's boot loader: the one that it was installed with.
pub fn open(disk: &Disk) -> Result<Box<dyn Bootloader>, BootError> {
    let esp = esp::open(disk)?;
    Ok(if Grub::is_on(&*esp)? { Box::new(Grub::new(esp)) } else { Box::new(SystemdBoot::new(esp)) })
}

/// Generation of what comes behind all other entries, which count from one.
const LAST_RESORT: u64 = 0;

/// Whether the slot boots next without a count, by an entry that says just what it should: that one stays as it is, as it
/// may be the only one that boots.
fn is_default(entries: &[BootEntry], slot: &SlotRegion, record: &SlotRecord) -> bool {
    let mut own = entries.iter().filter(|entry| entry.name.slot == slot.name);
    let (Some(entry), None) = (own.next(), own.next()) else { return false };
    let as_it_should = entry.body == entry_body(slot, record, entry.body.generation);
    as_it_should && entry.name.tries.is_none() && next_boot(entries) == Some(entry)
}

/// What boots a slot, whatever the loader.
fn entry_body(slot: &SlotRegion, record: &SlotRecord, generation: u64) -> EntryBody {
    let (kernel, initrd) = files::names(&record.kernel, &record.initrd);
    EntryBody {
        title: format!("Evenkeel {} (slot {})", record.version, slot.name),
        generation,
        slot: slot.name.clone(),
        digest: record.release(),
        part_uuid: slot.part_uuid.clone(),
        root_hash: record.root_hash.clone(),
        blocks: record.filesystem_length / BLOCK as u64,
        linux: format!("/{}/{kernel}", files::FOLDER),
        initrd: format!("/{}/{initrd}", files::FOLDER),
        kernel_options: record.kernel_options.clone(),
    }
}
