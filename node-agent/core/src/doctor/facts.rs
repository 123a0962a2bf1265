//! What was seen of a machine. An `Err` holds the words of the error that came instead.

use jiff::Timestamp;

use crate::{
    bios_boot::BiosState, efi_program::Unsigned, live_config::LiveConfig, machine::SlotFact, reset::Reset,
};

/// A disk, and the machine that runs from it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The disk.
    pub disk: Result<DiskFacts, String>,
    /// The machine; absent when the disk is another one's.
    pub host: Option<HostFacts>,
    /// The machine's time.
    pub now: Timestamp,
}

/// A disk with Evenkeel's layout.
#[derive(Clone, Debug)]
pub struct DiskFacts {
    /// What a person calls it.
    pub name: String,
    /// Partitions of the layout that it does not have.
    pub missing: Vec<&'static str>,
    /// What it has lost of its partition table, where that can be read all the same.
    pub lost_of_table: Vec<&'static str>,
    /// Bytes at its end that nothing uses, as it became larger.
    pub unused: u64,
    /// The slots that updates write.
    pub slots: Result<Vec<SlotFact>, String>,
    /// Slots that hold something else than their record says.
    pub damaged: Vec<String>,
    /// Kernels and initrds on the boot partition that are not what the slots hold that boot by them.
    pub boot_files: Result<Vec<BootFileFact>, String>,
    /// What the initrd is asked for, if that can be read.
    pub reset: Option<Reset>,
    /// Whether the slot that would be written next can be, if one can be chosen.
    pub target_writes: Result<(), String>,
    /// The boot partition.
    pub esp: Result<EspFacts, String>,
    /// What there is of GRUB for BIOS, on a disk that boots by GRUB.
    pub bios: Result<BiosState, String>,
    /// Whether the state partition holds a file system, and one without recorded errors.
    pub state_filesystem: Result<(), String>,
}

/// A file on the boot partition that is lost or damaged.
#[derive(Clone, Debug)]
pub struct BootFileFact {
    /// The slot that boots by it.
    pub slot: String,
    /// Which file, and what is wrong with it.
    pub message: String,
}

/// The boot partition.
#[derive(Clone, Debug)]
pub struct EspFacts {
    /// Whether a small file could be written, read again and removed, where that was tried.
    pub writes: Result<(), String>,
    /// Bytes that are free once the target's kernel and initrd are gone.
    pub room: u64,
    /// Bytes of the largest kernel and initrd that a slot of this disk has; `None` when none is known.
    pub largest: Option<u64>,
    /// The boot loader; `None` when none was installed.
    pub loader: Option<LoaderFacts>,
}

/// The boot loader.
#[derive(Clone, Debug)]
pub struct LoaderFacts {
    /// Its name.
    pub name: &'static str,
    /// Whether it can count the boots of a trial, as far as it can be known.
    pub counts: Result<(), String>,
    /// GUID of the boot partition, lower-case.
    pub part_uuid: String,
    /// What a machine with Secure Boot on would not start.
    pub unsigned: Result<Unsigned, String>,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// Whether this process has the rights of root.
    pub root: bool,
    /// The slot that runs; `None` on a machine that was not booted from one.
    pub running: Option<String>,
    /// Who reboots it.
    pub init: Init,
    /// Whether the running image has the guard; `None` when its files are out of reach.
    pub guard: Option<bool>,
    /// The agent's folder.
    pub state: Result<StateFacts, String>,
    /// What is known of cloud-configs without a reboot, for each slot; nothing where that cannot be read.
    pub live: Vec<LiveConfig>,
    /// What restarts it when it hangs.
    pub watchdog: Watchdog,
    /// Programs of others that are not there.
    pub missing_programs: Vec<Program>,
    /// Parts of the kernel that are neither there nor can be loaded.
    pub missing_in_kernel: Vec<&'static str>,
    /// GUID of the boot partition that the firmware says it was booted from, lower-case; `None` when it does not say.
    pub booted_by: Option<String>,
    /// Whether the firmware starts signed programs alone; `None` when it does not say, as a BIOS.
    pub secure_boot: Option<bool>,
}

/// Who reboots the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd, and it hears this process.
    Systemd,
    /// A program that the user named.
    Program(String),
    /// Another one.
    Other(String),
    /// Process 1 cannot be reached from here.
    OutOfReach(String),
}

/// The agent's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFacts {
    /// Its path.
    pub path: String,
    /// Whether it lies on the disk's state partition; `None` when the disk is not known.
    pub on_state_partition: Option<bool>,
    /// Bytes that are free.
    pub free: u64,
}

/// What restarts a machine that hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// A device of the machine, by its own name.
    Hardware(String),
    /// A timer of the kernel.
    Software,
    /// None yet.
    Absent,
}

/// A program of somebody else that the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Debian's package.
    pub package: &'static str,
    /// What does not work without it.
    pub needed_for: &'static str,
}
