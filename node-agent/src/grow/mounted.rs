//! Where a partition is mounted.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::sys::stat::{major, minor};

use super::GrowError;
use crate::disk::Partition;

/// A file or folder of the file system in a partition, where it is mounted for writing.
pub(super) fn open(partition: &Partition, proc: &Path) -> Result<Option<File>, GrowError> {
    if !partition.is_device() {
        return Ok(None);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| GrowError::Io { operation: "read", path, source }
    };
    let device = fs::metadata(&partition.path).map_err(failed(&partition.path))?.rdev();
    let path = proc.join("self/mountinfo");
    let table = fs::read_to_string(&path).map_err(failed(&path))?;
    let number = format!("{}:{}", major(device), minor(device));
    let mut opened = places(&table, &number).filter_map(|place| File::open(place).ok());
    // Another file system may be mounted over it by now.
    Ok(opened.find(|file| file.metadata().is_ok_and(|found| found.dev() == device)))
}

/// The places in a mount table (Linux, `Documentation/filesystems/proc.rst`) of a device `MAJOR:MINOR`, of those that can be
/// written to.
fn places<'a>(table: &'a str, number: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    let writes = |options: &str| options.split(',').any(|option| option == "rw");
    table.lines().filter_map(move |line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (device, place, options) = (fields.next()?, fields.nth(1)?, fields.next()?);
        let found = device == number && writes(options) && writes(filesystem.split(' ').nth(2)?);
        found.then(|| unescaped(place))
    })
}

/// Blanks and backslashes are three octal digits there.
fn unescaped(place: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(place.len());
    let mut rest = place.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *byte == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        if let Some(meant) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(meant);
            rest = &after[3..];
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_for_writing_count() {
        let table = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                     40 27 8:6 / /mnt ro,relatime shared:5 - ext4 /dev/sda6 rw\n\
                     41 27 8:6 /var /var rw,noatime shared:5 master:1 - ext4 /dev/sda6 rw\n\
                     42 27 8:6 / /a\\040b\\134 rw - ext4 /dev/sda6 rw\n\
                     43 27 8:7 / /ro rw - ext4 /dev/sda7 ro\n\
                     half a line\n";
        let places = |number| places(table, number).collect::<Vec<_>>();
        assert_eq!(places("8:6"), [Path::new("/var"), Path::new("/a b\\")]);
        assert_eq!(places("8:7"), Vec::<PathBuf>::new());
    }
}
