//! Paths as layers write them.

use super::TreeError;

/// Bytes of a file name, as every Linux file system has it.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of an absolute path, as the kernel has it, without its end. Nobody could name what lies deeper; so it is a
/// limit on depth too.
pub(super) const PATH_BYTES_MAX: usize = 4095;
/// What a name begins with that hides another.
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// A path's names, from the root on.
pub(super) type Names = Vec<Vec<u8>>;

/// The names of a path's directory, and its own; none for the root.
pub(super) fn split(path: &[u8]) -> Result<(Names, Option<Vec<u8>>), TreeError> {
    let mut above = components(path)?;
    let name = above.pop();
    Ok((above, name))
}

pub(super) fn components(path: &[u8]) -> Result<Names, TreeError> {
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
