//! The partition through a FAT library: for disks in files, which no kernel has mounted.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt as _,
    path::Path,
};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};

use super::{Esp, EspFile};

/// The partition.
///
/// The file system is opened for each call and closed at its end, so that nothing is ever held back from the disk.
pub struct FatEsp {
    file: File,
    offset: u64,
    length: u64,
}

impl FatEsp {
    /// Uses `length` bytes at `offset` of `path`.
    pub fn open(path: &Path, offset: u64, length: u64) -> io::Result<Self> {
        let writable = OpenOptions::new().read(true).write(true).open(path);
        // Looking at a disk needs no more than the right to read it.
        let file = writable.or_else(|_| File::open(path))?;
        Ok(Self { file, offset, length })
    }

    fn with<T>(&self, work: impl FnOnce(&FileSystem<Window>) -> io::Result<T>) -> io::Result<T> {
        let window =
            Window { file: self.file.try_clone()?, offset: self.offset, length: self.length, position: 0 };
        let file_system = FileSystem::new(window, FsOptions::new())?;
        let outcome = work(&file_system);
        file_system.unmount()?;
        outcome
    }

    fn change<T>(&self, work: impl FnOnce(&FileSystem<Window>) -> io::Result<T>) -> io::Result<T> {
        let outcome = self.with(work);
        self.file.sync_data()?;
        outcome
    }
}

impl Esp for FatEsp {
    fn read(&self, path: &str, sink: &mut dyn Write) -> io::Result<bool> {
        self.with(|fs| {
            let Some(mut file) = found(fs.root_dir().open_file(path))? else { return Ok(false) };
            io::copy(&mut file, sink)?;
            Ok(true)
        })
    }

    fn write(&self, path: &str, source: &mut dyn Read) -> io::Result<()> {
        self.change(|fs| {
            let mut folder = fs.root_dir();
            let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
            for part in folders.split('/').filter(|part| !part.is_empty()) {
                folder = folder.create_dir(part)?;
            }
            let mut file = folder.create_file(name)?;
            file.truncate()?;
            io::copy(source, &mut file)?;
            file.flush()
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|fs| fs.root_dir().rename(from, &fs.root_dir(), to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change(|fs| found(fs.root_dir().remove(path)).map(|_| ()))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<EspFile>> {
        self.with(|fs| {
            let Some(folder) = found(fs.root_dir().open_dir(folder))? else { return Ok(Vec::new()) };
            let mut files = Vec::new();
            for entry in folder.iter() {
                let entry = entry?;
                if entry.is_file() {
                    files.push(EspFile { name: entry.file_name(), length: entry.len() });
                }
            }
            files.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(files)
        })
    }

    fn free(&self) -> io::Result<u64> {
        self.with(|fs| {
            let stats = fs.stats()?;
            Ok(u64::from(stats.free_clusters()) * u64::from(stats.cluster_size()))
        })
    }
}

/// Formats `length` bytes at `offset` of `path` as FAT32.
pub(super) fn format(path: &Path, offset: u64, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let window = Window { file: file.try_clone()?, offset, length, position: 0 };
    let (volume_id, ..) = uuid::Uuid::new_v4().as_fields();
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .volume_label(*b"EVENKEELESP")
        .volume_id(volume_id);
    fatfs::format_volume(window, options)?;
    file.sync_all()
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

struct Window {
    file: File,
    offset: u64,
    length: u64,
    position: u64,
}

impl Window {
    fn room(&self, wanted: usize) -> usize {
        usize::try_from(self.length.saturating_sub(self.position)).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        let count = self.file.read_at(&mut buffer[..room], self.offset + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Window {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        let count = self.file.write_at(&buffer[..room], self.offset + self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(delta) => self.length.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
