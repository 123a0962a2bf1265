//! The partition of a device, which others may have mounted.
//!
//! The kernel writes names, tables and data of its vfat as they come to it: a power cut in between can leave two names
//! with the same clusters, or a name whose clusters are free. So the partition is claimed for each call, and written in
//! the order of [`FatEsp`]; the kernel refuses a claim while anybody has it mounted, and nobody can mount it during one.
//! Where it is mounted, the kernel's view is the only one that holds, and is taken; where it is mounted read-only, nothing
//! can be written, and waiting does not help.

use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::libc;

use super::{Esp, FatEsp, each_call::EachCall, read_only, vfat::VfatEsp};
use crate::disk::{Access, Partition};

/// Others that claim it are the agent's own programs, of which each call takes some seconds at most, and checkers of
/// file systems.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(50);

/// The partition, opened for each call.
pub(super) struct DeviceEsp {
    partition: Partition,
}

impl DeviceEsp {
    pub(super) fn new(partition: Partition) -> Self {
        Self { partition }
    }

    fn reach_read_only(&self, access: Access, place: &Path) -> io::Result<Box<dyn Esp>> {
        if access == Access::Write {
            return Err(read_only::error(place));
        }
        Ok(Box::new(VfatEsp::mount_read_only(&self.partition.path)?))
    }
}

impl EachCall for DeviceEsp {
    fn reach(&self, access: Access) -> io::Result<Box<dyn Esp>> {
        let begun = Instant::now();
        loop {
            match self.partition.open(access) {
                Ok(window) => return Ok(Box::new(FatEsp::on(window))),
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error),
                Err(_) => {}
            }
            match VfatEsp::mount(&self.partition.path) {
                Ok(mounted) => return Ok(Box::new(mounted)),
                Err(error) if !is_claimed(&error) => return Err(error),
                Err(_) if let Some(place) = read_only::place(&self.partition.path) => {
                    return self.reach_read_only(access, &place);
                }
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }
}

/// Whether it is claimed, or mounted and not as we would. A kernel without the driver has it not mounted either.
fn is_claimed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs::{File, OpenOptions},
        os::unix::fs::OpenOptionsExt as _,
        path::PathBuf,
        process::Command,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::esp::fat;

    /// A device whose bytes are a file's; given back when dropped. Needs root.
    struct Loop {
        device: PathBuf,
        _file: tempfile::NamedTempFile,
    }

    impl Loop {
        fn new(length: u64) -> Self {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(length).unwrap();
            let made = Command::new("losetup").args(["--find", "--show"]).arg(file.path()).output().unwrap();
            assert!(made.status.success(), "{made:?}");
            Self { device: String::from_utf8(made.stdout).unwrap().trim().into(), _file: file }
        }

        fn partition(&self, length: u64) -> Partition {
            Partition {
                name: "evenkeel-esp".into(),
                part_uuid: String::new(),
                disk_offset: 1 << 20,
                length,
                path: self.device.clone(),
                device: None,
                offset: 0,
            }
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
        }
    }

    /// Mounted by another driver, as not every kernel that tests run on has vfat: who mounts it makes no difference.
    #[test]
    fn one_that_is_mounted_read_only_is_told_at_once_with_its_place() {
        const LENGTH: u64 = 16 << 20;
        let device = Loop::new(LENGTH);
        let run = |program: &str, args: &[&OsStr]| {
            let output = Command::new(program).args(args).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
        };
        let (node, folder) = (device.device.as_os_str(), tempfile::tempdir().unwrap());
        run("mkfs.ext4", &["-q".as_ref(), node]);
        run("mount", &["-o".as_ref(), "ro".as_ref(), node, folder.path().as_os_str()]);
        let begun = Instant::now();
        let error = DeviceEsp::new(device.partition(LENGTH)).write("one", &mut &b"one"[..]).unwrap_err();
        run("umount", &[folder.path().as_os_str()]);
        let place = folder.path().to_str().unwrap();
        assert!(
            error.kind() == io::ErrorKind::ReadOnlyFilesystem && error.to_string().contains(place),
            "{error}"
        );
        assert!(begun.elapsed() < PATIENCE / 2);
    }

    #[test]
    fn it_is_used_when_nobody_else_has_it_and_not_before() {
        const LENGTH: u64 = 64 << 20;
        let device = Loop::new(LENGTH);
        let partition = device.partition(LENGTH);
        assert!(partition.is_device());
        fat::format(&partition, 512).unwrap();
        let esp = DeviceEsp::new(partition);
        esp.write("loader/entries/one.new", &mut &b"one"[..]).unwrap();
        esp.rename("loader/entries/one.new", "loader/entries/one.conf").unwrap();
        esp.overwrite("loader/entries/one.conf", b"two").unwrap();

        let claim: File =
            OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&device.device).unwrap();
        let released = AtomicBool::new(false);
        thread::scope(|scope| {
            let waits = [
                scope.spawn(|| {
                    let found = DeviceEsp::new(device.partition(LENGTH)).list("loader/entries").unwrap();
                    (found.len(), released.load(Ordering::SeqCst))
                }),
                scope.spawn(|| {
                    let written = DeviceEsp::new(device.partition(LENGTH)).remove("not/there");
                    (usize::from(written.is_ok()), released.load(Ordering::SeqCst))
                }),
            ];
            thread::sleep(4 * PAUSE);
            released.store(true, Ordering::SeqCst);
            drop(claim);
            for wait in waits {
                assert_eq!(wait.join().unwrap(), (1, true));
            }
        });
        let mut bytes = Vec::new();
        assert!(esp.read("loader/entries/one.conf", &mut bytes).unwrap());
        assert_eq!(bytes, b"two");
    }
}
