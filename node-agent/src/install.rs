//! Installation: an empty disk becomes one that boots an image from slot `a`.

use std::{fs, io, path::Path};

use evenkeel_node_agent_core::{
    erofs_read::{self, ErofsReadError},
    layout::Role,
    slot_record::SlotRecord,
};

use crate::{
    boot::{self, BootError, Bootloader as _},
    cloud_config::FILE_NAME,
    disk::{
        Disk, DiskError, Sizes, SlotRegion,
        mkfs::{self, MkfsError},
    },
    esp::{self, EspError},
};

/// Where the image brings its boot loader (Debian: package systemd-boot-efi).
const LOADER: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// Why a disk could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The boot partition cannot be used.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The boot entry could not be written.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The oem partition could not be written.
    #[error(transparent)]
    Mkfs(#[from] MkfsError),
    /// The image has no boot loader.
    #[error("{0}: an image that is installed must bring systemd-boot (Debian: package systemd-boot-efi)")]
    Loader(#[source] ErofsReadError),
    /// A temporary file could not be written.
    #[error("prepare the oem partition's content: is there room in the folder for temporary files?")]
    Temporary(#[source] io::Error),
}

/// Makes a disk with all its file systems, empty.
pub fn create_disk(path: &Path, sizes: Sizes) -> Result<Disk, InstallError> {
    let disk = Disk::create(path, sizes)?;
    esp::format(&disk)?;
    mkfs::ext4(disk.partition(Role::Oem)?, "ek-oem", None)?;
    Ok(disk)
}

/// Puts the machine's cloud-config, which the caller has checked, onto the oem partition.
pub fn write_cloud_config(disk: &Disk, text: &str) -> Result<(), InstallError> {
    let folder = tempfile::tempdir().map_err(InstallError::Temporary)?;
    fs::write(folder.path().join(FILE_NAME), text).map_err(InstallError::Temporary)?;
    Ok(mkfs::ext4(disk.partition(Role::Oem)?, "ek-oem", Some(folder.path()))?)
}

/// Makes a slot that holds a complete image the one that boots, with the loader that the image brings.
pub fn make_bootable(disk: &Disk, slot: &SlotRegion, record: &SlotRecord) -> Result<(), InstallError> {
    let window = slot.open_ro().map_err(|source| DiskError::Io {
        operation: "open",
        path: slot.path.clone(),
        source,
    })?;
    let read = |at: u64, buffer: &mut [u8]| window.read_at(at, buffer);
    let loader = erofs_read::read_file(&read, LOADER).map_err(InstallError::Loader)?;
    let bootloader = boot::open(disk)?;
    bootloader.install(&loader)?;
    Ok(bootloader.make_default(slot, record)?)
}
