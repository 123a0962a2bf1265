//! The partition of a device, which others may have mounted.
//!
//! The kernel writes names, tables and data of its vfat as they come to it: a power cut in between can leave two names
//! with the same clusters, or a name whose clusters are free. So the partition is claimed for each call, and written in
//! the order of [`FatEsp`]; the kernel refuses a claim while anybody has it mounted, and nobody can mount it during one.
//! Where it is mounted, the kernel's view is the only one that holds, and is taken.

use std::{
    io::{self, Read, Write},
    thread,
    time::{Duration, Instant},
};

use nix::libc;

use super::{Esp, EspFile, FatEsp, vfat::VfatEsp};
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
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }
}

/// Whether it is claimed and not mounted. A kernel without the driver has it not mounted either.
fn is_claimed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENODEV))
}

impl Esp for DeviceEsp {
    fn read(&self, path: &str, sink: &mut dyn Write) -> io::Result<bool> {
        self.reach(Access::ReadAlone)?.read(path, sink)
    }

    fn write(&self, path: &str, source: &mut dyn Read) -> io::Result<()> {
        self.reach(Access::Write)?.write(path, source)
    }

    fn overwrite(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.reach(Access::Write)?.overwrite(path, bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.reach(Access::Write)?.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.reach(Access::Write)?.remove(path)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<EspFile>> {
        self.reach(Access::ReadAlone)?.list(folder)
    }

    fn reclaim(&self) -> io::Result<()> {
        self.reach(Access::Write)?.reclaim()
    }

    fn free(&self) -> io::Result<u64> {
        self.reach(Access::ReadAlone)?.free()
    }
}

#[cfg(test)]
mod tests {
    use std::{
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
