//! The table.

use evenkeel_crds::node_plan::RollbackCause;

use super::case::{Case, Circumstances, Loader, Spoil, Then, damaged, down, up};

/// What the rows differ from.
const CASE: Case = Case {
    name: "",
    about: "",
    quick: false,
    loader: Loader::SystemdBoot,
    image: "2",
    spoil: Spoil::Nothing,
    tries: 1,
    kept: false,
    machine: Circumstances::Usual,
    expected: &[down("b"), up("a")],
    then: Then::Cause(RollbackCause::Bootloader),
};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "damage-late",
        about: "a wrong byte in a program of a slot on trial",
        quick: true,
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
        name: "good",
        about: "a good image is kept and boots again",
        expected: &[up("b")],
        then: Then::CommitAndBootAgain,
        ..CASE
    },
    Case {
        name: "check-fails",
        about: "a health check says no",
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
    Case { name: "panic", about: "the kernel panics", image: "panic", ..CASE },
    Case {
        name: "no-root",
        about: "the initrd cannot find the root: the disk's driver does not load",
        image: "no-root",
        ..CASE
    },
    Case { name: "initrd-hangs", about: "the initrd hangs", spoil: Spoil::InitrdHangs, ..CASE },
    Case { name: "initrd-damaged", about: "wrong bytes in the initrd", spoil: Spoil::Initrd, ..CASE },
    Case { name: "system-hangs", about: "the first process hangs", image: "system-hangs", ..CASE },
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
        name: "grub-good",
        about: "GRUB: a good image is kept and boots again",
        loader: Loader::Grub,
        expected: &[up("b")],
        then: Then::CommitAndBootAgain,
        ..CASE
    },
    Case {
        name: "grub-check-fails",
        about: "GRUB: a health check says no",
        quick: true,
        loader: Loader::Grub,
        image: "check-fails",
        expected: &[up("b"), up("a")],
        then: Then::Cause(RollbackCause::HostCheck),
        ..CASE
    },
    Case {
        name: "grub-panic",
        about: "GRUB: the kernel panics in each of the two boots that the trial has",
        loader: Loader::Grub,
        image: "panic",
        tries: 2,
        expected: &[down("b"), down("b"), up("a")],
        ..CASE
    },
    Case {
        name: "grub-damage-kept",
        about: "GRUB: a wrong byte in the root folder of a kept slot",
        loader: Loader::Grub,
        spoil: Spoil::RootFolder,
        kept: true,
        expected: &[damaged("b"), up("a")],
        then: Then::Nothing,
        ..CASE
    },
    Case {
        name: "grub-cannot-count",
        about: "GRUB: a loader that does not write is found before the reboot",
        loader: Loader::Grub,
        spoil: Spoil::GrubNeverWrites,
        expected: &[down("a"), up("a")],
        then: Then::ActivateRefuses("GRUB could not write its environment block"),
        ..CASE
    },
];
