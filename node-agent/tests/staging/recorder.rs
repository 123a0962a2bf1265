//! A disk in memory that remembers every write and every flush, in their order.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};

use evenkeel_node_agent::disk::BlockDevice;

/// What a drive writes as a whole, or not at all.
pub const SECTOR: usize = 512;

pub type Bytes = Arc<[u8; SECTOR]>;
/// What differs from the disk's file, by the sector's number.
pub type Sectors = BTreeMap<u64, Bytes>;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Op<N> {
    /// Sectors that were written together.
    Write(Vec<(u64, Bytes)>),
    /// Everything before is durable.
    Flush,
    /// Something that happened elsewhere, durably.
    Note(N),
}

/// The disk: a file that never changes, and what was written since.
#[derive(Debug)]
pub struct Recorder<N> {
    file: Arc<File>,
    now: Mutex<(Sectors, Vec<Op<N>>)>,
}

impl<N> Recorder<N> {
    pub fn new(file: Arc<File>, sectors: Sectors) -> Self {
        Self { file, now: Mutex::new((sectors, Vec::new())) }
    }

    pub fn note(&self, note: N) {
        self.now.lock().unwrap().1.push(Op::Note(note));
    }

    /// What happened so far, and begins anew.
    pub fn take_log(&self) -> Vec<Op<N>> {
        std::mem::take(&mut self.now.lock().unwrap().1)
    }

    fn sector(&self, sectors: &Sectors, number: u64) -> io::Result<[u8; SECTOR]> {
        if let Some(bytes) = sectors.get(&number) {
            return Ok(**bytes);
        }
        let mut bytes = [0; SECTOR];
        self.file.read_exact_at(&mut bytes, number * SECTOR as u64)?;
        Ok(bytes)
    }
}

/// The sectors of a range: the number of each, where in it the range begins, and how much of it the range has.
fn parts(at: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let first = at / SECTOR as u64;
    let begin = usize::try_from(at % SECTOR as u64).unwrap();
    let end = begin + length;
    (0..end.div_ceil(SECTOR)).map(move |index| {
        let (from, to) = (begin.max(index * SECTOR), end.min((index + 1) * SECTOR));
        (first + index as u64, from % SECTOR, to - from)
    })
}

impl<N: std::fmt::Debug + Send> BlockDevice for Recorder<N> {
    fn read_at(&self, at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let now = self.now.lock().unwrap();
        for (number, from, count) in parts(at, buffer.len()) {
            buffer.write_all(&self.sector(&now.0, number)?[from..from + count])?;
        }
        Ok(())
    }

    fn write_at(&self, at: u64, mut bytes: &[u8]) -> io::Result<()> {
        let mut now = self.now.lock().unwrap();
        let mut written = Vec::new();
        for (number, from, count) in parts(at, bytes.len()) {
            let mut sector = self.sector(&now.0, number)?;
            bytes.read_exact(&mut sector[from..from + count])?;
            let sector = Arc::new(sector);
            now.0.insert(number, sector.clone());
            written.push((number, sector));
        }
        now.1.push(Op::Write(written));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.now.lock().unwrap().1.push(Op::Flush);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}
