//! What layers add up to, said a second time: a flat list of paths, written from the OCI image specification's layer.md
//! and from what builders do where it is silent. Shares nothing with the agent's tree.

use std::collections::BTreeMap;

use evenkeel_node_agent_core::digest::hex;
use sha2::{Digest as _, Sha256};

use crate::tar_bytes::{Item, What};

/// Path without slashes at its ends; empty for the root.
pub type Path = Vec<u8>;

/// What somebody who looks sees at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub is: Is,
    pub mode: u32,
    pub owner: (u32, u32),
    pub time: (i64, i64),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub links: u64,
    /// The first path of the same inode.
    pub same_as: Path,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Is {
    Directory,
    File { length: u64, sha256: String },
    Symlink(Vec<u8>),
    Char(u64, u64),
    Block(u64, u64),
    Fifo,
}

/// A reason not to have an entry in a valid image.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid;

#[derive(Clone, Debug)]
struct Node {
    inode: usize,
    layer: usize,
}

/// The sum of the layers so far.
#[derive(Clone, Debug)]
pub struct Oracle {
    paths: BTreeMap<Path, Node>,
    inodes: Vec<Seen>,
    layer: usize,
}

fn implied() -> Seen {
    let is = Is::Directory;
    Seen {
        is,
        mode: 0o755,
        owner: (0, 0),
        time: (0, 0),
        xattrs: BTreeMap::new(),
        links: 0,
        same_as: Vec::new(),
    }
}

fn join(above: &[u8], name: &[u8]) -> Path {
    if above.is_empty() { name.to_vec() } else { [above, b"/", name].concat() }
}

fn above(path: &[u8]) -> Path {
    path.iter().rposition(|byte| *byte == b'/').map_or(Vec::new(), |at| path[..at].to_vec())
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    if directory.is_empty() {
        return !path.is_empty();
    }
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(<[u8]>::to_vec).collect()
}

impl Default for Oracle {
    fn default() -> Self {
        let root = (Vec::new(), Node { inode: 0, layer: 0 });
        Self { paths: BTreeMap::from([root]), inodes: vec![implied()], layer: 0 }
    }
}

