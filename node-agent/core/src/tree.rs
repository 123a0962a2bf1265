//! The tree that an image's layers add up to, as the OCI image specification (layer.md) says.
//!
//! Layers are applied base first. Within one layer the order of entries does not matter for whiteouts: they hide only
//! what lower layers brought.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

/// Index of an inode in its tree.
pub type InodeId = usize;
/// The root directory.
pub const ROOT: InodeId = 0;
/// Bytes of a file name, as every Linux file system has it.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a path, as the kernel has it.
const PATH_BYTES_MAX: usize = 4096;
/// Directories in directories: no path that the kernel takes has more names than half its bytes.
const DEPTH_MAX: usize = PATH_BYTES_MAX / 2;
/// Entries of a whole image. The largest systems have some 300 000, and each takes about 450 bytes of memory here.
const ENTRIES_MAX: usize = 800_000;
/// Bytes of all names, link targets and attributes: 80 for each entry, were there so many.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Symbolic links that are followed in one path, as the kernel has it.
const LINKS_FOLLOWED_MAX: usize = 40;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What every kind of inode has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-user-ID, set-group-ID and sticky: 12 bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds on top.
    pub mtime_nanoseconds: u32,
    /// Extended attributes, by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory(BTreeMap<Vec<u8>, Entry>),
    /// A file whose bytes lie in the slot from a block on.
    File {
        /// First block; 0 for an empty file.
        block: u32,
        /// Bytes.
        length: u64,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it names.
    pub inode: InodeId,
    layer: u32,
}

/// One inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// What every kind has.
    pub attributes: Attributes,
}

/// Why an entry cannot be part of the tree. The caller names layer and entry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// `..` in a path.
    #[error("its path leaves the image's root")]
    Traversal,
    /// A name is too long.
    #[error("a name in its path has more than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// A path is too long.
    #[error(
        "its path has more than {PATH_BYTES_MAX} bytes, or leads through more than {DEPTH_MAX} directories"
    )]
    PathTooLong,
    /// The image needs more memory than there may be.
    #[error(
        "with it the image has more than {ENTRIES_MAX} entries, or more than 64 MiB of names, link targets and attributes"
    )]
    TooLarge,
    /// A parent is a file or something else that holds no entries.
    #[error("a parent of it is not a directory")]
    NotADirectory,
    /// Symbolic links go in a circle.
    #[error("more than {LINKS_FOLLOWED_MAX} symbolic links lead to it")]
    TooManyLinks,
    /// A hard link to nothing, or to a directory.
    #[error("it is a hard link to something that is not there or is a directory")]
    BadHardLink,
    /// The path names the root itself, which is a directory and stays one.
    #[error("it would replace the image's root")]
    Root,
}

/// The tree.
#[derive(Clone, Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
    layer: u32,
    /// Entries that were ever made, and the bytes of their names, targets and attributes: what was replaced stays in
    /// memory.
    made: usize,
    text: usize,
}

impl Default for Tree {
    fn default() -> Self {
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        Self {
            inodes: vec![Inode { kind: Kind::Directory(BTreeMap::new()), attributes }],
            layer: 0,
            made: 0,
            text: 0,
        }
    }
}

