//! The rows on machines with Secure Boot on: firmware starts shim, shim GRUB, and GRUB a kernel that shim finds signed; or all of it
//! is signed by the machine's owner.

use super::{
    super::case::{Case, Loader, Spoil, Then, up},
    CASE,
};

const SECURE: Case = Case { loaders: &[Loader::GrubByShim], ..CASE };
/// What the kernel says.
const LOCKED_DOWN: &str = "Kernel is locked down from EFI Secure Boot";
/// What GRUB says when shim says no.
const REFUSED: &str = "bad shim signature";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "good",
        about: "a good image is kept and boots again",
        loaders: &[Loader::GrubByShim, Loader::SystemdBootOwnKeys],
        expected: &[up("b")],
        says: LOCKED_DOWN,
        then: Then::CommitAndBootAgain,
        ..SECURE
    },
    Case {
        name: "doctor",
        about: "doctor sees that it is on, and that what boots the disk is signed",
        expected: &[up("b")],
        then: Then::DoctorSays(
            "Secure Boot is on: what boots this disk bears the signatures that are asked for",
        ),
        ..SECURE
    },
    Case {
        name: "kernel-damaged",
        about: "a wrong bit in the kernel",
        spoil: Spoil::Kernel,
        expected: &[up("a")],
        says: REFUSED,
        ..SECURE
    },
    Case {
        name: "kernel-unsigned",
        about: "a kernel that is whole and has no signature",
        spoil: Spoil::KernelUnsigned,
        expected: &[up("a")],
        says: REFUSED,
        ..SECURE
    },
];
