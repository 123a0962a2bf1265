//! Which clusters have a name, and what becomes of the others.
//!
//! A change of ours leaves no name without its clusters, and no cluster with two names. Others write here too: a kernel
//! that has the partition mounted, and firmware that renames an entry. A power cut in one of their renames can leave two
//! names with the same clusters, and one in anybody's removal leaves clusters without a name.
//!
//! Format: Microsoft's FAT specification of 2005 (fatgen103), "FAT Directory Structure".

use std::io;

use super::{
    change::Held,
    parts::{BAD_CLUSTER, FIRST_CLUSTER, TABLE_ENTRY, TABLE_ENTRY_BITS, UNKNOWN_COUNT},
};

/// A directory entry, and where in it are the attributes and the halves of the first cluster's number.
pub(super) const ENTRY: usize = 32;
const ATTRIBUTES_AT: usize = 11;
const CLUSTER_HIGH_AT: usize = 20;
const CLUSTER_LOW_AT: usize = 26;
const END: u8 = 0;
const REMOVED: u8 = 0xE5;
/// The label, and the parts of long names.
const VOLUME: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

impl Held {
    /// By the cluster's number, whether it is of something that has a name, be its chain whole or not.
    fn named(&mut self) -> io::Result<Vec<bool>> {
        let parts = self.parts;
        let mut named = vec![false; usize::try_from(parts.end).map_err(io::Error::other)?];
        let mut open = vec![(parts.root, true)];
        let mut content = vec![0; usize::try_from(parts.cluster).map_err(io::Error::other)?];
        while let Some((mut cluster, is_directory)) = open.pop() {
            // A chain that leads into one that is known ends there, and so does a circle.
            while parts.has(cluster) && !std::mem::replace(&mut named[index(cluster)], true) {
                if is_directory {
                    self.read_view(parts.place(cluster), &mut content)?;
                    open.extend(entries(&content));
                }
                cluster = u64::from(self.next(cluster)?);
            }
        }
        Ok(named)
    }

    /// After a removal: clusters that another name has as well stay its own.
    pub(super) fn keep_named(&mut self) -> io::Result<()> {
        let changed = self.changed_clusters()?.into_iter();
        let freed: Vec<(u64, u32)> =
            changed.filter(|(_, _, is)| *is == 0).map(|(cluster, was, _)| (cluster, was)).collect();
        if freed.is_empty() {
            return Ok(());
        }
        // As it was, so that the whole chain of the other name is seen.
        for (cluster, was) in &freed {
            self.set_next(*cluster, *was)?;
        }
        let named = self.named()?;
        let (kept, free): (Vec<_>, Vec<_>) = freed.iter().partition(|(cluster, _)| named[index(*cluster)]);
        for (cluster, _) in free {
            self.set_next(cluster, 0)?;
        }
        if kept.is_empty() { Ok(()) } else { self.forget_free_count() }
    }

    /// Frees the clusters that nothing with a name has, lets all copies of the table say the same, and makes that durable.
    pub(super) fn reclaim(mut self) -> io::Result<()> {
        let named = self.named()?;
        let mut wrong = false;
        for cluster in FIRST_CLUSTER..self.parts.end {
            let next = self.next(cluster)?;
            let wanted = if named[index(cluster)] || next == BAD_CLUSTER { next } else { 0 };
            if wanted != next || !self.copies_agree(cluster, next)? {
                self.set_next(cluster, wanted)?;
                wrong = true;
            }
        }
        if !wrong {
            return Ok(());
        }
        self.forget_free_count()?;
        self.write_all_held()
    }

    fn copies_agree(&mut self, cluster: u64, next: u32) -> io::Result<bool> {
        for place in self.parts.entries(cluster) {
            if self.entry_at(place)? != next {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The clusters whose entries change, each with what it was and what it is to be.
    pub(super) fn changed_clusters(&mut self) -> io::Result<Vec<(u64, u32, u32)>> {
        let held: Vec<u64> = self.sectors.keys().copied().collect();
        let (parts, mut changed) = (self.parts, Vec::new());
        for cluster in held.into_iter().flat_map(|sector| parts.clusters_of(sector)) {
            let mut before = [0; TABLE_ENTRY];
            self.disk.read_at(parts.table + cluster * TABLE_ENTRY as u64, &mut before)?;
            let (was, is) = (u32::from_le_bytes(before) & TABLE_ENTRY_BITS, self.next(cluster)?);
            if was != is {
                changed.push((cluster, was, is));
            }
        }
        // Of each copy of the table.
        changed.sort_unstable();
        changed.dedup();
        Ok(changed)
    }

    /// As the first copy of the table has it.
    fn next(&mut self, cluster: u64) -> io::Result<u32> {
        self.entry_at(self.parts.table + cluster * TABLE_ENTRY as u64)
    }

    fn entry_at(&mut self, place: u64) -> io::Result<u32> {
        let mut entry = [0; TABLE_ENTRY];
        self.read_view(place, &mut entry)?;
        Ok(u32::from_le_bytes(entry) & TABLE_ENTRY_BITS)
    }

    /// In each copy of the table; the bits that belong to nobody stay.
    fn set_next(&mut self, cluster: u64, next: u32) -> io::Result<()> {
        self.parts.entries(cluster).try_for_each(|place| {
            let mut entry = [0; TABLE_ENTRY];
            self.read_view(place, &mut entry)?;
            let entry = u32::from_le_bytes(entry) & !TABLE_ENTRY_BITS | next;
            self.hold(place, &entry.to_le_bytes())
        })
    }

    /// Whoever opens the partition next counts anew.
    fn forget_free_count(&mut self) -> io::Result<()> {
        self.hold(self.parts.free_count, &UNKNOWN_COUNT.to_le_bytes())
    }
}

fn index(cluster: u64) -> usize {
    usize::try_from(cluster).expect("below the number of clusters, of which there is a list")
}

/// First clusters of what a part of a directory names, and whether each is a directory.
fn entries(directory: &[u8]) -> impl Iterator<Item = (u64, bool)> {
    let used = directory.chunks_exact(ENTRY).take_while(|entry| entry[0] != END);
    // `.` and `..` name what another name has too.
    let own = used.filter(|entry| ![REMOVED, b'.'].contains(&entry[0]) && entry[ATTRIBUTES_AT] & VOLUME == 0);
    own.map(|entry| {
        let half = |at: usize| u64::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
        (half(CLUSTER_HIGH_AT) << 16 | half(CLUSTER_LOW_AT), entry[ATTRIBUTES_AT] & DIRECTORY != 0)
    })
}
