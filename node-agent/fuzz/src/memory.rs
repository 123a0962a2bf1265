//! A device in memory.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use evenkeel_node_agent::disk::{BlockDevice, SlotRegion};

/// Its bytes.
#[derive(Debug)]
pub struct Memory(Mutex<Vec<u8>>);

impl Memory {
    /// A device of these bytes.
    pub fn of(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(bytes)))
    }

    /// A slot that is all of a device.
    pub fn slot(length: usize) -> SlotRegion {
        SlotRegion {
            name: "b".into(),
            path: PathBuf::from("memory"),
            device: Some(Self::of(vec![0; length])),
            offset: 0,
            length: length as u64,
            disk_offset: 0,
            part_uuid: String::new(),
        }
    }
}

fn range(at: u64, count: usize, length: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(at).map_err(io::Error::other)?;
    let end = start.checked_add(count).filter(|end| *end <= length);
    end.map(|end| start..end).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl BlockDevice for Memory {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().expect("no reader panics");
        buffer.copy_from_slice(&bytes[range(at, buffer.len(), bytes.len())?]);
        Ok(())
    }

    fn write_at(&self, at: u64, new: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock().expect("no writer panics");
        let place = range(at, new.len(), bytes.len())?;
        bytes[place].copy_from_slice(new);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("no reader panics").len() as u64)
    }
}
