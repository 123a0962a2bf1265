//! The tree that an image's layers add up to, as the OCI image specification (layer.md) says.
//!
//! Layers are applied base first. Within one layer the order of entries does not matter for whiteouts: they hide only
//! what lower layers brought. Where the specification is silent: a symbolic link in a path is followed inside the image,
//! also to what is not there yet; a directory that only a path implies belongs to root, with mode 0755 and time 0, as
//! does one whose own entry is hidden while something below it is not; a whiteout below what is not there does nothing.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

/// Index of an inode in its tree.
pub type InodeId = usize;
/// The root directory.
pub const ROOT: InodeId = 0;
/// Bytes of a file name, as every Linux file system has it.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of an absolute path, as the kernel has it, without its end. Nobody could name what lies deeper; so it is a
/// limit on depth too.
const PATH_BYTES_MAX: usize = 4095;
/// Entries of a whole image. The largest systems have some 300 000, and each takes about 450 bytes of memory here.
const ENTRIES_MAX: usize = 800_000;
/// Bytes of all names, link targets and attributes: 80 for each entry, were there so many.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Symbolic links that are followed in one path, as the kernel has it.
const LINKS_FOLLOWED_MAX: usize = 40;
const WHITEOUT: &[u8] = b".wh.";
/// What an opaque marker hides by its name: it is called `.wh..wh..opq`.
const OPAQUE: &[u8] = b".wh..opq";

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
    /// A name with a byte that ends it for every program.
    #[error("its path holds a zero byte")]
    ZeroByte,
    /// A symbolic link that no kernel would make.
    #[error("its link target is empty, has more than {PATH_BYTES_MAX} bytes, or holds a zero byte")]
    BadTarget,
    /// Whiteouts are names, and nothing lies below them.
    #[error("its path leads through a name that begins with `.wh.`, which only whiteouts have")]
    BelowWhiteout,
    /// A path is too long.
    #[error("its path, or the path that links make of it, has more than {PATH_BYTES_MAX} bytes")]
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
    /// Directories that hold nothing of lower layers any more: a second look would find nothing, and cost as much.
    pruned: BTreeSet<InodeId>,
}

/// A path's names, from the root on.
type Names = Vec<Vec<u8>>;

/// Where a path leads.
struct Walk {
    /// The last inode that is there.
    here: InodeId,
    /// The names behind it that are not.
    missing: Names,
    /// Bytes of the path, with a slash before each name.
    bytes: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self { inodes: vec![implied()], layer: 0, made: 0, text: 0, pruned: BTreeSet::new() }
    }
}

/// A directory of which no entry tells.
fn implied() -> Inode {
    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
    Inode { kind: Kind::Directory(BTreeMap::new()), attributes }
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
        let walk = self.walk(&above)?;
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
        let walk = self.walk(&components(path)?)?;
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
            self.inodes.push(implied());
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
        }
        if self.made > ENTRIES_MAX || self.text > TEXT_BYTES_MAX { Err(TreeError::TooLarge) } else { Ok(()) }
    }

    /// Follows a path from the root, and every symbolic link in it. Names after the first that is not there are not
    /// there either; `..` in a link's target takes them back.
    fn walk(&self, path: &[Vec<u8>]) -> Result<Walk, TreeError> {
        // What is there, each with the bytes of its path.
        let mut stack = vec![(ROOT, 0)];
        let mut missing = Names::new();
        let mut follow = LINKS_FOLLOWED_MAX;
        let mut open: Names = path.iter().rev().cloned().collect();
        while let Some(name) = open.pop() {
            let (here, bytes) = *stack.last().expect("the root is never popped");
            if name == b".." {
                // Reached through a link's target only; above the root is the root.
                if missing.pop().is_none() && stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            if !self.is_directory(here) {
                return Err(TreeError::NotADirectory);
            }
            let known = if missing.is_empty() { self.entries(here).get(&name) } else { None };
            let Some(entry) = known else {
                missing.push(name);
                continue;
            };
            let Kind::Symlink(target) = &self.inodes[entry.inode].kind else {
                stack.push((entry.inode, bytes + 1 + name.len()));
                continue;
            };
            follow = follow.checked_sub(1).ok_or(TreeError::TooManyLinks)?;
            if target.starts_with(b"/") {
                stack.truncate(1);
            }
            let parts = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
            open.extend(parts.rev().map(<[u8]>::to_vec));
        }
        let (here, bytes) = *stack.last().expect("the root is never popped");
        let bytes = bytes + missing.iter().map(|name| 1 + name.len()).sum::<usize>();
        Ok(Walk { here, missing, bytes })
    }

    /// Hides what lower layers brought at `name` in a directory, or all of the directory's when it is the opaque marker.
    fn whiteout(&mut self, above: &[Vec<u8>], name: &[u8]) -> Result<(), TreeError> {
        let walk = match self.walk(above) {
            Err(TreeError::NotADirectory | TreeError::TooManyLinks) => return Ok(()),
            walk => walk?,
        };
        if !walk.missing.is_empty() {
            return Ok(());
        }
        if name == OPAQUE {
            self.prune(walk.here);
        } else if let Some(entry) = self.entries(walk.here).get(name).cloned() {
            self.hide(walk.here, name, &entry);
        }
        Ok(())
    }

    /// Removes what lower layers brought from a directory; keeps what this layer brought, with its parents.
    fn prune(&mut self, directory: InodeId) {
        if !self.is_directory(directory) || !self.pruned.insert(directory) {
            return;
        }
        let children: Vec<(Vec<u8>, Entry)> =
            self.entries(directory).iter().map(|(name, entry)| (name.clone(), entry.clone())).collect();
        for (name, entry) in children {
            self.hide(directory, &name, &entry);
        }
    }

    fn hide(&mut self, directory: InodeId, name: &[u8], entry: &Entry) {
        self.prune(entry.inode);
        if entry.layer == self.layer {
            return;
        }
        if self.entries(entry.inode).is_empty() {
            self.entries_mut(directory).remove(name);
        } else {
            // What is left below it came with this layer, and implies it, whichever of them was read first.
            self.inodes[entry.inode].attributes = implied().attributes;
            let layer = self.layer;
            self.entries_mut(directory).insert(name.to_vec(), Entry { inode: entry.inode, layer });
        }
    }
}

/// The names of a path's directory, and its own; none for the root.
fn split(path: &[u8]) -> Result<(Names, Option<Vec<u8>>), TreeError> {
    let mut above = components(path)?;
    let name = above.pop();
    Ok((above, name))
}

fn components(path: &[u8]) -> Result<Names, TreeError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(TreeError::PathTooLong);
    }
    let mut components = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." {
            return Err(TreeError::Traversal);
        }
        // The name that a whiteout hides may be as long as any.
        if part.strip_prefix(WHITEOUT).unwrap_or(part).len() > NAME_BYTES_MAX {
            return Err(TreeError::NameTooLong);
        }
        if part.contains(&0) {
            return Err(TreeError::ZeroByte);
        }
        components.push(part.to_vec());
    }
    Ok(components)
}
