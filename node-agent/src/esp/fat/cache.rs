//! What the FAT library reads entry by entry and writes cluster by cluster, in pieces that are worth a system call.

use std::{collections::BTreeMap, io};

use crate::disk::Window;

/// Bytes that are read together: the entries of 16384 clusters.
const PAGE: u64 = 64 << 10;
/// 2 MiB: the whole table of a partition of 512 MiB with clusters of 4 KiB is a quarter of that.
const PAGES: usize = 32;
/// Bytes that are written together.
const RUN: usize = 1 << 20;

/// A partition, for as long as nobody else writes it. What is written may wait until [`Cache::flush`], and is seen by
/// every read before.
pub(super) struct Cache {
    window: Window,
    pages: BTreeMap<u64, Vec<u8>>,
    run_at: u64,
    run: Vec<u8>,
}

impl Cache {
    pub(super) fn new(window: Window) -> Self {
        Self { window, pages: BTreeMap::new(), run_at: 0, run: Vec::new() }
    }

    /// Bytes of the partition.
    pub(super) fn length(&self) -> u64 {
        self.window.length()
    }

    /// Fills `buffer` with the bytes from `at` on.
    pub(super) fn read_at(&mut self, mut at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let number = at / PAGE;
            let from = usize::try_from(at % PAGE).expect("less than a page");
            let page = self.page(number)?;
            let count = buffer.len().min(page.len().saturating_sub(from));
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer[..count].copy_from_slice(&page[from..from + count]);
            buffer = &mut buffer[count..];
            at += count as u64;
        }
        Ok(())
    }

    /// Writes all of `bytes` at `at`.
    pub(super) fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at != self.run_at + self.run.len() as u64 || self.run.len() + bytes.len() > RUN {
            self.write_run()?;
            self.run_at = at;
        }
        self.run.extend_from_slice(bytes);
        self.forget(at, bytes.len() as u64);
        Ok(())
    }

    /// Waits until everything that was written is durable.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.write_run()?;
        self.window.flush()
    }

    /// Hands over to the disk what waits here.
    pub(super) fn write_run(&mut self) -> io::Result<()> {
        let run = std::mem::take(&mut self.run);
        if run.is_empty() { Ok(()) } else { self.window.write_at(self.run_at, &run) }
    }

    fn forget(&mut self, at: u64, length: u64) {
        for number in at / PAGE..(at + length).div_ceil(PAGE) {
            self.pages.remove(&number);
        }
    }

    fn page(&mut self, number: u64) -> io::Result<&[u8]> {
        if !self.pages.contains_key(&number) {
            let at = number * PAGE;
            let length = self.window.length().saturating_sub(at).min(PAGE);
            if self.run_at < at + length && at < self.run_at + self.run.len() as u64 {
                self.write_run()?;
            }
            let mut page = vec![0; usize::try_from(length).expect("at most a page")];
            self.window.read_at(at, &mut page)?;
            if self.pages.len() == PAGES {
                self.pages.clear();
            }
            self.pages.insert(number, page);
        }
        Ok(&self.pages[&number])
    }
}
