//! Installation: an empty disk becomes one that boots an image from slot `a`.

use std::{fs, io, path::Path};

use evenkeel_node_agent_core::{
    erofs_read::{self, ErofsReadError},
    layout::Role,
    slot_record::SlotRecord,
};

use crate::{
    boot::{self, BootError, Grub, Loader, SystemdBoot},
    cloud_config::FILE_NAME,
    disk::{
        Disk, DiskError, Sizes, SlotRegion,
        mkfs::{self, MkfsError},
    },
    esp::{self, EspError},
};

/// Where the image brings systemd-boot (Debian: package systemd-boot-efi).
const SYSTEMD_BOOT: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
/// Where the image brings a GRUB that needs no other files (Debian: package grub-efi-amd64-bin), and where that looks
/// for its configuration.
const GRUB: &str = "/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
const GRUB_CONFIG: &str = "EFI/debian/grub.cfg";

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
    /// The image has no GRUB.
    #[error("{0}: an image that is installed with GRUB must bring it (Debian: package grub-efi-amd64-bin)")]
    NoGrub(#[source] ErofsReadError),
    /// Another loader boots the disk.
    #[error(
        "the disk boots by {0}, and its slots are kept by that: install with it, or on a disk that `evenkeel-agent \
         disk create` made anew"
    )]
    OtherLoader(&'static str),
    /// A temporary file could not be written.
    #[error("prepare the oem partition's content: is there room in the folder for temporary files?")]
    Temporary(#[source] io::Error),
}

/// Makes a disk with all its file systems, empty, of a file or device that has nothing on it.
pub fn create_disk(path: &Path, sizes: Sizes) -> Result<Disk, InstallError> {
    make_disk(path, sizes, false)
}

/// As [`create_disk`], of whatever there is: it is lost.
pub fn replace_disk(path: &Path, sizes: Sizes) -> Result<Disk, InstallError> {
    make_disk(path, sizes, true)
}

fn make_disk(path: &Path, sizes: Sizes, overwrite: bool) -> Result<Disk, InstallError> {
    let disk = Disk::create(path, sizes, overwrite)?;
    esp::format(&disk)?;
    mkfs::ext4(disk.partition(Role::Oem)?, "ek-oem", None)?;
    disk.finish()?;
    Ok(disk)
}

/// Puts the machine's cloud-config, which the caller has checked, onto the oem partition.
pub fn write_cloud_config(disk: &Disk, text: &str) -> Result<(), InstallError> {
    let folder = tempfile::tempdir().map_err(InstallError::Temporary)?;
    fs::write(folder.path().join(FILE_NAME), text).map_err(InstallError::Temporary)?;
    Ok(mkfs::ext4(disk.partition(Role::Oem)?, "ek-oem", Some(folder.path()))?)
}

/// Makes a slot that holds a complete image the one that boots, with systemd-boot, which the image brings.
pub fn make_bootable(disk: &Disk, slot: &SlotRegion, record: &SlotRecord) -> Result<(), InstallError> {
    make_bootable_with(disk, slot, record, Loader::SystemdBoot)
}

/// As [`make_bootable`], with a loader of the caller's choice. A disk keeps its loader.
pub fn make_bootable_with(
    disk: &Disk,
    slot: &SlotRegion,
    record: &SlotRecord,
    loader: Loader,
) -> Result<(), InstallError> {
    match (boot::installed(disk)?, loader) {
        (Some(Loader::Grub), Loader::SystemdBoot) => return Err(InstallError::OtherLoader("GRUB")),
        (Some(Loader::SystemdBoot), Loader::Grub) => return Err(InstallError::OtherLoader("systemd-boot")),
        _ => {}
    }
    let program = loader_program(slot, loader)?;
    match loader {
        Loader::SystemdBoot => SystemdBoot::new(esp::open(disk)?).install(&program)?,
        Loader::Grub => Grub::new(esp::open(disk)?).install(&program, GRUB_CONFIG)?,
    }
    Ok(boot::open(disk)?.make_default(slot, record)?)
}

/// The loader's program, which the slot's image brings.
pub fn loader_program(slot: &SlotRegion, loader: Loader) -> Result<Vec<u8>, InstallError> {
    let region = slot.open_ro().map_err(|source| DiskError::Io {
        operation: "open",
        path: slot.path.clone(),
        source,
    })?;
    let read = |at: u64, buffer: &mut [u8]| region.read_at(at, buffer);
    match loader {
        Loader::SystemdBoot => erofs_read::read_file(&read, SYSTEMD_BOOT).map_err(InstallError::Loader),
        Loader::Grub => erofs_read::read_file(&read, GRUB).map_err(InstallError::NoGrub),
    }
}
