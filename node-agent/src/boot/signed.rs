//! What of the programs on a boot partition bears no signature, so that a machine with Secure Boot on does not start it.

use evenkeel_node_agent_core::efi_program::{Unsigned, bears_signature};

use super::{BootError, Bootloader, files::read};
use crate::esp::Esp;

/// Where firmware looks for a loader.
pub(super) const FIRST: &str = "EFI/BOOT/BOOTX64.EFI";
/// Where shim, when firmware starts it from there, looks for what it starts itself.
pub(super) const BY_SHIM: &str = "EFI/BOOT/grubx64.efi";

/// Of the loader's programs and the kernels of its entries, those that bear no signature, or are not there.
pub fn unsigned(loader: &dyn Bootloader) -> Result<Unsigned, BootError> {
    let esp = loader.esp();
    let mut found = Unsigned::default();
    if !is_signed(esp, FIRST)? {
        found.loaders.push(FIRST);
    }
    if read(esp, BY_SHIM)?.is_some_and(|program| !bears_signature(&program)) {
        found.loaders.push(BY_SHIM);
    }
    for entry in loader.entries()? {
        if !is_signed(esp, entry.body.linux.trim_start_matches('/'))? {
            found.kernels.push(entry.name.slot);
        }
    }
    Ok(found)
}

/// Whether firmware starts shim, and shim another program: none of both can be missed in Secure Boot.
pub(super) fn starts_by_shim(esp: &dyn Esp) -> Result<bool, BootError> {
    Ok(is_signed(esp, FIRST)? && is_signed(esp, BY_SHIM)?)
}

fn is_signed(esp: &dyn Esp, path: &str) -> Result<bool, BootError> {
    Ok(read(esp, path)?.is_some_and(|program| bears_signature(&program)))
}
