//! Why an entry cannot be part of a tree.

use super::{
    ENTRIES_MAX,
    path::{NAME_BYTES_MAX, PATH_BYTES_MAX},
    walk::{LINKS_FOLLOWED_MAX, WALKED_MAX},
};

/// Why an entry cannot be part of the tree. The caller names layer and entry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// `..` in a path.
    #[error("its path has `..` in it")]
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
        "with it the image has more than {ENTRIES_MAX} entries, or more than 64 MiB of names, link targets and \
         attributes"
    )]
    TooLarge,
    /// A parent is a file or something else that holds no entries.
    #[error("a parent of it is not a directory")]
    NotADirectory,
    /// Symbolic links go in a circle.
    #[error("more than {LINKS_FOLLOWED_MAX} symbolic links lead to it")]
    TooManyLinks,
    /// Symbolic links lead through each other, again and again.
    #[error(
        "with it the paths of the image have more than {WALKED_MAX} names, those in links' targets counted"
    )]
    TooFar,
    /// A hard link to nothing, or to a directory.
    #[error("it is a hard link to something that is not there or is a directory")]
    BadHardLink,
    /// The path names the root itself, which is a directory and stays one.
    #[error("it would replace the image's root")]
    Root,
}
