//! What a row of the table says.

use std::time::Duration;

use evenkeel_crds::node_plan::RollbackCause;

use crate::{machine::Keys, os_image::TrialImages};

/// One machine's story: version 1 runs from slot a and is kept, and another image is activated in slot b.
#[derive(Debug)]
pub(super) struct Case {
    pub name: &'static str,
    pub about: &'static str,
    /// With which it is told.
    pub loaders: &'static [Loader],
    /// With which it is told with every test.
    pub quick: &'static [Loader],
    /// Tag of the image in slot b.
    pub image: &'static str,
    pub spoil: Spoil,
    /// Boots that the loader may try.
    pub tries: u32,
    /// Whether slot b is kept before the first boot.
    pub kept: bool,
    pub machine: Circumstances,
    pub expected: &'static [Boot],
    /// What may end the trial later than any boot takes, and a deadline: how long that lasts at the most.
    pub lasts: Duration,
    /// Words that the console must have.
    pub says: &'static str,
    pub then: Then,
}

/// A case with one of its loaders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub case: &'static Case,
    pub loader: Loader,
}

/// What the machine's user chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loader {
    SystemdBoot,
    Grub,
    /// On a machine with BIOS.
    GrubOnBios,
    /// On a machine with Secure Boot on, as it was bought.
    GrubByShim,
    /// On a machine with Secure Boot on, whose owner has put his keys in place of those that it came with.
    SystemdBootOwnKeys,
}

/// What is wrong on the disk beside the image.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spoil {
    Nothing,
    /// The first byte of slot b.
    FirstBlock,
    /// A byte of a program in slot b that is started late in the boot.
    LateProgram,
    /// The first byte that a mount of slot b reads after the superblock.
    RootFolder,
    /// The first byte of the first process's program in slot b.
    FirstProcess,
    /// The middle of slot b's initrd on the boot partition.
    Initrd,
    /// Slot b's initrd hangs before it mounts the root.
    InitrdHangs,
    /// A byte in the middle of slot b's kernel on the boot partition.
    Kernel,
    /// Slot b's kernel on the boot partition has lost its signature, and nothing else.
    KernelUnsigned,
    /// The kernel that slot b's entry names is not there.
    KernelMissing,
    /// Somebody's files leave no room on the boot partition.
    BootPartitionFull,
    /// Slot b's boot entry cannot be written by the firmware, so that systemd-boot cannot count.
    EntryReadOnly,
    /// GRUB's configuration is another one, which writes nothing.
    GrubNeverWrites,
}

/// What goes on around the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circumstances {
    Usual,
    /// The clock's battery was empty.
    ClockFarInThePast,
    /// The machine has no watchdog, so that the kernel's own is all there is.
    NoWatchdog,
    /// The power goes in the first boots, so many times, as soon as the kernel has begun.
    PowerGoes {
        times: u32,
    },
    /// The disk cannot read the first byte that a mount of slot b reads after the superblock; where that is is found out.
    RootUnreadable {
        byte: u64,
    },
    /// The API server that the trial's order names is not there.
    ClusterAway,
}

/// One start of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot<Name = &'static str> {
    /// `evenkeel.slot` on its command line.
    pub slot: Name,
    /// Whether the kernel found a block that is not what its hash says.
    pub damage_found: bool,
    /// Whether all of the system was started.
    pub up: bool,
}

/// What must be true after the boots.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// Nothing more than the boots.
    Nothing,
    /// The agent on the old slot would say that the trial was given up for this reason.
    Cause(RollbackCause),
    /// The trial is kept from outside, and the next boot is one of the same slot.
    CommitAndBootAgain,
    /// `evenkeel-agent doctor`, run at the end of the boot, says these words.
    DoctorSays(&'static str),
    /// `evenkeel-agent activate`, run in slot a, refuses with these words.
    ActivateRefuses(&'static str),
}

pub(super) const fn up(slot: &'static str) -> Boot {
    Boot { slot, damage_found: false, up: true }
}

pub(super) const fn down(slot: &'static str) -> Boot {
    Boot { slot, damage_found: false, up: false }
}

pub(super) const fn damaged(slot: &'static str) -> Boot {
    Boot { slot, damage_found: true, up: false }
}

impl Trial {
    /// What chooses it: the case's name, behind the loader's where that is not systemd-boot as usual.
    pub(super) fn name(self) -> String {
        match self.loader {
            Loader::SystemdBoot => self.case.name.to_owned(),
            loader => format!("{}-{}", loader.name(), self.case.name),
        }
    }

    /// Whether it is run with every test.
    pub(super) fn quick(self) -> bool {
        self.case.quick.contains(&self.loader)
    }
}

impl Loader {
    /// What folders and messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::GrubOnBios => "grub-bios",
            Self::GrubByShim => "grub-secure-boot",
            Self::SystemdBootOwnKeys => "own-keys",
            other => other.option(),
        }
    }

    /// As `evenkeel-agent install --bootloader` has it.
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::SystemdBoot | Self::SystemdBootOwnKeys => "systemd-boot",
            Self::Grub | Self::GrubOnBios | Self::GrubByShim => "grub",
        }
    }

    /// Whether the machine has a BIOS.
    pub(super) fn on_bios(self) -> bool {
        self == Self::GrubOnBios
    }

    /// Whose keys the machine has, if it has Secure Boot on.
    pub(super) fn secure_boot(self) -> Option<Keys> {
        match self {
            Self::SystemdBoot | Self::Grub | Self::GrubOnBios => None,
            Self::GrubByShim => Some(Keys::Microsoft),
            Self::SystemdBootOwnKeys => Some(Keys::Own),
        }
    }

    /// What it boots.
    pub(super) fn images(self) -> TrialImages {
        match self.secure_boot() {
            None => TrialImages::Unsigned,
            Some(Keys::Microsoft) => TrialImages::ByShim,
            Some(Keys::Own) => TrialImages::OwnKeys,
        }
    }
}

impl Spoil {
    /// Whether what runs before the first process is not what came up before, so that a stop there may be the system's.
    pub(super) fn before_first_process(self) -> bool {
        matches!(self, Self::Initrd | Self::InitrdHangs)
    }
}
