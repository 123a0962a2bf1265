//! A new folder as others expect it.
//!
//! The library gives `.` and `..` long names, and has the `..` of a folder in the root name the root's cluster. Kernels
//! and loaders do not mind; checkers of file systems take it for damage, and mend it by names of their own.
//!
//! Format: Microsoft's FAT specification of 2005 (fatgen103), "FAT Directory Structure": the first entry is `.`, the
//! second is `..`, and the root's cluster is written as 0 there.

use std::io;

use super::{change::Held, named::ENTRY};

/// The names of the library's first four entries, of which two are parts of long names.
const DOT: &[u8; 11] = b".          ";
const DOT_DOT: &[u8; 11] = b"..         ";
const CLUSTER_HIGH: std::ops::Range<usize> = 20..22;
const CLUSTER_LOW: std::ops::Range<usize> = 26..28;

impl Held {
    /// For a change that made a folder and nothing else.
    pub(super) fn straighten_folder(&mut self) -> io::Result<()> {
        let parts = self.parts;
        let root = u32::try_from(parts.root).map_err(io::Error::other)?.to_le_bytes();
        for (cluster, was, _) in self.changed_clusters()? {
            let mut content = vec![0; usize::try_from(parts.cluster).map_err(io::Error::other)?];
            self.read_view(parts.place(cluster), &mut content)?;
            let entry = |number: usize| content[number * ENTRY..(number + 1) * ENTRY].to_vec();
            let (dot, mut dot_dot) = (entry(1), entry(3));
            // The folder in which it is may have grown by a cluster.
            if was != 0 || !dot.starts_with(DOT) || !dot_dot.starts_with(DOT_DOT) {
                continue;
            }
            if [&dot_dot[CLUSTER_LOW], &dot_dot[CLUSTER_HIGH]].concat() == root {
                dot_dot[CLUSTER_LOW].fill(0);
                dot_dot[CLUSTER_HIGH].fill(0);
            }
            let empty = vec![0; content.len() - 2 * ENTRY];
            self.disk.write_at(parts.place(cluster), &[dot, dot_dot, empty].concat())?;
        }
        Ok(())
    }
}
