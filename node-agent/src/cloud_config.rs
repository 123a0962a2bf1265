//! The machine's cloud-config, applied at each boot: its own, which is kept on the oem partition, and the cluster's, which is
//! kept in the slot with the image. What documents may say is the core's.

mod apply;
mod cluster;
mod files;
pub mod live;
mod mounted;
mod once;
pub mod sources;
mod system;
mod users;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::{
    cloud_config::{CloudConfig, DOCUMENT_BYTES_MAX, parse},
    layout::Role,
};

use crate::{
    causes::with_causes,
    disk::{Disk, DiskError, Partition, RegionError},
};

pub use apply::{Applied, Machine};
pub use cluster::{is_applied, note_applied, of_the_cluster, parsed};

/// Name of the document that an installation puts on the oem partition.
pub const FILE_NAME: &str = "cloud-config.yaml";
/// Documents of one machine; Elemental's users have some ten.
pub const DOCUMENTS_MAX: usize = 100;

/// Why a cloud-config could not be used or applied.
#[derive(Debug, thiserror::Error)]
pub enum CloudConfigError {
    /// A document is not in the format.
    #[error("{name}: {source}")]
    Document {
        /// The document.
        name: String,
        /// Why.
        source: evenkeel_node_agent_core::cloud_config::CloudConfigError,
    },
    /// The oem partition did not answer.
    #[error("mount the oem partition {path}: check the disk")]
    Mount {
        /// The partition.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("{operation} {path}")]
    Io {
        /// `read`, `write`, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program did not do what it was for.
    #[error("`{words}` ended with {status}; what it said is above")]
    Program {
        /// Its name and options.
        words: String,
        /// How it ended.
        status: String,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Impossible(String),
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A slot cannot be read.
    #[error(transparent)]
    Region(#[from] RegionError),
}

impl CloudConfigError {
    /// Makes the error of a file.
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

/// What the documents of the machine's oem partition say, in the order of their names; those that are damaged are told and
/// left out.
pub fn read(disk: &Disk) -> Result<CloudConfig, CloudConfigError> {
    let device = &disk.partition(Role::Oem)?.path;
    let failed = |source: io::Error| CloudConfigError::Mount { path: device.clone(), source };
    mounted::with(device, "ext4", "oem", read_folder).map_err(failed)?
}

/// Puts a document onto an oem partition that the kernel knows, in the place of the one of an installation before, in one step:
/// a power cut leaves either. What else is there stays. `None` if the partition cannot be mounted.
pub fn replace(oem: &Partition, text: &str) -> Option<io::Result<()>> {
    let write = |folder: &Path| {
        let new = folder.join(format!("{FILE_NAME}.new"));
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, folder.join(FILE_NAME))?;
        File::open(folder)?.sync_all()
    };
    let written = mounted::to_write(&oem.path, "ext4", "oem", write);
    written.inspect_err(|error| tracing::debug!(%error, "the oem partition cannot be mounted")).ok()
}

/// What the documents in a folder say, as [`read`] gives it.
pub fn read_folder(folder: &Path) -> Result<CloudConfig, CloudConfigError> {
    let (paths, too_many) = documents(folder)?;
    for path in too_many {
        tracing::error!(document = %path.display(), "left out: it comes behind the first {DOCUMENTS_MAX} documents");
    }
    let mut config = CloudConfig::default();
    for path in paths {
        match read_document(&path) {
            Ok(document) => config.append(document),
            Err(error) => tracing::error!(error = with_causes(&error.into()), "left out"),
        }
    }
    Ok(config)
}

/// The documents in a folder, in the order of their names; and those that are too many, which no machine applies.
pub fn documents(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), CloudConfigError> {
    let failed = CloudConfigError::io("list", folder);
    let all = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
    let mut paths: Vec<PathBuf> =
        all.into_iter().map(|entry| entry.path()).filter(|path| is_document(path)).collect();
    paths.sort();
    let too_many = paths.split_off(paths.len().min(DOCUMENTS_MAX));
    Ok((paths, too_many))
}

fn is_document(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|end| end == "yaml" || end == "yml")
}

fn read_document(path: &Path) -> Result<CloudConfig, CloudConfigError> {
    let length = fs::metadata(path).map_err(CloudConfigError::io("read", path))?.len();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if length > DOCUMENT_BYTES_MAX as u64 {
        return Err(CloudConfigError::Impossible(format!(
            "{name} has {length} bytes: put large files into an image"
        )));
    }
    let text = fs::read_to_string(path).map_err(CloudConfigError::io("read", path))?;
    document(&name, &text)
}

/// What a document says; keys that are not known are told.
fn document(name: &str, text: &str) -> Result<CloudConfig, CloudConfigError> {
    let parsed =
        parse(text).map_err(|source| CloudConfigError::Document { name: name.to_owned(), source })?;
    for key in parsed.unknown {
        tracing::warn!(document = name, key, "not supported, and left out");
    }
    Ok(parsed.config)
}