impl Oracle {
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// Takes an entry, or says that no valid image has it here; then nothing has changed.
    pub fn apply(&mut self, item: &Item) -> Result<(), Invalid> {
        let mut parts = parts(&item.path);
        let Some(name) = parts.pop() else {
            if item.what != What::Directory {
                return Err(Invalid);
            }
            self.inodes[0] = seen(item);
            return Ok(());
        };
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            if let Some(directory) = self.resolve(&parts).ok().filter(|path| self.is_directory(path)) {
                if name == b".wh..wh..opq" {
                    self.hide(|path| is_below(path, &directory));
                } else {
                    let victim = join(&directory, hidden);
                    self.hide(|path| path == victim || is_below(path, &victim));
                }
            }
            return Ok(());
        }
        let directory = self.resolve(&parts)?;
        let path = join(&directory, &name);
        // Without its first slash.
        if path.len() > 4094
            || name.len() > 255
            || self.paths.contains_key(&directory) && !self.is_directory(&directory)
        {
            return Err(Invalid);
        }
        let inode = if let What::HardLink(target) = &item.what { self.link_target(target)? } else { 0 };
        self.imply(&directory);
        match &item.what {
            What::HardLink(_) => self.replace(path, inode),
            What::Directory if self.is_directory(&path) => {
                let layer = self.layer;
                let node = self.paths.get_mut(&path).unwrap();
                node.layer = layer;
                self.inodes[node.inode] = seen(item);
            }
            _ => {
                self.inodes.push(seen(item));
                self.replace(path, self.inodes.len() - 1);
            }
        }
        Ok(())
    }

    /// All paths, as a kernel shows them.
    pub fn sum(&self) -> BTreeMap<Path, Seen> {
        let mut names: BTreeMap<usize, Vec<&Path>> = BTreeMap::new();
        for (path, node) in &self.paths {
            names.entry(node.inode).or_default().push(path);
        }
        let subdirectories = |directory: &Path| {
            let inside = self.paths.keys().filter(|path| !path.is_empty() && above(path) == *directory);
            inside.filter(|path| self.is_directory(path)).count() as u64
        };
        let seen = |(path, node): (&Path, &Node)| {
            let mut seen = self.inodes[node.inode].clone();
            seen.same_as.clone_from(names[&node.inode][0]);
            seen.links = match seen.is {
                Is::Directory => 2 + subdirectories(path),
                _ => names[&node.inode].len() as u64,
            };
            (path.clone(), seen)
        };
        self.paths.iter().map(seen).collect()
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        self.paths.get(path).is_some_and(|node| self.inodes[node.inode].is == Is::Directory)
    }

    fn link_target(&self, target: &[u8]) -> Result<usize, Invalid> {
        let mut parts = parts(target);
        let name = parts.pop().ok_or(Invalid)?;
        let path = join(&self.resolve(&parts)?, &name);
        let node = self.paths.get(&path).filter(|_| !self.is_directory(&path)).ok_or(Invalid)?;
        Ok(node.inode)
    }

    /// Where a path leads inside the image; links on the way are followed, also to what is not there.
    fn resolve(&self, path: &[Vec<u8>]) -> Result<Path, Invalid> {
        let mut todo: Vec<Vec<u8>> = path.to_vec();
        let mut here: Path = Vec::new();
        let mut links = 0;
        while !todo.is_empty() {
            let part = todo.remove(0);
            if part == b".." {
                here = above(&here);
                continue;
            }
            if part.len() > 255 || part.starts_with(b".wh.") {
                return Err(Invalid);
            }
            if self.paths.contains_key(&here) && !self.is_directory(&here) {
                return Err(Invalid);
            }
            let next = join(&here, &part);
            match self.paths.get(&next).map(|node| &self.inodes[node.inode].is) {
                Some(Is::Symlink(target)) => {
                    links += 1;
                    if links > 40 {
                        return Err(Invalid);
                    }
                    if target.starts_with(b"/") {
                        here = Vec::new();
                    }
                    todo.splice(..0, parts(target));
                }
                _ => here = next,
            }
        }
        if self.paths.contains_key(&here) && !self.is_directory(&here) { Err(Invalid) } else { Ok(here) }
    }

    /// Whiteouts hide what lower layers brought; what this one brought keeps its place.
    fn hide(&mut self, hidden: impl Fn(&[u8]) -> bool) {
        let layer = self.layer;
        self.paths.retain(|path, node| !hidden(path) || node.layer == layer);
        let kept: Vec<Path> = self.paths.keys().map(|path| above(path)).collect();
        for directory in kept {
            self.imply(&directory);
        }
    }

    fn imply(&mut self, directory: &[u8]) {
        if self.paths.contains_key(directory) {
            return;
        }
        self.imply(&above(directory));
        self.inodes.push(implied());
        self.paths.insert(directory.to_vec(), Node { inode: self.inodes.len() - 1, layer: self.layer });
    }

    fn replace(&mut self, path: Path, inode: usize) {
        if self.is_directory(&path) {
            self.paths.retain(|other, _| !is_below(other, &path));
        }
        self.paths.insert(path, Node { inode, layer: self.layer });
    }
}

fn seen(item: &Item) -> Seen {
    let is = match &item.what {
        What::Directory => Is::Directory,
        What::File(content) => {
            Is::File { length: content.length as u64, sha256: hex(&Sha256::digest(content.bytes())) }
        }
        What::Symlink(target) => Is::Symlink(target.clone()),
        What::Char(major, minor) => Is::Char(u64::from(*major), u64::from(*minor)),
        What::Block(major, minor) => Is::Block(u64::from(*major), u64::from(*minor)),
        What::Fifo => Is::Fifo,
        What::HardLink(_) => unreachable!("a hard link is another name and has nothing of its own"),
    };
    Seen {
        is,
        mode: u32::from(item.mode),
        owner: item.owner,
        time: (item.time.0, i64::from(item.time.1)),
        xattrs: item.xattrs.clone(),
        links: 0,
        same_as: Vec::new(),
    }
}
