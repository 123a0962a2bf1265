//! A disk that gives read errors: what is said of it, and that staging goes on without it.

use std::{
    collections::BTreeSet,
    error::Error as _,
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use evenkeel_node_agent::{
    disk::{BlockDevice, Disk, RegionError},
    slot::scrub::{Damage, first_damage},
    slots::SlotState,
};

use crate::{
    machine::Machine,
    recorder::{Recorder, SECTOR, Sectors},
    reuse::Versions,
};

const MIB: u64 = 1 << 20;
/// The kernel's number of an input/output error.
const EIO: i32 = 5;

/// A disk with sectors that give nothing until they are written, as drives have them.
#[derive(Debug)]
struct Failing {
    disk: Recorder<()>,
    bad: Mutex<BTreeSet<u64>>,
}

fn sectors(at: u64, length: usize) -> std::ops::Range<u64> {
    at / SECTOR as u64..(at + length as u64).div_ceil(SECTOR as u64)
}

impl BlockDevice for Failing {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.bad.lock().unwrap().range(sectors(at, buffer.len())).next().is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.disk.read_at(at, buffer)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.bad.lock().unwrap().retain(|sector| !sectors(at, bytes.len()).contains(sector));
        self.disk.write_at(at, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }

    fn length(&self) -> io::Result<u64> {
        self.disk.length()
    }
}

/// A machine with such a disk.
fn machine() -> (Machine, Arc<Failing>) {
    let mut machine = Machine::empty();
    let file = Arc::new(File::open(machine.disk.path()).unwrap());
    let failing = Arc::new(Failing { disk: Recorder::new(file, Sectors::new()), bad: Mutex::default() });
    let device: Arc<dyn BlockDevice> = failing.clone();
    machine.disk = Disk::on(&device, Path::new("memory")).unwrap();
    (machine, failing)
}

impl Failing {
    /// The sector in which this byte of a slot lies gives nothing from now on.
    fn fail(&self, machine: &Machine, slot: &str, byte: u64) {
        let place = machine.disk.slot(slot).unwrap().disk_offset + byte;
        self.bad.lock().unwrap().insert(place / SECTOR as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_cannot_be_read_is_named_and_is_mended_by_staging() {
    let (versions, (machine, disk)) = (Versions::new().await, machine());
    let image = &versions.names[0];
    let record = machine.stage(image).await.unwrap().record;
    let region = machine.disk.slot("b").unwrap();
    // In the data, and in the hash tree.
    for (byte, block) in
        [(3 * MIB + 700, 3 * MIB), (record.filesystem_length + 5000, record.filesystem_length + 4096)]
    {
        disk.fail(&machine, "b", byte);
        let damage = first_damage(&region, &record).unwrap().unwrap();
        assert!(matches!(damage, Damage::Unreadable { .. }) && damage.at() == block, "{damage:?}");
        let said = damage.to_string();
        for words in ["slot b", &format!("byte {block}"), "Stage the image again", "replace the disk"] {
            assert!(said.contains(words), "{words} is not in: {said}");
        }
        assert!(damage.source().unwrap().to_string().contains("os error 5"));
        machine.stage(image).await.unwrap();
        assert!(first_damage(&region, &record).unwrap().is_none(), "staging has mended it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_record_cannot_be_read_is_damaged_and_can_be_written() {
    let (versions, (machine, disk)) = (Versions::new().await, machine());
    let record = machine.stage(&versions.names[0]).await.unwrap().record;
    let region = machine.disk.slot("b").unwrap();
    for byte in [region.record_at(), 0] {
        disk.fail(&machine, "b", byte);
        let error = region.read_record().unwrap_err();
        assert!(matches!(error, RegionError::Unreadable { at, .. } if at == byte), "{error:?}");
        assert!(error.to_string().contains(&format!("slot b cannot be read at byte {byte}")), "{error}");
        assert_eq!(machine.slot("b").state, SlotState::Damaged);
        let again = machine.stage(&versions.names[0]).await.unwrap().record;
        assert_eq!((machine.slot("b").state, &again.root_hash), (SlotState::Complete, &record.root_hash));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_cannot_be_read_in_its_slot_is_downloaded() {
    let versions = Versions::new().await;
    let expected = versions.fresh().await.record;
    for slot in ["a", "b"] {
        let (machine, disk) = machine();
        machine.stage_into(&versions.names[0], slot, &Arc::default()).await.unwrap();
        disk.fail(&machine, slot, 3 * MIB);
        let staged = machine.stage(&versions.names[1]).await.unwrap();
        let downloaded = staged.cost.bytes_downloaded / i64::try_from(MIB).unwrap();
        assert!(downloaded >= 6, "{slot}: {:?}", staged.cost);
        assert_eq!(staged.record.root_hash, expected.root_hash, "{slot}");
        let region = machine.disk.slot("b").unwrap();
        assert!(first_damage(&region, &staged.record).unwrap().is_none(), "{slot}");
    }
}
