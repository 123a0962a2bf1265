//! ext4 file systems, made by the system's own `mke2fs`.

use std::{ffi::OsString, io, path::Path};

use super::Partition;
use crate::programs::{self, MKE2FS};

/// Why a file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MkfsError {
    /// The program is not there.
    #[error("mke2fs is not installed: install the package e2fsprogs on the machine that prepares the disk")]
    Missing(#[source] io::Error),
    /// The program said no.
    #[error("make the {label} file system with mke2fs: {output}")]
    Failed {
        /// The file system's label.
        label: String,
        /// What the program said.
        output: String,
    },
}

/// Makes an ext4 file system in a partition, with the files below `content` in it.
pub fn ext4(partition: &Partition, label: &str, content: Option<&Path>) -> Result<(), MkfsError> {
    let mut options: Vec<OsString> =
        ["-q", "-F", "-t", "ext4", "-m", "1", "-b", "4096", "-L", label].map(OsString::from).to_vec();
    options.extend(["-E".into(), format!("offset={},root_owner=0:0", partition.offset).into()]);
    if let Some(folder) = content {
        options.extend(["-d".into(), folder.into()]);
    }
    options.extend([partition.path.as_os_str().to_owned(), format!("{}k", partition.length >> 10).into()]);
    let output = programs::run(MKE2FS, &options).map_err(MkfsError::Missing)?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(MkfsError::Failed { label: label.to_owned(), output })
}
