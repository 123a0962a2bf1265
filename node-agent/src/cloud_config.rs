//! The machine's own cloud-config: a small part of cloud-init's format, kept on the oem partition and applied at each
//! boot.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::layout::Role;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::Deserialize;

use crate::disk::{Disk, DiskError};

/// Name of the file on the oem partition.
pub const FILE_NAME: &str = "cloud-config.yaml";
const HEADER: &str = "#cloud-config";
const MOUNT_POINTS: &str = "/run/evenkeel";
const MODE_DEFAULT: u32 = 0o644;
const MODE_MAX: u32 = 0o7777;

/// What a cloud-config may say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudConfig {
    /// Name of the machine.
    pub hostname: Option<String>,
    /// Files to write.
    #[serde(default)]
    pub write_files: Vec<WriteFile>,
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    /// Absolute path.
    pub path: PathBuf,
    /// Its bytes, as text.
    #[serde(default)]
    pub content: String,
    /// Octal mode, `0644` if absent.
    pub permissions: Option<String>,
}

/// Why a cloud-config could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CloudConfigError {
    /// Not a cloud-config.
    #[error("the cloud-config does not begin with the line `{HEADER}`")]
    NoHeader,
    /// Not in the format, or more than is supported.
    #[error(
        "the cloud-config cannot be used: {0}. Supported keys are hostname and write_files with path, content and \
         permissions"
    )]
    Format(String),
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
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl CloudConfig {
    /// Reads and checks a cloud-config.
    pub fn parse(text: &str) -> Result<Self, CloudConfigError> {
        if text.lines().next().map(str::trim_end) != Some(HEADER) {
            return Err(CloudConfigError::NoHeader);
        }
        let wrong = CloudConfigError::Format;
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let config: Self = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for file in &config.write_files {
            if !file.path.is_absolute() {
                return Err(wrong(format!("the path {} is not absolute", file.path.display())));
            }
            file.mode().map_err(wrong)?;
        }
        match &config.hostname {
            Some(name) if !is_host_name(name) => Err(wrong(format!("{name:?} is not a host name"))),
            _ => Ok(config),
        }
    }

    /// Makes the files below `root` what the config says; those that are so already are not written. Tells which were.
    pub fn apply(&self, root: &Path) -> Result<Vec<PathBuf>, CloudConfigError> {
        let mut written = Vec::new();
        let host_name = self.hostname.iter().map(|name| WriteFile {
            path: "/etc/hostname".into(),
            content: format!("{name}\n"),
            permissions: None,
        });
        for file in host_name.chain(self.write_files.iter().cloned()) {
            let path = root.join(file.path.strip_prefix("/").unwrap_or(&file.path));
            let mode = file.mode().map_err(CloudConfigError::Format)?;
            let failed = |source| CloudConfigError::Io { operation: "write", path: path.clone(), source };
            if replace(&path, file.content.as_bytes(), mode).map_err(failed)? {
                written.push(file.path);
            }
        }
        Ok(written)
    }
}

impl WriteFile {
    fn mode(&self) -> Result<u32, String> {
        let Some(text) = &self.permissions else { return Ok(MODE_DEFAULT) };
        u32::from_str_radix(text.trim_start_matches("0o"), 8)
            .ok()
            .filter(|mode| *mode <= MODE_MAX)
            .ok_or_else(|| format!("the permissions {text:?} are not an octal mode such as '0644'"))
    }
}

/// Reads the cloud-config of the machine from its disk; `None` when it has none.
pub fn read(disk: &Disk) -> Result<Option<CloudConfig>, CloudConfigError> {
    let device = &disk.partition(Role::Oem)?.path;
    let failed = |source: io::Error| CloudConfigError::Mount { path: device.clone(), source };
    fs::create_dir_all(MOUNT_POINTS).map_err(failed)?;
    let folder = tempfile::Builder::new().prefix("oem-").tempdir_in(MOUNT_POINTS).map_err(failed)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(device), folder.path(), Some("ext4"), flags, None::<&str>).map_err(|e| failed(e.into()))?;
    let path = folder.path().join(FILE_NAME);
    let text = fs::read_to_string(&path);
    umount2(folder.path(), MntFlags::MNT_DETACH).map_err(|error| failed(error.into()))?;
    match text {
        Ok(text) => CloudConfig::parse(&text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CloudConfigError::Io { operation: "read", path, source }),
    }
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let same_mode = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & MODE_MAX == mode);
    if same_mode && fs::read(path).is_ok_and(|there| there == content) {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(content)?;
    new.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    Ok(true)
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "#cloud-config\nhostname: node-1\nwrite_files:\n- path: /etc/kubernetes/x.conf\n  content: \
                           |\n    one\n  permissions: '0600'\n";

    #[test]
    fn applies_once_and_then_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let config = CloudConfig::parse(EXAMPLE).unwrap();
        assert_eq!(config.apply(root.path()).unwrap().len(), 2);
        assert_eq!(config.apply(root.path()).unwrap(), Vec::<PathBuf>::new());
        let file = root.path().join("etc/kubernetes/x.conf");
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "two").unwrap();
        assert_eq!(config.apply(root.path()).unwrap(), [PathBuf::from("/etc/kubernetes/x.conf")]);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, expected) in [
            ("hostname: a", "#cloud-config"),
            ("#cloud-config\nruncmd: [reboot]", "runcmd"),
            ("#cloud-config\nwrite_files: [{path: a}]", "not absolute"),
            ("#cloud-config\nwrite_files: [{path: /a, permissions: rw}]", "octal"),
            ("#cloud-config\nhostname: 'a b'", "not a host name"),
        ] {
            let message = CloudConfig::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        assert_eq!(CloudConfig::parse("#cloud-config\n").unwrap(), CloudConfig::default());
    }
}
