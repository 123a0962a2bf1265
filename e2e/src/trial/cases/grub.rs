//! The rows in which GRUB boots.

use evenkeel_crds::node_plan::RollbackCause;

use super::{
    super::case::{Case, Circumstances, Loader, Spoil, Then, damaged, down, up},
    CASE,
};

const GRUB: Case = Case { loader: Loader::Grub, ..CASE };
const BIOS: Case = Case { loader: Loader::GrubOnBios, ..CASE };

pub(super) const CASES: &[Case] = &[
    Case {
        name: "grub-good",
        about: "GRUB: a good image is kept and boots again",
        expected: &[up("b")],
        then: Then::CommitAndBootAgain,
        ..GRUB
    },
    Case {
        name: "grub-check-fails",
        about: "GRUB: a health check says no",
        quick: true,
        image: "check-fails",
        expected: &[up("b"), up("a")],
        then: Then::Cause(RollbackCause::HostCheck),
        ..GRUB
    },
    Case {
        name: "grub-panic",
        about: "GRUB: the kernel panics in each of the two boots that the trial has",
        image: "panic",
        tries: 2,
        expected: &[down("b"), down("b"), up("a")],
        ..GRUB
    },
    Case {
        name: "grub-nobody-keeps-it",
        about: "GRUB: a good image that nobody keeps until the deadline",
        expected: &[up("b"), up("a")],
        then: Then::Cause(RollbackCause::Deadline),
        ..GRUB
    },
    Case { name: "grub-no-root", about: "GRUB: the initrd cannot find the root", image: "no-root", ..GRUB },
    Case {
        name: "grub-initrd-hangs",
        about: "GRUB: the initrd hangs",
        spoil: Spoil::InitrdHangs,
        says: "hangs beside wdat_wdt",
        ..GRUB
    },
    Case {
        name: "grub-initrd-damaged",
        about: "GRUB: wrong bytes in the initrd",
        spoil: Spoil::Initrd,
        ..GRUB
    },
    Case {
        name: "grub-kernel-missing",
        about: "GRUB: the kernel is gone from the boot partition",
        spoil: Spoil::KernelMissing,
        expected: &[up("a")],
        ..GRUB
    },
    Case {
        name: "grub-power-goes",
        about: "GRUB: the power goes in each of the three boots that the trial has",
        tries: 3,
        machine: Circumstances::PowerGoes { times: 3 },
        expected: &[down("b"), down("b"), down("b"), up("a")],
        ..GRUB
    },
    Case {
        name: "grub-damage-late",
        about: "GRUB: a wrong byte in a program of a slot on trial",
        spoil: Spoil::LateProgram,
        expected: &[damaged("b"), up("a")],
        ..GRUB
    },
    Case {
        name: "grub-damage-kept",
        about: "GRUB: a wrong byte in the root folder of a kept slot",
        spoil: Spoil::RootFolder,
        kept: true,
        expected: &[damaged("b"), up("a")],
        then: Then::Nothing,
        ..GRUB
    },
    Case {
        name: "grub-cannot-count",
        about: "GRUB: a loader that does not write is found before the reboot",
        spoil: Spoil::GrubNeverWrites,
        expected: &[down("a"), up("a")],
        then: Then::ActivateRefuses("GRUB could not write its environment block"),
        ..GRUB
    },
    Case {
        name: "grub-bios-good",
        about: "GRUB, BIOS: a good image is kept and boots again",
        quick: true,
        expected: &[up("b")],
        then: Then::CommitAndBootAgain,
        ..BIOS
    },
    Case {
        name: "grub-bios-panic",
        about: "GRUB, BIOS: the kernel panics in each of the two boots that the trial has",
        image: "panic",
        tries: 2,
        expected: &[down("b"), down("b"), up("a")],
        ..BIOS
    },
    Case {
        name: "grub-bios-kernel-missing",
        about: "GRUB, BIOS: the kernel is gone from the boot partition",
        spoil: Spoil::KernelMissing,
        expected: &[up("a")],
        ..BIOS
    },
    Case {
        name: "grub-bios-cannot-count",
        about: "GRUB, BIOS: a loader that does not write is found before the reboot",
        spoil: Spoil::GrubNeverWrites,
        expected: &[down("a"), up("a")],
        then: Then::ActivateRefuses("GRUB could not write its environment block"),
        ..BIOS
    },
];
