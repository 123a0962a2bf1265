//! Bytes by their place: what a slot and the boot partition need of a disk, so that something else can stand in for
//! one.

use std::{
    fmt::Debug,
    io::{self, Read, Seek, SeekFrom, Write},
    sync::Arc,
};

/// A disk, a partition, or a file that holds one. Shared by threads; places are bytes from its start.
///
/// What is aligned ([`super::aligned`]) may be read and written past every cache; the device itself decides.
pub trait BlockDevice: Debug + Send + Sync {
    /// Fills `buffer` with the bytes from `at` on.
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `at`. They are durable only after [`BlockDevice::flush`].
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Waits until everything that was written is durable.
    fn flush(&self) -> io::Result<()>;
    /// Bytes of the device.
    fn length(&self) -> io::Result<u64>;
    /// Whether what is aligned goes past every cache, so that reading tells what the disk holds even before a flush.
    fn is_direct(&self) -> bool {
        false
    }
}

/// A part of a device. Nothing outside of it can be reached through it; places are bytes from its own start.
#[derive(Clone, Debug)]
pub struct Window {
    device: Arc<dyn BlockDevice>,
    offset: u64,
    length: u64,
}

impl Window {
    /// `length` bytes of `device` from `offset` on.
    pub fn new(device: Arc<dyn BlockDevice>, offset: u64, length: u64) -> Self {
        Self { device, offset, length }
    }

    /// All of `device`.
    pub fn whole(device: Arc<dyn BlockDevice>) -> io::Result<Self> {
        let length = device.length()?;
        Ok(Self::new(device, 0, length))
    }

    /// Fills `buffer` with the bytes from `at` on.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.device.read_at(self.place(at, buffer.len())?, buffer)
    }

    /// Writes all of `bytes` at `at`.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.device.write_at(self.place(at, bytes.len())?, bytes)
    }

    /// Waits until everything that was written is durable.
    pub fn flush(&self) -> io::Result<()> {
        self.device.flush()
    }

    /// Whether reading tells what the disk holds even before a flush, see [`BlockDevice::is_direct`].
    pub fn is_direct(&self) -> bool {
        self.device.is_direct()
    }

    /// Bytes of the window.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// A reader and writer that begins at `at`.
    pub fn cursor(&self, at: u64) -> Cursor {
        Cursor { window: self.clone(), at }
    }

    fn place(&self, at: u64, count: usize) -> io::Result<u64> {
        let inside = at.checked_add(count as u64).is_some_and(|end| end <= self.length);
        let place = self.offset.checked_add(at).filter(|_| inside);
        place.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the partition"))
    }
}

/// A place in a window, for libraries that read and write one after the other.
#[derive(Clone, Debug)]
pub struct Cursor {
    window: Window,
    at: u64,
}

impl Cursor {
    fn room(&self, wanted: usize) -> usize {
        usize::try_from(self.window.length.saturating_sub(self.at)).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.room(buffer.len());
        self.window.read_at(self.at, &mut buffer[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Cursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.room(bytes.len());
        self.window.write_at(self.at, &bytes[..count])?;
        self.at += count as u64;
        Ok(count)
    }

    /// Nothing is held back here; [`Window::flush`] is what makes bytes durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(delta) => self.window.length.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.at.checked_add_signed(delta),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
