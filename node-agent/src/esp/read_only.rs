//! A boot partition that somebody has mounted read-only: the kernel writes to it for nobody then, and lets nobody else.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::stat::{major, minor};

use super::vfat::MOUNT_POINTS;

/// The host's mounts, where they can be seen, and one's own.
const TABLES: [&str; 2] = ["/proc/1/mountinfo", "/proc/self/mountinfo"];

/// Where a device is mounted read-only, if it is.
pub(super) fn place(device: &Path) -> Option<PathBuf> {
    let number = fs::metadata(device).ok()?.rdev();
    let number = format!("{}:{}", major(number), minor(number));
    TABLES.iter().filter_map(|table| fs::read_to_string(table).ok()).find_map(|table| find(&table, &number))
}

/// The error of a write to it.
pub(super) fn error(place: &Path) -> io::Error {
    let message = format!("it is mounted read-only at {}", place.display());
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, message)
}

/// Looks in a mount table (Linux, `Documentation/filesystems/proc.rst`) for a device `MAJOR:MINOR` whose file system is
/// read-only, at whichever place: one that is so at one place alone can be written at another.
fn find(table: &str, number: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (device, place) = (fields.next()?, fields.nth(1)?);
        let read_only = filesystem.split(' ').nth(2)?.split(',').any(|option| option == "ro");
        // Our own are there to read it.
        let found = device == number && read_only && !place.starts_with(MOUNT_POINTS);
        found.then(|| PathBuf::from(place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_counts_and_not_one_of_its_places() {
        let table = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                     40 27 8:1 / /mnt ro,relatime shared:5 - vfat /dev/sda1 rw,fmask=0022\n\
                     41 27 8:2 / /run/evenkeel/esp-x ro - vfat /dev/sda2 ro\n\
                     42 27 8:2 / /boot/efi ro,relatime shared:7 master:1 - vfat /dev/sda2 ro,fmask=0022\n\
                     half a line\n";
        assert_eq!(find(table, "8:1"), None);
        assert_eq!(find(table, "8:2"), Some("/boot/efi".into()));
        assert_eq!(find(table, "0:21"), None);
    }
}
