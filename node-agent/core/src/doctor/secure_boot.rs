//! Secure Boot: whether a machine that starts signed programs alone starts what is on the disk. Whose signatures count on it is
//! not known here.

use super::{DiskFacts, Facts, Finding, LoaderFacts, disk::is_needed};
use crate::efi_program::Unsigned;

const CHECK: &str = "secure-boot";
const NO_LOADER: &str = "install an image that brings shim and GRUB with their signatures, or switch Secure Boot off in the \
                         firmware: see docs/secure-boot.md";
const NO_KERNEL: &str =
    "build the image with the signed kernel of its distribution, or switch Secure Boot off in the firmware";

/// Nothing where the firmware knows no Secure Boot, or the disk has no boot loader.
pub(super) fn examine(facts: &Facts) -> Option<Finding> {
    let disk = facts.disk.as_ref().ok()?;
    let loader = disk.esp.as_ref().ok()?.loader.as_ref()?;
    let unsigned = match &loader.unsigned {
        Ok(unsigned) => unsigned,
        Err(error) => return Some(Finding::fail(CHECK, error, "check the disk")),
    };
    let refused = refused(loader, unsigned);
    let Some(host) = &facts.host else {
        return Some(Finding::ok(CHECK, format!("with Secure Boot on, {}", told(refused.as_deref()))));
    };
    Some(match (host.secure_boot?, refused) {
        (true, Some(refused)) => ill(disk, unsigned, &format!("Secure Boot is on: {refused}")),
        (true, None) => Finding::ok(CHECK, format!("Secure Boot is on: {}", told(None))),
        (false, refused) => {
            Finding::ok(CHECK, format!("Secure Boot is off; with it on, {}", told(refused.as_deref())))
        }
    })
}

fn told(refused: Option<&str>) -> &str {
    refused.unwrap_or("what boots this disk bears the signatures that are asked for")
}

/// What would not be started, if that is so.
fn refused(loader: &LoaderFacts, unsigned: &Unsigned) -> Option<String> {
    if !unsigned.loaders.is_empty() {
        let paths = unsigned.loaders.join(" and ");
        return Some(format!("this disk does not boot, as {paths} ({}) has no signature", loader.name));
    }
    let slots = unsigned.kernels.join(" and of slot ");
    (!slots.is_empty())
        .then(|| format!("{} does not start the kernel of slot {slots}, which has no signature", loader.name))
}

fn ill(disk: &DiskFacts, unsigned: &Unsigned, message: &str) -> Finding {
    if !unsigned.loaders.is_empty() {
        return Finding::fail(CHECK, message, NO_LOADER);
    }
    let slots = disk.slots.as_deref().unwrap_or_default();
    let make = if unsigned.kernels.iter().any(|slot| is_needed(slots, slot)) {
        Finding::fail
    } else {
        Finding::warn
    };
    make(CHECK, message.to_owned(), NO_KERNEL)
}
