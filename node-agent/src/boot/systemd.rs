//! systemd-boot: type 1 entries, the count of tries in the file name.
//!
//! It boots a trial also when it cannot count it. The initrd counts then, and leaves a mark: the next trial is refused.

use std::io;

use evenkeel_node_agent_core::{
    boot_entry::{BootEntry, ENTRIES_FOLDER, EntryBody, EntryName, Tries, next_generation},
    slot_record::SlotRecord,
};

use super::{
    BootError, Bootloader, LAST_RESORT, LoaderProgram, entry_body,
    files::{self, failed},
    is_default,
    signed::FIRST,
};
use crate::{disk::SlotRegion, esp::Esp};

/// No menu, no typing of kernel options, and no `default`: the order of the entries decides.
const LOADER_CONF: &str = "timeout 0\neditor no\n";
const CONF_FOLDER: &str = "loader";
const CONF: &str = "loader.conf";
/// Where firmware and systemd's own tools look for the loader.
const LOADER_PATHS: [&str; 2] = [FIRST, "EFI/systemd/systemd-bootx64.efi"];

/// The initrd's mark.
const UNCOUNTED: &str = "evenkeel/uncounted";

/// systemd-boot on one boot partition.
pub struct SystemdBoot {
    esp: Box<dyn Esp>,
}

impl SystemdBoot {
    /// Uses the partition.
    pub fn new(esp: Box<dyn Esp>) -> Self {
        Self { esp }
    }

    /// Whether the partition is systemd-boot's.
    pub(super) fn is_on(esp: &dyn Esp) -> Result<bool, BootError> {
        let there = esp.list(CONF_FOLDER).map_err(|source| failed("list", CONF_FOLDER, source))?;
        Ok(there.iter().any(|file| file.name == CONF))
    }

    /// Writes the loader itself and its configuration.
    pub fn install(&self, program: &LoaderProgram) -> Result<(), BootError> {
        for path in LOADER_PATHS {
            files::replace(&*self.esp, path, &program.loader)?;
        }
        files::replace(&*self.esp, &format!("{CONF_FOLDER}/{CONF}"), LOADER_CONF.as_bytes())
    }

    fn remove(&self, path: &str) -> Result<(), BootError> {
        self.esp.remove(path).map_err(|source| failed("remove", path, source))
    }

    fn names(&self, slot: &str) -> Result<Vec<EntryName>, BootError> {
        let files = self.esp.list(ENTRIES_FOLDER).map_err(|source| failed("list", ENTRIES_FOLDER, source))?;
        let names = files.iter().filter_map(|file| EntryName::parse(&file.name));
        Ok(names.filter(|name| name.slot == slot).collect())
    }

    /// The new entry is complete on the disk before an older one of the same slot goes, and gets its name last.
    fn write_entry(
        &self,
        slot: &SlotRegion,
        record: &SlotRecord,
        tries: Option<Tries>,
        generation: u64,
    ) -> Result<(), BootError> {
        let body = entry_body(slot, record, generation);
        let unfinished = format!("{ENTRIES_FOLDER}/evenkeel-{}.new", slot.name);
        files::write(&*self.esp, &unfinished, body.encode().as_bytes())?;
        self.clear(&slot.name)?;
        let name = EntryName { slot: slot.name.clone(), tries };
        let path = path(&name);
        self.esp.rename(&unfinished, &path).map_err(|source| failed("rename", &unfinished, source))
    }

    fn remove_entries(&self, slot: &str, which: impl Fn(&EntryName) -> bool) -> Result<(), BootError> {
        self.names(slot)?.iter().filter(|name| which(name)).try_for_each(|name| self.remove(&path(name)))
    }
}

impl Bootloader for SystemdBoot {
    fn esp(&self) -> &dyn Esp {
        &*self.esp
    }

    fn arm_trial(&self, slot: &SlotRegion, record: &SlotRecord, tries: u32) -> Result<(), BootError> {
        self.can_count()?;
        self.place_files(slot, record)?;
        files::entry_fits(&*self.esp)?;
        let generation = next_generation(&self.entries()?);
        self.write_entry(slot, record, Some(Tries { left: tries, done: 0 }), generation)
    }

    fn can_count(&self) -> Result<(), BootError> {
        let marked = self.esp.read(UNCOUNTED, &mut io::sink());
        if marked.map_err(|source| failed("read", UNCOUNTED, source))? {
            return Err(BootError::DidNotCount(UNCOUNTED));
        }
        Ok(())
    }

    fn commit(&self, slot: &str) -> Result<(), BootError> {
        let names = self.names(slot)?;
        let kept = EntryName { slot: slot.to_owned(), tries: None };
        if let Some(trial) = names.iter().find(|name| name.tries.is_some()) {
            let (from, to) = (path(trial), path(&kept));
            self.remove(&to)?;
            self.esp.rename(&from, &to).map_err(|source| failed("rename", &from, source))?;
            // Of a rename in which the power went, firmware may have left both names.
            self.remove_entries(slot, |name| name.tries.is_some())?;
        } else if !names.contains(&kept) {
            return Err(BootError::NoEntry(slot.to_owned()));
        }
        files::collect(&*self.esp, &self.entries()?, None)
    }

    fn disarm(&self, slot: &str) -> Result<(), BootError> {
        self.remove_entries(slot, |name| name.tries.is_some())
    }

    fn clear(&self, slot: &str) -> Result<(), BootError> {
        self.remove_entries(slot, |_| true)
    }

    fn make_default(&self, slot: &SlotRegion, record: &SlotRecord) -> Result<(), BootError> {
        self.place_files(slot, record)?;
        let entries = self.entries()?;
        if is_default(&entries, slot, record) {
            return Ok(());
        }
        self.write_entry(slot, record, None, next_generation(&entries))
    }

    fn make_last_resort(&self, slot: &SlotRegion, record: &SlotRecord) -> Result<(), BootError> {
        self.place_files(slot, record)?;
        self.write_entry(slot, record, None, LAST_RESORT)
    }

    fn entries(&self) -> Result<Vec<BootEntry>, BootError> {
        let files = self.esp.list(ENTRIES_FOLDER).map_err(|source| failed("list", ENTRIES_FOLDER, source))?;
        let mut entries = Vec::new();
        for name in files.iter().filter_map(|file| EntryName::parse(&file.name)) {
            let path = path(&name);
            let bytes = files::read(&*self.esp, &path)?.unwrap_or_default();
            if let Some(body) = EntryBody::parse(&String::from_utf8_lossy(&bytes)) {
                entries.push(BootEntry { name, body });
            } else {
                tracing::warn!(path, "this boot entry cannot be understood and is passed over");
            }
        }
        Ok(entries)
    }
}

fn path(name: &EntryName) -> String {
    format!("{ENTRIES_FOLDER}/{}", name.encode())
}
