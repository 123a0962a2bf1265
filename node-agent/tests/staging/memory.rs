//! A disk in memory under everything that staging and activation do.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, RwLock},
};

use evenkeel_node_agent::{
    disk::{BlockDevice, Disk},
    install,
    slots::SlotState,
};

use crate::{image::Recipe, machine::Machine, registry::Registry};

const SECTOR: usize = 512;

/// An empty disk's file, never changed, and what was written since, by sector.
#[derive(Debug)]
struct Memory {
    empty: File,
    written: RwLock<BTreeMap<u64, Vec<u8>>>,
}

impl Memory {
    fn sector(&self, number: u64) -> io::Result<Vec<u8>> {
        if let Some(bytes) = self.written.read().unwrap().get(&number) {
            return Ok(bytes.clone());
        }
        let mut bytes = vec![0; SECTOR];
        self.empty.read_exact_at(&mut bytes, number * SECTOR as u64)?;
        Ok(bytes)
    }
}

/// The sectors of a range: the number of each, where in it the range begins, and how much of it the range has.
fn sectors(at: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let first = at / SECTOR as u64;
    let begin = usize::try_from(at % SECTOR as u64).unwrap();
    let end = begin + length;
    (0..end.div_ceil(SECTOR)).map(move |index| {
        let (from, to) = (begin.max(index * SECTOR), end.min((index + 1) * SECTOR));
        (first + index as u64, from % SECTOR, to - from)
    })
}

impl BlockDevice for Memory {
    fn read_at(&self, at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        for (number, from, count) in sectors(at, buffer.len()) {
            buffer.write_all(&self.sector(number)?[from..from + count])?;
        }
        Ok(())
    }

    fn write_at(&self, at: u64, mut bytes: &[u8]) -> io::Result<()> {
        for (number, from, count) in sectors(at, bytes.len()) {
            let mut sector = self.sector(number)?;
            bytes.read_exact(&mut sector[from..from + count])?;
            self.written.write().unwrap().insert(number, sector);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.empty.metadata()?.len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_in_memory_is_staged_and_made_bootable_as_one_in_a_file() {
    let (registry, in_file) = (Registry::start(), Machine::empty());
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    let mut machine = Machine::empty();
    let empty = File::open(machine.disk.path()).unwrap();
    let memory: Arc<dyn BlockDevice> = Arc::new(Memory { empty, written: RwLock::default() });
    machine.disk = Disk::on(&memory, Path::new("memory")).unwrap();
    let expected = in_file.stage(&image).await.unwrap();
    let staged = machine.stage(&image).await.unwrap();
    assert_eq!(staged.record.root_hash, expected.record.root_hash);
    install::make_bootable(&machine.disk, &machine.disk.slot("b").unwrap(), &staged.record).unwrap();
    let b = machine.slot("b");
    assert!(b.state == SlotState::Complete && b.default, "{b:?}");
}
