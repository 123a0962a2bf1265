//! The tree that an image's layers add up to, as the OCI image specification (layer.md) says.
//!
//! Layers are applied base first. Within one layer the order of entries does not matter for whiteouts: they hide only
//! what lower layers brought. Where the specification is silent: a symbolic link in a path is followed inside the
//! image, also to what is not there yet; a directory that only a path implies belongs to root, with mode 0755 and time
//! 0, as does one whose own entry is hidden while something below it is not; a whiteout below what is not there does
//! nothing.

mod error;
mod inode;
mod path;
#[cfg(test)]
mod tests;
mod walk;
mod whiteout;

use std::collections::{BTreeMap, BTreeSet};

pub use error::TreeError;
pub use inode::{Attributes, Entry, Inode, InodeId, Kind, ROOT};
pub use path::NAME_BYTES_MAX;
use path::{PATH_BYTES_MAX, WHITEOUT, components, split};
use walk::Walk;

/// Entries of a whole image. The largest systems have some 300 000, and each takes about 450 bytes of memory here.
const ENTRIES_MAX: usize = 800_000;
/// Bytes of all names, link targets and attributes: 80 for each entry, were there so many.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// What an entry's second attribute and each further one counts besides its bytes, as it takes that in memory. Most
/// entries have none, or a security label.
const ATTRIBUTE_BYTES: usize = 96;

/// The tree.
#[derive(Clone, Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
    layer: u32,
    /// Entries that were ever made, and the bytes of their names, targets and attributes: what was replaced stays in
    /// memory.
    made: usize,
    text: usize,
    /// Names that were followed so far.
    walked: usize,
    /// Directories that hold nothing of lower layers any more: a second look would find nothing, and cost as much.
    pruned: BTreeSet<InodeId>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            inodes: vec![Inode::implied()],
            layer: 0,
            made: 0,
            text: 0,
            walked: 0,
            pruned: BTreeSet::new(),
        }
    }
}

impl Tree {
    /// Begins the next layer.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
        self.pruned.clear();
    }

    /// How many inodes were ever made: the largest [`InodeId`] and one.
    pub fn inodes(&self) -> usize {
        self.inodes.len()
    }

    /// An inode of this tree.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id]
    }

    /// Puts an inode at `path`. A directory on a directory keeps its entries and takes the new attributes; anything
    /// else replaces what is there. A name that marks a whiteout hides instead.
    pub fn put(&mut self, path: &[u8], kind: Kind, attributes: Attributes) -> Result<(), TreeError> {
        let (above, name) = split(path)?;
        let Some(name) = name else {
            if !matches!(kind, Kind::Directory(_)) {
                return Err(TreeError::Root);
            }
            self.inodes[ROOT].attributes = attributes;
            return Ok(());
        };
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&above, hidden);
        }
        if let Kind::Symlink(target) = &kind
            && (target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains(&0))
        {
            return Err(TreeError::BadTarget);
        }
        let parent = self.make_parent(&above, &name)?;
        self.count(&name, Some((&kind, &attributes)))?;
        let layer = self.layer;
        let known = self.entries(parent).get(&name).map(|entry| entry.inode);
        if let Some(inode) = known
            && matches!(kind, Kind::Directory(_))
            && matches!(self.inodes[inode].kind, Kind::Directory(_))
        {
            self.inodes[inode].attributes = attributes;
            self.entries_mut(parent).insert(name, Entry { inode, layer });
            return Ok(());
        }
        self.inodes.push(Inode { kind, attributes });
        let inode = self.inodes.len() - 1;
        self.entries_mut(parent).insert(name, Entry { inode, layer });
        Ok(())
    }

    /// Makes `path` another name of what `target` names; attributes stay those of what it names. A name that marks a
    /// whiteout hides instead.
    pub fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let (above, name) = split(path)?;
        let name = name.ok_or(TreeError::Root)?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&above, hidden);
        }
        let inode = self
            .find(target)?
            .filter(|id| !matches!(self.inodes[*id].kind, Kind::Directory(_)))
            .ok_or(TreeError::BadHardLink)?;
        let parent = self.make_parent(&above, &name)?;
        self.count(&name, None)?;
        let layer = self.layer;
        self.entries_mut(parent).insert(name, Entry { inode, layer });
        Ok(())
    }

    /// What `path` names, without following a last symbolic link.
    pub fn find(&self, path: &[u8]) -> Result<Option<InodeId>, TreeError> {
        let (above, name) = split(path)?;
        let Some(name) = name else { return Ok(Some(ROOT)) };
        let walk = self.look(&above)?;
        if !walk.missing.is_empty() {
            return Ok(None);
        }
        if !self.is_directory(walk.here) {
            return Err(TreeError::NotADirectory);
        }
        Ok(self.entries(walk.here).get(&name).map(|entry| entry.inode))
    }

    /// What `path` names, with every symbolic link followed inside the image.
    pub fn find_following(&self, path: &[u8]) -> Result<Option<InodeId>, TreeError> {
        let walk = self.look(&components(path)?)?;
        Ok(walk.missing.is_empty().then_some(walk.here))
    }

    /// The entries of a directory; none for anything else.
    pub fn entries(&self, id: InodeId) -> &BTreeMap<Vec<u8>, Entry> {
        static NONE: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        match &self.inodes[id].kind {
            Kind::Directory(entries) => entries,
            _ => &NONE,
        }
    }

    fn entries_mut(&mut self, id: InodeId) -> &mut BTreeMap<Vec<u8>, Entry> {
        match &mut self.inodes[id].kind {
            Kind::Directory(entries) => entries,
            _ => unreachable!("every caller has an inode that it found to be a directory"),
        }
    }

    /// The directory at a path that is to hold a name, made with its parents if it is not there.
    fn make_parent(&mut self, path: &[Vec<u8>], name: &[u8]) -> Result<InodeId, TreeError> {
        let Walk { mut here, missing, bytes } = self.walk(path)?;
        if bytes + 1 + name.len() > PATH_BYTES_MAX {
            return Err(TreeError::PathTooLong);
        }
        if !self.is_directory(here) {
            return Err(TreeError::NotADirectory);
        }
        if missing.iter().any(|name| name.starts_with(WHITEOUT)) {
            return Err(TreeError::BelowWhiteout);
        }
        // A link's target may hold what no path may.
        if missing.iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(TreeError::NameTooLong);
        }
        for name in missing {
            self.count(&name, None)?;
            self.inodes.push(Inode::implied());
            let (inode, layer) = (self.inodes.len() - 1, self.layer);
            self.entries_mut(here).insert(name, Entry { inode, layer });
            here = inode;
        }
        Ok(here)
    }

    fn is_directory(&self, id: InodeId) -> bool {
        matches!(self.inodes[id].kind, Kind::Directory(_))
    }

    /// Counts what is about to be made.
    fn count(&mut self, name: &[u8], inode: Option<(&Kind, &Attributes)>) -> Result<(), TreeError> {
        self.made += 1;
        self.text += name.len();
        if let Some((kind, attributes)) = inode {
            self.text += if let Kind::Symlink(target) = kind { target.len() } else { 0 };
            self.text +=
                attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            self.text += attributes.xattrs.len().saturating_sub(1) * ATTRIBUTE_BYTES;
        }
        if self.made > ENTRIES_MAX || self.text > TEXT_BYTES_MAX { Err(TreeError::TooLarge) } else { Ok(()) }
    }
}
