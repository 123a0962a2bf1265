//! Where a path leads.

use super::{ENTRIES_MAX, InodeId, Kind, ROOT, Tree, TreeError, path::Names};

/// Symbolic links that are followed in one path, as the kernel has it.
pub(super) const LINKS_FOLLOWED_MAX: usize = 40;

/// Names that are followed for all paths of an image, those in links' targets too: 64 for each entry that there may be. Links that
/// lead through each other make some 30 000 of one short path.
pub(super) const WALKED_MAX: usize = 64 * ENTRIES_MAX;

/// Where a path leads.
pub(super) struct Walk {
    /// The last inode that is there.
    pub(super) here: InodeId,
    /// The names behind it that are not.
    pub(super) missing: Names,
    /// Bytes of the path, with a slash before each name.
    pub(super) bytes: usize,
}

impl Tree {
    /// Follows a path to where an entry is to be.
    pub(super) fn walk(&mut self, path: &[Vec<u8>]) -> Result<Walk, TreeError> {
        let mut walked = self.walked;
        let walk = self.follow(path, &mut walked);
        self.walked = walked;
        walk
    }

    /// Follows a path to what is there.
    pub(super) fn look(&self, path: &[Vec<u8>]) -> Result<Walk, TreeError> {
        self.follow(path, &mut 0)
    }

    /// Follows a path from the root, and every symbolic link in it. Names after the first that is not there are not
    /// there either; `..` in a link's target takes them back.
    fn follow(&self, path: &[Vec<u8>], walked: &mut usize) -> Result<Walk, TreeError> {
        // What is there, each with the bytes of its path.
        let mut stack = vec![(ROOT, 0)];
        let mut missing = Names::new();
        let mut follow = LINKS_FOLLOWED_MAX;
        let mut open: Names = path.iter().rev().cloned().collect();
        while let Some(name) = open.pop() {
            *walked += 1;
            if *walked > WALKED_MAX {
                return Err(TreeError::TooFar);
            }
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
}
