//! The table.

mod secure_boot;

use std::time::Duration;

use evenkeel_crds::node_plan::RollbackCause;

use super::case::{
    Case, Circumstances,
    Loader::{self, Grub, GrubByShim, GrubOnBios, SystemdBoot},
    Spoil, Then, Trial, damaged, down, up,
};

/// What a BIOS could do otherwise: find the loader, the kernel, and the place that the loader writes to.
const ON_BIOS_TOO: &[Loader] = &[SystemdBoot, Grub, GrubOnBios];

/// A panic resets after 10 s; a check that says no is asked three times, with pauses of 10 s; a broken network is told from
/// one that works within three times 5 s.
const AT_ONCE: Duration = Duration::from_mins(1);
/// A check that does not end in a minute is asked three times, with pauses of 10 s.
const CHECKS_THAT_HANG: Duration = Duration::from_secs(3 * 60 + 2 * 10);
/// What the initrd sets the watchdog to.
const INITRD_WATCHDOG: Duration = Duration::from_mins(5);
/// `RuntimeWatchdogSec` in the image.
const SYSTEM_WATCHDOG: Duration = Duration::from_mins(2);

/// What the rows differ from.
const CASE: Case = Case {
    name: "",
    about: "",
    loaders: &[SystemdBoot, Grub],
    quick: &[],
    image: "2",
    spoil: Spoil::Nothing,
    tries: 1,
    kept: false,
    machine: Circumstances::Usual,
    expected: &[down("b"), up("a")],
    lasts: AT_ONCE,
    says: "",
    then: Then::Cause(RollbackCause::Bootloader),
};

/// Each row with each of its loaders.
pub(super) fn all() -> impl Iterator<Item = Trial> {
    let cases = CASES.iter().chain(secure_boot::CASES);
    cases.flat_map(|case| case.loaders.iter().map(move |&loader| Trial { case, loader }))
}

