//! What an upper layer hides of lower ones.

use super::{Entry, Inode, InodeId, Tree, TreeError};

/// What an opaque marker hides by its name: it is called `.wh..wh..opq`.
const OPAQUE: &[u8] = b".wh..opq";

impl Tree {
    /// Hides what lower layers brought at `name` in a directory, or all of the directory's when it is the opaque
    /// marker.
    pub(super) fn whiteout(&mut self, above: &[Vec<u8>], name: &[u8]) -> Result<(), TreeError> {
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
            self.inodes[entry.inode].attributes = Inode::implied().attributes;
            let layer = self.layer;
            self.entries_mut(directory).insert(name.to_vec(), Entry { inode: entry.inode, layer });
        }
    }
}
