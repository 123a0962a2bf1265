//! `NoCloud`: a small file system on another disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::cloud_config::{
    DOCUMENT_BYTES_MAX,
    nocloud::{FileSystem, META_DATA, META_DATA_BYTES_MAX, MetaData, START_BYTES, USER_DATA, file_system},
};
use nix::libc;

use super::{Given, fat};
use crate::cloud_config::mounted;

/// A machine with more has them from a storage network.
const DEVICES_MAX: usize = 256;
const ISO: &str = "iso9660";

/// The two files' bytes, as far as they are there.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub user_data: Option<Vec<u8>>,
    pub meta_data: Option<Vec<u8>>,
}

/// What the first device says that has one of the labels.
pub(super) fn read(devices: &[PathBuf]) -> Given {
    if devices.len() > DEVICES_MAX {
        tracing::warn!("of {} devices {DEVICES_MAX} are searched for a data source", devices.len());
    }
    let mut found: Option<Given> = None;
    for device in devices.iter().take(DEVICES_MAX) {
        match files(device) {
            Ok(None) => {}
            Ok(Some(_)) if found.is_some() => {
                tracing::warn!(device = %device.display(), "left out: another disk is the data source already");
            }
            Ok(Some(files)) => found = Some(given(device, files)),
            Err(error) => tracing::error!(device = %device.display(), %error, "a data source is left out"),
        }
    }
    found.unwrap_or_default()
}

/// The files of a device that is one. A device that cannot be read is none: a drive without a disk, or one that fails.
fn files(device: &Path) -> io::Result<Option<Files>> {
    let Ok(start) = start(device) else { return Ok(None) };
    match file_system(&start) {
        Some(FileSystem::Fat) => fat::files(device),
        Some(FileSystem::Iso) => files_of_mounted(device, ISO).map(Some),
        None => Ok(None),
    }
}

fn start(device: &Path) -> io::Result<Vec<u8>> {
    // Without waiting for a disk in the drive.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(device)?;
    let mut start = vec![0; START_BYTES];
    file.read_exact_at(&mut start, 0)?;
    Ok(start)
}

fn files_of_mounted(device: &Path, kind: &str) -> io::Result<Files> {
    mounted::with(device, kind, "nocloud", |folder| {
        let file = |name: &str, max| match open(&folder.join(name)) {
            Ok(file) => read_up_to(max, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok(Files {
            user_data: file(USER_DATA, DOCUMENT_BYTES_MAX)?,
            meta_data: file(META_DATA, META_DATA_BYTES_MAX)?,
        })
    })?
}

/// A file, and no link to one of this machine's.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other(format!("{} is no file", path.display())))
}

/// All bytes, and one more than `max` of what is too much: so it is told by whoever knows the limit.
pub(super) fn read_up_to(max: usize, file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn given(device: &Path, files: Files) -> Given {
    let device = device.display();
    let text = |name: &str, bytes: Option<Vec<u8>>| {
        let text = String::from_utf8(bytes?);
        text.inspect_err(|_| tracing::error!(%device, name, "left out: it is not UTF-8 text")).ok()
    };
    // A machine may have only a name.
    let user_data = text(USER_DATA, files.user_data).filter(|text| !text.trim().is_empty());
    let meta_data =
        text(META_DATA, files.meta_data).map_or(Ok(MetaData::default()), |text| MetaData::parse(&text));
    let meta_data = meta_data
        .inspect_err(|error| tracing::error!(%device, name = META_DATA, %error, "left out"))
        .unwrap_or_default();
    tracing::info!(%device, instance = meta_data.instance_id, "a NoCloud data source");
    Given {
        documents: user_data.map(|text| (format!("{USER_DATA} of {device}"), text)).into_iter().collect(),
        meta_data,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use super::*;

    /// By another driver than that of ISO 9660, which not every kernel that tests run on has. Needs root.
    #[test]
    fn what_is_mounted_gives_its_files_and_none_of_the_machines_and_is_mounted_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let (content, image) = (folder.path().join("content"), folder.path().join("image"));
        fs::create_dir(&content).unwrap();
        fs::write(content.join(USER_DATA), "#cloud-config\n").unwrap();
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let output = Command::new(program).args(args).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let files_of = || {
            File::create(&image).unwrap().set_len(8 << 20).unwrap();
            run(
                "mke2fs",
                &["-q".as_ref(), "-F".as_ref(), "-d".as_ref(), content.as_os_str(), image.as_os_str()],
            );
            let device = run("losetup", &["--find".as_ref(), "--show".as_ref(), image.as_os_str()]);
            let files = files_of_mounted(Path::new(device.trim()), "ext4");
            assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains("/run/evenkeel/nocloud-"));
            run("losetup", &["--detach".as_ref(), device.trim().as_ref()]);
            files
        };
        let files = files_of().unwrap();
        assert_eq!((files.user_data.as_deref(), files.meta_data), (Some(&b"#cloud-config\n"[..]), None));
        symlink("/etc/hostname", content.join(META_DATA)).unwrap();
        let error = files_of().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
    }
}