impl Tree {
    /// Begins the next layer.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// An inode of this tree.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id]
    }

    /// Puts an inode at `path`. A directory on a directory keeps its entries and takes the new attributes; anything
    /// else replaces what is there. A name that marks a whiteout hides instead.
    pub fn put(&mut self, path: &[u8], kind: Kind, attributes: Attributes) -> Result<(), TreeError> {
        let Some((parent, name)) = self.place(path)? else {
            if !matches!(kind, Kind::Directory(_)) {
                return Err(TreeError::Root);
            }
            self.inodes[ROOT].attributes = attributes;
            return Ok(());
        };
        if name == OPAQUE {
            self.prune(parent);
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            self.hide(parent, hidden);
            return Ok(());
        }
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

    /// Makes `path` another name of what `target` names.
    pub fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let inode = self
            .find(target)?
            .filter(|id| !matches!(self.inodes[*id].kind, Kind::Directory(_)))
            .ok_or(TreeError::BadHardLink)?;
        let (parent, name) = self.place(path)?.ok_or(TreeError::Root)?;
        self.count(&name, None)?;
        let layer = self.layer;
        self.entries_mut(parent).insert(name, Entry { inode, layer });
        Ok(())
    }

    /// What `path` names, without following a last symbolic link.
    pub fn find(&self, path: &[u8]) -> Result<Option<InodeId>, TreeError> {
        let mut components = components(path)?;
        let Some(name) = components.pop() else { return Ok(Some(ROOT)) };
        let mut follow = LINKS_FOLLOWED_MAX;
        let Some(parent) = self.walk(&components, &mut follow)? else { return Ok(None) };
        Ok(self.entries(parent).get(&name).map(|entry| entry.inode))
    }

    /// What `path` names, with every symbolic link followed inside the image.
    pub fn find_following(&self, path: &[u8]) -> Result<Option<InodeId>, TreeError> {
        self.walk_any(&components(path)?, &mut LINKS_FOLLOWED_MAX.clone())
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
            _ => unreachable!("every caller has an inode that `place` found to be a directory"),
        }
    }

    /// The directory that holds `path`, made if it is not there, and the name in it; `None` for the root.
    fn place(&mut self, path: &[u8]) -> Result<Option<(InodeId, Vec<u8>)>, TreeError> {
        let mut components = components(path)?;
        let Some(name) = components.pop() else { return Ok(None) };
        if let Some(parent) = self.walk(&components, &mut LINKS_FOLLOWED_MAX.clone())? {
            return Ok(Some((parent, name)));
        }
        for depth in 1..=components.len() {
            let (above, last) = (&components[..depth - 1], &components[depth - 1]);
            if self.walk_any(&components[..depth], &mut LINKS_FOLLOWED_MAX.clone())?.is_none() {
                let parent =
                    self.walk(above, &mut LINKS_FOLLOWED_MAX.clone())?.ok_or(TreeError::NotADirectory)?;
                self.count(last, None)?;
                let attributes = Attributes { mode: 0o755, ..Attributes::default() };
                self.inodes.push(Inode { kind: Kind::Directory(BTreeMap::new()), attributes });
                let (inode, layer) = (self.inodes.len() - 1, self.layer);
                self.entries_mut(parent).insert(last.clone(), Entry { inode, layer });
            }
        }
        let parent =
            self.walk(&components, &mut LINKS_FOLLOWED_MAX.clone())?.ok_or(TreeError::NotADirectory)?;
        Ok(Some((parent, name)))
    }

    /// Counts what is about to be made.
    fn count(&mut self, name: &[u8], inode: Option<(&Kind, &Attributes)>) -> Result<(), TreeError> {
        self.made += 1;
        self.text += name.len();
        if let Some((kind, attributes)) = inode {
            self.text += if let Kind::Symlink(target) = kind { target.len() } else { 0 };
            self.text +=
                attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        }
        if self.made > ENTRIES_MAX || self.text > TEXT_BYTES_MAX { Err(TreeError::TooLarge) } else { Ok(()) }
    }

    /// The directory at `components`; an error if something else is there.
    fn walk(&self, components: &[Vec<u8>], follow: &mut usize) -> Result<Option<InodeId>, TreeError> {
        match self.walk_any(components, follow)? {
            Some(id) if !matches!(self.inodes[id].kind, Kind::Directory(_)) => Err(TreeError::NotADirectory),
            found => Ok(found),
        }
    }

    fn walk_any(&self, components: &[Vec<u8>], follow: &mut usize) -> Result<Option<InodeId>, TreeError> {
        let mut stack = vec![ROOT];
        let mut open: Vec<Vec<u8>> = components.iter().rev().cloned().collect();
        while let Some(name) = open.pop() {
            let here = *stack.last().expect("the root is never popped");
            if name == b".." {
                // Reached through a link's target only; above the root is the root.
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            if !matches!(self.inodes[here].kind, Kind::Directory(_)) {
                return Err(TreeError::NotADirectory);
            }
            let Some(entry) = self.entries(here).get(&name) else { return Ok(None) };
            let Kind::Symlink(target) = &self.inodes[entry.inode].kind else {
                stack.push(entry.inode);
                if stack.len() > DEPTH_MAX {
                    return Err(TreeError::PathTooLong);
                }
                continue;
            };
            *follow = follow.checked_sub(1).ok_or(TreeError::TooManyLinks)?;
            if target.starts_with(b"/") {
                stack.truncate(1);
            }
            let parts = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
            open.extend(parts.rev().map(<[u8]>::to_vec));
        }
        Ok(stack.last().copied())
    }

    fn hide(&mut self, parent: InodeId, name: &[u8]) {
        let Some(entry) = self.entries(parent).get(name).cloned() else { return };
        self.prune(entry.inode);
        if entry.layer < self.layer && self.entries(entry.inode).is_empty() {
            self.entries_mut(parent).remove(name);
        }
    }

    /// Removes what lower layers brought from a directory; keeps what this layer brought, with its parents.
    fn prune(&mut self, directory: InodeId) {
        let children: Vec<(Vec<u8>, Entry)> =
            self.entries(directory).iter().map(|(name, entry)| (name.clone(), entry.clone())).collect();
        for (name, entry) in children {
            self.prune(entry.inode);
            if entry.layer < self.layer && self.entries(entry.inode).is_empty() {
                self.entries_mut(directory).remove(&name);
            }
        }
    }
}

fn components(path: &[u8]) -> Result<Vec<Vec<u8>>, TreeError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(TreeError::PathTooLong);
    }
    let mut components = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." {
            return Err(TreeError::Traversal);
        }
        if part.len() > NAME_BYTES_MAX {
            return Err(TreeError::NameTooLong);
        }
        components.push(part.to_vec());
    }
    Ok(components)
}
