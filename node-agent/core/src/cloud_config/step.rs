//! One step: what is to be true after it. The names are yip's.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::condition;

/// Where `environment` goes without an `environment_file`.
pub const ENVIRONMENT_FILE: &str = "/etc/environment";
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
const MODE_MAX: u32 = 0o7777;

/// A step. What it says is done in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Step {
    /// What people call it.
    pub name: String,
    /// Words for `/bin/sh -c` that have to end with 0, or the step is left out.
    #[serde(rename = "if")]
    pub only_if: Option<String>,
    /// A regular expression for the system's name: `ID` or `NAME` of os-release. It may match anywhere, as in yip.
    pub only_os: Option<String>,
    /// The same for its `VERSION_ID`.
    pub only_os_version: Option<String>,
    /// The same for the machine's host name.
    pub node: Option<String>,
    /// Folders that are there.
    pub directories: Vec<Directory>,
    /// Files with their content.
    pub files: Vec<File>,
    /// Words for `/bin/sh -c`.
    pub commands: Vec<String>,
    /// Name of the machine.
    pub hostname: Option<String>,
    /// Kernel parameters, as `net.ipv4.ip_forward: "1"`.
    pub sysctl: BTreeMap<String, String>,
    /// Users by name.
    pub users: BTreeMap<String, Account>,
    /// SSH keys by the name of the user.
    pub authorized_keys: BTreeMap<String, Vec<String>>,
    /// Kernel modules.
    pub modules: Vec<String>,
    /// The section `Time` of timesyncd's configuration.
    pub timesyncd: BTreeMap<String, String>,
    /// Units.
    pub systemctl: Systemctl,
    /// Variables of the file below.
    pub environment: BTreeMap<String, String>,
    /// The file; [`ENVIRONMENT_FILE`] if absent.
    pub environment_file: Option<PathBuf>,
    /// Whether it is done once on a machine, and not at each boot.
    #[serde(skip)]
    pub once: bool,
}

/// A folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Directory {
    /// Absolute path.
    pub path: PathBuf,
    /// Octal mode, `0755` if absent.
    pub permissions: Option<String>,
    /// User ID.
    pub owner: Option<u32>,
    /// Group ID.
    pub group: Option<u32>,
}

/// A file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct File {
    /// Absolute path.
    pub path: PathBuf,
    /// Octal mode, `0644` if absent.
    pub permissions: Option<String>,
    /// Its bytes, as text.
    pub content: String,
    /// How they are written here: nothing, or `base64` (`b64`).
    pub encoding: Encoding,
    /// User ID.
    pub owner: Option<u32>,
    /// Group ID.
    pub group: Option<u32>,
}

/// The form of a file's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Encoding {
    /// As it is.
    #[default]
    #[serde(rename = "", alias = "text/plain")]
    Plain,
    /// Base64.
    #[serde(rename = "base64", alias = "b64")]
    Base64,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Account {
    /// The password as `/etc/shadow` has it, such as `$6$…`.
    #[serde(alias = "hashed_passwd")]
    pub passwd: Option<String>,
    /// Whether no password opens it.
    pub lock_passwd: bool,
    /// User ID.
    pub uid: Option<u32>,
    /// The person.
    pub gecos: Option<String>,
    /// Home folder.
    #[serde(alias = "home")]
    pub homedir: Option<PathBuf>,
    /// Whether it has none.
    pub no_create_home: bool,
    /// Whether it is a service's.
    pub system: bool,
    /// Shell.
    pub shell: Option<PathBuf>,
    /// Its first group; one of its own name if absent.
    pub primary_group: Option<String>,
    /// The other groups.
    pub groups: Vec<String>,
    /// SSH keys that may log in as it.
    pub ssh_authorized_keys: Vec<String>,
}

/// What is done with units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Systemctl {
    /// Started at each boot.
    pub enable: Vec<String>,
    /// Not so.
    pub disable: Vec<String>,
    /// Not startable.
    pub mask: Vec<String>,
    /// Started now.
    pub start: Vec<String>,
}

impl Directory {
    /// The mode.
    pub fn mode(&self) -> Result<u32, String> {
        octal(self.permissions.as_deref(), DIRECTORY_MODE)
    }
}

impl File {
    /// The mode.
    pub fn mode(&self) -> Result<u32, String> {
        octal(self.permissions.as_deref(), FILE_MODE)
    }

    /// The bytes.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        match self.encoding {
            Encoding::Plain => Ok(self.content.clone().into_bytes()),
            Encoding::Base64 => {
                let text: String = self.content.split_whitespace().collect();
                STANDARD
                    .decode(text)
                    .map_err(|error| format!("the content of {} is not base64: {error}", self.path.display()))
            }
        }
    }
}

fn octal(text: Option<&str>, default: u32) -> Result<u32, String> {
    let Some(text) = text else { return Ok(default) };
    let mode = u32::from_str_radix(text.trim_start_matches("0o"), 8);
    let mode = mode.ok().filter(|mode| *mode <= MODE_MAX);
    mode.ok_or_else(|| format!("the permissions {text:?} are not an octal mode such as '0644'"))
}

impl Step {
    /// What is wrong with it, if anything is.
    pub(super) fn check(&self) -> Result<(), String> {
        let directories =
            self.directories.iter().map(|directory| (&directory.path, directory.mode().map(drop)));
        let files =
            self.files.iter().map(|file| (&file.path, file.mode().and_then(|_| file.bytes().map(drop))));
        for (path, fine) in directories.chain(files) {
            if !path.is_absolute() {
                return Err(format!("the path {:?} is not absolute", path.display().to_string()));
            }
            fine?;
        }
        if let Some(name) = self.hostname.as_ref().filter(|name| !is_host_name(name)) {
            return Err(format!("{name:?} is not a host name"));
        }
        let users = self.users.keys().chain(self.authorized_keys.keys());
        if let Some(name) = users.into_iter().find(|name| !is_user_name(name)) {
            return Err(format!("{name:?} is not a name of a user"));
        }
        let fields = self.users.values().flat_map(|user| [&user.passwd, &user.gecos]).flatten();
        if fields.into_iter().any(|field| field.contains([':', '\n'])) {
            return Err("a user's passwd or gecos has a colon or a new line in it".to_owned());
        }
        let hashed = |password: &&String| password.is_empty() || password.starts_with(['$', '!', '*']);
        if self.users.values().filter_map(|user| user.passwd.as_ref()).any(|password| !hashed(&password)) {
            return Err("a user's passwd is not a hash: make one with `openssl passwd -6`".to_owned());
        }
        let keys = self.sysctl.keys();
        if let Some(key) = keys.into_iter().find(|key| key.split(['.', '/']).any(str::is_empty)) {
            return Err(format!("{key:?} is not the name of a kernel parameter"));
        }
        condition::check(self)
    }
}

pub(super) fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// As shadow's useradd takes them by default.
fn is_user_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    first
        && name.len() <= 32
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}
