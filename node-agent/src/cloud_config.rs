//! The machine's cloud-config, applied at each boot: its own, which is kept on the oem partition, and the cluster's, which is
//! kept in the slot with the image. What documents may say is the core's.

mod apply;
mod files;
mod once;
mod system;
mod users;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::{
    cloud_config::{CloudConfig, DOCUMENT_BYTES_MAX, parse},
    layout::Role,
    machine::RunningSlot,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::disk::{Disk, DiskError};

pub use apply::{Applied, Machine};

/// Name of the document that an installation puts on the oem partition.
pub const FILE_NAME: &str = "cloud-config.yaml";
const MOUNT_POINTS: &str = "/run/evenkeel";
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
    fs::create_dir_all(MOUNT_POINTS).map_err(failed)?;
    let folder = tempfile::Builder::new().prefix("oem-").tempdir_in(MOUNT_POINTS).map_err(failed)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(device), folder.path(), Some("ext4"), flags, None::<&str>).map_err(|e| failed(e.into()))?;
    let config = read_folder(folder.path());
    umount2(folder.path(), MntFlags::MNT_DETACH).map_err(|error| failed(error.into()))?;
    config
}

/// The same of the documents in a folder.
pub fn read_folder(folder: &Path) -> Result<CloudConfig, CloudConfigError> {
    let (paths, too_many) = documents(folder)?;
    for path in too_many {
        tracing::error!(document = %path.display(), "left out: it comes behind the first {DOCUMENTS_MAX} documents");
    }
    let mut config = CloudConfig::default();
    for path in paths {
        match read_document(&path) {
            Ok(document) => config.append(document),
            Err(error) => tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "left out"),
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

/// What the cluster's document says that came with the slot that runs; one that cannot be had or is damaged is told and left
/// out.
pub fn of_the_cluster(disk: &Disk, running: &RunningSlot) -> CloudConfig {
    let slot = &running.name;
    let document =
        match disk.slot(slot).map_err(anyhow::Error::from).and_then(|region| Ok(region.read_record()?)) {
            Ok(record) if record.release() == running.digest => record.cloud_config,
            Ok(record) => {
                let (found, runs) = (record.release(), &running.digest);
                tracing::error!(
                    slot,
                    found,
                    runs,
                    "the cluster's cloud-config is left out: the slot is of another image"
                );
                None
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    slot,
                    error,
                    "the cluster's cloud-config is left out: its slot's record cannot be read"
                );
                None
            }
        };
    document.map_or_else(CloudConfig::default, |document| {
        parsed("the cluster's", &document).unwrap_or_else(|error| {
            tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "left out");
            CloudConfig::default()
        })
    })
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
    parsed(&name, &text)
}

fn parsed(name: &str, text: &str) -> Result<CloudConfig, CloudConfigError> {
    let parsed =
        parse(text).map_err(|source| CloudConfigError::Document { name: name.to_owned(), source })?;
    for key in parsed.unknown {
        tracing::warn!(document = name, key, "not supported, and left out");
    }
    Ok(parsed.config)
}
