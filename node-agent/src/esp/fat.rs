//! The partition through a FAT library: where no kernel has it mounted.

mod cache;
mod change;
mod folder;
mod named;
mod parts;

use std::{
    cell::RefCell,
    io::{self, Read, Seek, SeekFrom, Write},
    rc::Rc,
};

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use jiff::{Timestamp, civil, tz::TimeZone};

use self::change::{Change, Held};
use super::{Esp, EspFile};
use crate::disk::{Access, Partition, Window};

/// Firmware renames no file whose times are not valid, as those of the library's own clock are: without this no boot
/// loader would count a try.
#[derive(Debug)]
struct Utc;
static UTC: Utc = Utc;
/// What FAT can hold; a clock that is wrong is better than a time that is not one.
const TIMES: (civil::Date, civil::Date) = (civil::date(1980, 1, 1), civil::date(2107, 12, 31));

impl TimeProvider for Utc {
    fn get_current_date(&self) -> Date {
        self.get_current_date_time().date
    }

    fn get_current_date_time(&self) -> DateTime {
        let now = Timestamp::now().to_zoned(TimeZone::UTC).datetime();
        let number = |value: i8| u16::try_from(value).unwrap_or(0);
        let date = now.date().clamp(TIMES.0, TIMES.1);
        let year = u16::try_from(date.year()).unwrap_or(1980);
        let time = Time {
            hour: number(now.hour()),
            min: number(now.minute()),
            sec: number(now.second()),
            millis: 0,
        };
        DateTime { date: Date { year, month: number(date.month()), day: number(date.day()) }, time }
    }
}

/// The partition.
///
/// The file system is opened for each call and closed at its end, so that nothing is held back from the disk for
/// longer; and what a call changes is written in an order of its own.
pub struct FatEsp {
    window: Window,
}

impl FatEsp {
    /// Uses a partition of a device that was given.
    pub(super) fn open(partition: &Partition) -> io::Result<Self> {
        Ok(Self { window: partition.open(Access::Write)? })
    }

    /// Uses the partition's bytes, which nobody else may have mounted.
    pub(super) fn on(window: Window) -> Self {
        Self { window }
    }

    /// For reading: what the library writes nevertheless, its count of free clusters, is dropped.
    fn with<T>(&self, work: impl FnOnce(&FileSystem<Shared>) -> io::Result<T>) -> io::Result<T> {
        let held = Shared(Rc::new(RefCell::new(Held::begin(&self.window)?)));
        let file_system = FileSystem::new(held, FsOptions::new().time_provider(&UTC))?;
        let outcome = work(&file_system);
        file_system.unmount()?;
        outcome
    }

    fn make_folder(&self, path: &str) -> io::Result<()> {
        if self.with(|fs| Ok(found(fs.root_dir().open_dir(path))?.is_some()))? {
            return Ok(());
        }
        let mut held = self.changed(|fs| fs.root_dir().create_dir(path).map(|_| ()))?;
        held.straighten_folder()?;
        held.write_out(Change::CreateFolder)
    }

    fn change(
        &self,
        change: Change,
        work: impl FnOnce(&FileSystem<Shared>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.changed(work)?.write_out(change)
    }

    /// A change that is held back.
    fn changed(&self, work: impl FnOnce(&FileSystem<Shared>) -> io::Result<()>) -> io::Result<Held> {
        let held = Rc::new(RefCell::new(Held::begin(&self.window)?));
        let file_system = FileSystem::new(Shared(held.clone()), FsOptions::new().time_provider(&UTC))?;
        let outcome = work(&file_system);
        file_system.unmount()?;
        outcome?;
        let held = Rc::into_inner(held).expect("the file system is gone, and with it the other owner");
        Ok(held.into_inner())
    }
}

/// The library takes what it writes to, and does not give it back.
struct Shared(Rc<RefCell<Held>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

impl Seek for Shared {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.borrow_mut().seek(to)
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
        // Its clusters are free before new ones are chosen, so that data is never written over what a name still has.
        self.remove(path)?;
        for (at, _) in path.match_indices('/') {
            self.make_folder(&path[..at])?;
        }
        self.change(Change::Create, |fs| {
            let mut file = fs.root_dir().create_file(path)?;
            io::copy(source, &mut file)?;
            file.flush()
        })
    }

    fn overwrite(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.change(Change::Create, |fs| {
            let mut file = fs.root_dir().open_file(path)?;
            if file.seek(SeekFrom::End(0))? != bytes.len() as u64 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the file has another length"));
            }
            file.seek(SeekFrom::Start(0))?;
            file.write_all(bytes)?;
            file.flush()
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(Change::Rename, |fs| fs.root_dir().rename(from, &fs.root_dir(), to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change(Change::Remove, |fs| found(fs.root_dir().remove(path)).map(|_| ()))
    }

    fn reclaim(&self) -> io::Result<()> {
        Held::begin(&self.window)?.reclaim()
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

/// Formats a partition as FAT32.
pub(super) fn format(partition: &Partition, block: u64) -> io::Result<()> {
    let window = partition.open(Access::Write)?;
    let (volume_id, ..) = uuid::Uuid::new_v4().as_fields();
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        // The kernel and firmware take no sectors that are smaller than the disk's.
        .bytes_per_sector(u16::try_from(block).map_err(io::Error::other)?)
        .volume_label(*b"EVENKEELESP")
        .volume_id(volume_id);
    fatfs::format_volume(window.cursor(0), options)?;
    window.flush()
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