const CASES: &[Case] = &[
    Case {
        name: "damage-first",
        about: "a wrong byte in the first block of a slot on trial",
        spoil: Spoil::FirstBlock,
        expected: &[damaged("b"), up("a")],
        ..CASE
    },
    Case {
        name: "damage-late",
        about: "a wrong byte in a program of a slot on trial",
        quick: &[SystemdBoot],
        spoil: Spoil::LateProgram,
        expected: &[damaged("b"), up("a")],
        ..CASE
    },
    Case {
        name: "damage-root",
        about: "a wrong byte in the root folder of a slot on trial",
        spoil: Spoil::RootFolder,
        expected: &[damaged("b"), up("a")],
        ..CASE
    },
    Case {
        name: "damage-kept",
        about: "a wrong byte in the root folder of a kept slot",
        spoil: Spoil::RootFolder,
        kept: true,
        expected: &[damaged("b"), up("a")],
        then: Then::Nothing,
        ..CASE
    },
    Case {
        name: "damage-init-kept",
        about: "a wrong byte in the first process's program of a kept slot",
        spoil: Spoil::FirstProcess,
        kept: true,
        expected: &[damaged("b"), up("a")],
        says: "is damaged and does not start",
        then: Then::Nothing,
        ..CASE
    },
    Case {
        name: "unreadable",
        about: "the disk cannot read the root folder of a slot on trial",
        machine: Circumstances::RootUnreadable { byte: 0 },
        ..CASE
    },
    Case {
        name: "unreadable-kept",
        about: "the disk cannot read the root folder of a kept slot",
        machine: Circumstances::RootUnreadable { byte: 0 },
        kept: true,
        says: "is damaged and is given up",
        then: Then::Nothing,
        ..CASE
    },
    Case {
        name: "good",
        about: "a good image is kept and boots again",
        loaders: ON_BIOS_TOO,
        quick: &[GrubOnBios],
        expected: &[up("b")],
        then: Then::CommitAndBootAgain,
        ..CASE
    },
    Case {
        name: "check-fails",
        about: "a health check says no",
        loaders: &[SystemdBoot, Grub, GrubByShim],
        quick: &[Grub],
        image: "check-fails",
        expected: &[up("b"), up("a")],
        then: Then::Cause(RollbackCause::HostCheck),
        ..CASE
    },
    Case {
        name: "check-never-ends",
        about: "a health check that never ends",
        image: "check-never-ends",
        expected: &[up("b"), up("a")],
        lasts: CHECKS_THAT_HANG,
        then: Then::Cause(RollbackCause::HostCheck),
        ..CASE
    },
    Case {
        name: "check-flaps",
        about: "a health check that says yes and no in turn",
        image: "check-flaps",
        expected: &[up("b"), up("a")],
        then: Then::Cause(RollbackCause::HostCheck),
        ..CASE
    },
    Case {
        name: "never-up",
        about: "a service that the system waits for never starts",
        image: "never-up",
        then: Then::Cause(RollbackCause::Deadline),
        ..CASE
    },
    Case {
        name: "nobody-keeps-it",
        about: "a good image that nobody keeps until the deadline",
        expected: &[up("b"), up("a")],
        then: Then::Cause(RollbackCause::Deadline),
        ..CASE
    },
    Case {
        name: "cluster-away",
        about: "the API server cannot be reached at the deadline",
        machine: Circumstances::ClusterAway,
        expected: &[up("b"), up("a")],
        then: Then::Cause(RollbackCause::ClusterUnreachable),
        ..CASE
    },
    Case {
        name: "no-network",
        about: "the image's network does not come up",
        image: "no-network",
        expected: &[up("b"), up("a")],
        then: Then::Cause(RollbackCause::ClusterUnreachable),
        ..CASE
    },
    Case {
        name: "panic",
        about: "the kernel panics in each of the two boots that the trial has",
        loaders: ON_BIOS_TOO,
        image: "panic",
        tries: 2,
        expected: &[down("b"), down("b"), up("a")],
        ..CASE
    },
    Case {
        name: "no-root",
        about: "the initrd cannot find the root: the disk's driver does not load",
        image: "no-root",
        ..CASE
    },
    Case {
        name: "initrd-hangs",
        about: "the initrd hangs",
        spoil: Spoil::InitrdHangs,
        lasts: INITRD_WATCHDOG,
        says: "hangs beside wdat_wdt",
        ..CASE
    },
    Case {
        name: "initrd-hangs-softdog",
        about: "the initrd hangs, on a machine without a watchdog",
        spoil: Spoil::InitrdHangs,
        machine: Circumstances::NoWatchdog,
        lasts: INITRD_WATCHDOG,
        says: "hangs beside Software Watchdog",
        ..CASE
    },
    Case { name: "initrd-damaged", about: "wrong bytes in the initrd", spoil: Spoil::Initrd, ..CASE },
    Case {
        name: "kernel-missing",
        about: "the kernel is gone from the boot partition: systemd-boot leaves that to the firmware",
        loaders: &[Grub, GrubOnBios],
        spoil: Spoil::KernelMissing,
        expected: &[up("a")],
        ..CASE
    },
    Case {
        name: "system-hangs",
        about: "the first process hangs",
        image: "system-hangs",
        lasts: SYSTEM_WATCHDOG,
        ..CASE
    },
    Case {
        name: "system-hangs-softdog",
        about: "the first process hangs, on a machine without a watchdog",
        image: "system-hangs",
        machine: Circumstances::NoWatchdog,
        lasts: SYSTEM_WATCHDOG,
        ..CASE
    },
    Case { name: "system-crashes", about: "the first process crashes", image: "system-crashes", ..CASE },
    Case {
        name: "old-clock",
        about: "the clock says 2001, and a health check says no",
        image: "check-fails",
        machine: Circumstances::ClockFarInThePast,
        expected: &[up("b"), up("a")],
        then: Then::Cause(RollbackCause::HostCheck),
        ..CASE
    },
    Case {
        name: "power-goes",
        about: "the power goes in each of the three boots that the trial has",
        tries: 3,
        machine: Circumstances::PowerGoes { times: 3 },
        expected: &[down("b"), down("b"), down("b"), up("a")],
        ..CASE
    },
    Case {
        name: "power-goes-once",
        about: "the power goes in the first boot of a trial that has three",
        tries: 3,
        machine: Circumstances::PowerGoes { times: 1 },
        expected: &[down("b"), up("b")],
        then: Then::CommitAndBootAgain,
        ..CASE
    },
    Case {
        name: "cannot-count",
        about: "a loader that cannot count a trial: the initrd counts, and the kernel panics behind it",
        loaders: &[SystemdBoot],
        image: "panic",
        spoil: Spoil::EntryReadOnly,
        says: "the boot loader could not count this boot of slot b",
        ..CASE
    },
    Case {
        name: "cannot-count",
        about: "a loader that does not write is found before the reboot",
        loaders: &[Grub, GrubOnBios],
        spoil: Spoil::GrubNeverWrites,
        expected: &[down("a"), up("a")],
        then: Then::ActivateRefuses("GRUB could not write its environment block"),
        ..CASE
    },
    Case {
        name: "esp-full",
        about: "a boot partition without room is found before the reboot",
        spoil: Spoil::BootPartitionFull,
        expected: &[up("a")],
        then: Then::ActivateRefuses("the boot partition has"),
        ..CASE
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_chooses_one_row() {
        let mut names: Vec<String> = all().map(Trial::name).collect();
        let told = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), told);
    }

    #[test]
    fn no_row_is_quick_with_a_loader_that_it_is_not_told_with() {
        for Trial { case, .. } in all() {
            assert!(case.quick.iter().all(|loader| case.loaders.contains(loader)), "{}", case.name);
        }
    }
}
