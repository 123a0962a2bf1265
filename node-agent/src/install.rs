//! Installation: a disk becomes one that boots an image.

use std::{fs, io, path::Path};

use evenkeel_node_agent_core::{
    bios_boot::{BiosBoot, BiosBootError},
    erofs_read::{self, ErofsReadError},
    layout::Role,
    slot_record::SlotRecord,
};

use crate::{
    boot::{self, BootError, Grub, Loader, LoaderProgram, SystemdBoot},
    cloud_config::{self, FILE_NAME},
    disk::{
        BiosError, Disk, DiskError, NoBiosPlace, Sizes, SlotRegion,
        mkfs::{self, MkfsError},
    },
    esp::{self, EspError},
};

/// Where the image brings systemd-boot (Debian: package systemd-boot-efi).
pub(crate) const SYSTEMD_BOOT: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
/// Where the image brings a GRUB that needs no other files (Debian: package grub-efi-amd64-bin); where it brings the same
/// with a signature, and shim, if it does (packages grub-efi-amd64-signed and shim-signed); and where either GRUB looks for its
/// configuration.
pub(crate) const GRUB: &str = "/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
pub(crate) const SIGNED_GRUB: &str = "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed";
pub(crate) const SHIM: &str = "/usr/lib/shim/shimx64.efi.signed";
const GRUB_CONFIG: &str = "EFI/debian/grub.cfg";
/// Where the image brings GRUB for BIOS, if it does: the first sector (Debian: package grub-pc-bin), and what grub-mkimage
/// made to look for its configuration in the same place.
const BIOS_BOOT: &str = "/usr/lib/grub/i386-pc/boot.img";
const BIOS_CORE: &str = "/usr/lib/grub/i386-pc/core.img";

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
    #[error(
        "{0}: an image that is installed with GRUB must bring it (Debian: package grub-efi-amd64-bin; for Secure Boot \
         shim-signed and grub-efi-amd64-signed, both)"
    )]
    NoGrub(#[source] ErofsReadError),
    /// The image's GRUB for BIOS is none.
    #[error(
        "{BIOS_BOOT} and {BIOS_CORE} of the image cannot be used: build the image with others, or without them"
    )]
    BiosCode(#[source] BiosBootError),
    /// The image's GRUB for BIOS cannot be read.
    #[error("read GRUB for BIOS in the image")]
    ReadBios(#[source] ErofsReadError),
    /// GRUB for BIOS could not be written.
    #[error(transparent)]
    Bios(#[from] BiosError),
    /// Another loader boots the disk.
    #[error(
        "the disk boots by {0}, and its slots are kept by that: install without `--bootloader`, or make the disk anew \
         (`--force`), so that what is on it is lost"
    )]
    OtherLoader(&'static str),
    /// The oem partition took no document.
    #[error("write the cloud-config onto the oem partition: is there room on it?")]
    Document(#[source] io::Error),
    /// A temporary file could not be written.
    #[error("prepare the oem partition's content: is there room in the folder for temporary files?")]
    Temporary(#[source] io::Error),
}

/// Whether a machine with BIOS boots a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBios {
    /// By the loader that the image brings.
    Boots,
    /// The image brings no loader that a BIOS could start: nothing was written for one.
    NoLoader,
    /// The disk has no place for one.
    NoPlace(NoBiosPlace),
}

/// Makes a disk with all its file systems, empty, of a file or device that has nothing on it.
pub fn create_disk(path: &Path, sizes: Sizes) -> Result<Disk, InstallError> {
    make_disk(path, sizes, false).map(Disk::unclaimed)
}

/// As [`create_disk`], of whatever there is: it is lost.
pub fn replace_disk(path: &Path, sizes: Sizes) -> Result<Disk, InstallError> {
    make_disk(path, sizes, true).map(Disk::unclaimed)
}

/// As [`create_disk`], or [`replace_disk`] if `overwrite` says so, and nobody else makes, installs or mends it as long as the disk
/// is there.
pub fn make_disk(path: &Path, sizes: Sizes, overwrite: bool) -> Result<Disk, InstallError> {
    let disk = Disk::create(path, sizes, overwrite)?;
    esp::format(&disk)?;
    mkfs::ext4(disk.partition(Role::Oem)?, "ek-oem", None)?;
    disk.finish()?;
    Ok(disk)
}

/// Puts the machine's cloud-config, which the caller has checked, onto the oem partition. A disk that boots has either this one
/// or the one before then, also after a power cut, and keeps the other documents there; in a disk file the partition is made anew.
pub fn write_cloud_config(disk: &Disk, text: &str) -> Result<(), InstallError> {
    let oem = disk.partition(Role::Oem)?;
    let replaced = if oem.is_device() { cloud_config::replace(oem, text) } else { None };
    if let Some(replaced) = replaced {
        return replaced.map_err(InstallError::Document);
    }
    let folder = tempfile::tempdir().map_err(InstallError::Temporary)?;
    fs::write(folder.path().join(FILE_NAME), text).map_err(InstallError::Temporary)?;
    Ok(mkfs::ext4(oem, "ek-oem", Some(folder.path()))?)
}

/// The loader that is wanted, else the disk's own, else systemd-boot. Fails if another one than that boots the disk: to be
/// asked before a slot is written that is kept by it.
pub fn loader_for(disk: &Disk, wanted: Option<Loader>) -> Result<Loader, InstallError> {
    let loader = wanted.or(boot::installed(disk)?).unwrap_or_default();
    keeps_loader(disk, loader).map(|()| loader)
}

fn keeps_loader(disk: &Disk, loader: Loader) -> Result<(), InstallError> {
    match (boot::installed(disk)?, loader) {
        (Some(Loader::Grub), Loader::SystemdBoot) => Err(InstallError::OtherLoader("GRUB")),
        (Some(Loader::SystemdBoot), Loader::Grub) => Err(InstallError::OtherLoader("systemd-boot")),
        _ => Ok(()),
    }
}

/// Makes a slot that holds a complete image the one that boots, with systemd-boot, which the image brings.
pub fn make_bootable(disk: &Disk, slot: &SlotRegion, record: &SlotRecord) -> Result<(), InstallError> {
    make_bootable_with(disk, slot, record, Loader::SystemdBoot).map(|_| ())
}

/// As [`make_bootable`], with a loader of the caller's choice. A disk keeps its loader.
pub fn make_bootable_with(
    disk: &Disk,
    slot: &SlotRegion,
    record: &SlotRecord,
    loader: Loader,
) -> Result<OnBios, InstallError> {
    keeps_loader(disk, loader)?;
    let program = loader_program(slot, loader)?;
    let code = bios_code(slot, loader)?;
    match loader {
        Loader::SystemdBoot => SystemdBoot::new(esp::open(disk)?).install(&program)?,
        Loader::Grub => Grub::new(esp::open(disk)?).install(&program, GRUB_CONFIG)?,
    }
    boot::open(disk)?.make_default(slot, record)?;
    // Last: what it starts is there.
    match code {
        Some(code) => write_bios_code(disk, &code),
        None => Ok(OnBios::NoLoader),
    }
}

/// Writes what a BIOS starts, if the disk has a place for it.
pub fn write_bios_code(disk: &Disk, code: &BiosBoot) -> Result<OnBios, InstallError> {
    match disk.bios_partition()? {
        Ok(partition) => disk.write_bios_code(partition, code).map(|()| OnBios::Boots).map_err(Into::into),
        Err(why) => Ok(OnBios::NoPlace(why)),
    }
}

/// What a BIOS starts, if the slot's image brings it: systemd-boot has no such thing.
pub fn bios_code(slot: &SlotRegion, loader: Loader) -> Result<Option<BiosBoot>, InstallError> {
    if loader != Loader::Grub {
        return Ok(None);
    }
    let file = |path| optional_file(slot, path, InstallError::ReadBios);
    match (file(BIOS_BOOT)?, file(BIOS_CORE)?) {
        (Some(boot), Some(core)) => BiosBoot::parse(&boot, &core).map(Some).map_err(InstallError::BiosCode),
        // Debian's package alone brings no core.img.
        _ => Ok(None),
    }
}

/// The loader's program, which the slot's image brings; where it brings shim and what that starts, these.
pub fn loader_program(slot: &SlotRegion, loader: Loader) -> Result<LoaderProgram, InstallError> {
    let alone = |loader| LoaderProgram { loader, shim: None };
    if loader == Loader::SystemdBoot {
        return image_file(slot, SYSTEMD_BOOT)?.map(alone).map_err(InstallError::Loader);
    }
    let file = |path| optional_file(slot, path, InstallError::NoGrub);
    match (file(SIGNED_GRUB)?, file(SHIM)?) {
        (Some(loader), Some(shim)) => Ok(LoaderProgram { loader, shim: Some(shim) }),
        // One of them starts nothing that is of use.
        _ => image_file(slot, GRUB)?.map(alone).map_err(InstallError::NoGrub),
    }
}

fn optional_file(
    slot: &SlotRegion,
    path: &str,
    failed: fn(ErofsReadError) -> InstallError,
) -> Result<Option<Vec<u8>>, InstallError> {
    match image_file(slot, path)? {
        Err(ErofsReadError::NotFound(_)) => Ok(None),
        file => file.map(Some).map_err(failed),
    }
}

fn image_file(slot: &SlotRegion, path: &str) -> Result<Result<Vec<u8>, ErofsReadError>, InstallError> {
    let region = slot.open_ro().map_err(|source| DiskError::Io {
        operation: "open",
        path: slot.path.clone(),
        source,
    })?;
    Ok(erofs_read::read_file(&|at: u64, buffer: &mut [u8]| region.read_at(at, buffer), path))
}
