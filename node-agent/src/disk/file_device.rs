//! A device that the kernel has: a block device's node, or a file that holds a disk.
//!
//! Aligned bytes go past the page cache where the file takes that (`O_DIRECT`): nothing is evicted for them, and what
//! is read comes from the disk. Elsewhere the cache is told to write at once and to forget before a read. Both ways are
//! coherent with each other; the kernel writes and drops cached pages of a range before a direct transfer.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _},
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, PosixFadviseAdvice, fcntl, posix_fadvise},
    libc,
};

use super::{BlockDevice, aligned::is_aligned};

/// For so long a claim is waited for. A child process that was just started holds what its parent has already let go of, until
/// it becomes another program.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

/// What is to be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading what nobody else writes to meanwhile: a device that is mounted is refused by the kernel (busy), and not
    /// mounted for anybody until this is closed.
    ReadAlone,
    /// Reading and writing, alone.
    Write,
    /// Reading and writing what others have mounted in part: the partition table of a disk that runs.
    WriteShared,
}

/// A file or a block device.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    direct: Option<File>,
    /// Whether the direct way was refused although it could be opened, as some file systems do.
    refused: AtomicBool,
}

impl FileDevice {
    /// Opens `path`.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(matches!(access, Access::Write | Access::WriteShared));
        // The claim belongs to one open file alone, so that the direct one does without.
        let direct = options.clone().custom_flags(libc::O_DIRECT).open(path).ok();
        let alone = matches!(access, Access::ReadAlone | Access::Write);
        if alone && std::fs::metadata(path)?.file_type().is_block_device() {
            options.custom_flags(libc::O_EXCL);
        }
        Ok(Self { file: options.open(path)?, direct, refused: AtomicBool::new(false) })
    }

    /// Whether it is a file, and no device.
    pub fn is_file(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.is_file())
    }

    /// Claims some bytes until this is closed, up to the end where `length` is 0, as the kernel does with a whole device that is
    /// opened to be written alone: an error if somebody else has.
    pub fn claim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.claim_for(libc::F_WRLCK, offset, length, CLAIM_PATIENCE)
    }

    /// The same for bytes that others may read meanwhile, or with whoever reads; waits for so long for those who write.
    pub fn claim_within(
        &self,
        access: Access,
        offset: u64,
        length: u64,
        patience: Duration,
    ) -> io::Result<()> {
        let writes = matches!(access, Access::Write | Access::WriteShared);
        let kind = if writes { libc::F_WRLCK } else { libc::F_RDLCK };
        self.claim_for(kind, offset, length, patience)
    }

    /// Asks udev to leave a block device and its partitions alone until this is closed, and waits for so long for whoever looks into
    /// them now: by a lock on the whole device, as systemd's "Locking Block Device Access" has it.
    pub fn lock_out_udev(&self, patience: Duration) -> io::Result<()> {
        if self.is_file()? {
            return Ok(());
        }
        let end = Instant::now() + patience;
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(CLAIM_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another program has locked it"));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Ends a claim of some bytes.
    pub fn release(&self, offset: u64, length: u64) -> io::Result<()> {
        self.claim_for(libc::F_UNLCK, offset, length, CLAIM_PATIENCE)
    }

    fn claim_for(&self, kind: libc::c_int, offset: u64, length: u64, patience: Duration) -> io::Result<()> {
        let place =
            |bytes: u64| i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        #[expect(clippy::cast_possible_truncation, reason = "the kernel's constants are 0 to 2")]
        let lock = libc::flock {
            l_type: kind as _,
            l_whence: libc::SEEK_SET as _,
            l_start: place(offset)?,
            l_len: place(length)?,
            l_pid: 0,
        };
        let end = Instant::now() + patience;
        let mut claimed = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock));
        while claimed == Err(Errno::EAGAIN) && Instant::now() < end {
            thread::sleep(CLAIM_PAUSE);
            claimed = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock));
        }
        match claimed {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "another program is writing there"))
            }
            Err(errno) => {
                tracing::debug!(%errno, "this file system knows no claims");
                Ok(())
            }
        }
    }

    /// Runs the direct way; `false` when there is none for this.
    fn directly(&self, aligned: bool, work: impl FnOnce(&File) -> io::Result<()>) -> io::Result<bool> {
        let Some(direct) = self.direct.as_ref().filter(|_| aligned && !self.refused.load(Ordering::Relaxed))
        else {
            return Ok(false);
        };
        match work(direct) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }
}

impl BlockDevice for FileDevice {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let aligned = is_aligned(at, buffer);
        if self.directly(aligned, |file| file.read_exact_at(buffer, at))? {
            return Ok(());
        }
        if let (true, Ok(at), Ok(length)) = (aligned, i64::try_from(at), i64::try_from(buffer.len())) {
            // What the page cache still holds says nothing about the disk.
            posix_fadvise(&self.file, at, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
        self.file.read_exact_at(buffer, at)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let aligned = is_aligned(at, bytes);
        if self.directly(aligned, |file| file.write_all_at(bytes, at))? {
            return Ok(());
        }
        self.file.write_all_at(bytes, at)?;
        if let (true, Ok(at), Ok(length)) = (aligned, i64::try_from(at), i64::try_from(bytes.len())) {
            // Only a hint, so that the flush finds little left to do: the flush is what counts and tells of errors.
            // SAFETY: the call takes integers only and the descriptor is open for its length.
            unsafe { libc::sync_file_range(self.file.as_raw_fd(), at, length, libc::SYNC_FILE_RANGE_WRITE) };
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_direct(&self) -> bool {
        self.direct.is_some() && !self.refused.load(Ordering::Relaxed)
    }

    fn length(&self) -> io::Result<u64> {
        use std::io::Seek as _;
        (&self.file).seek(io::SeekFrom::End(0))
    }
}
