//! What is understood of cloud-init's dialect, and the steps that it comes to.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{Account, CloudConfig, Encoding, File, Stage, Step, document::Document};

/// An entry of `write_files`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WriteFile {
    path: PathBuf,
    content: String,
    permissions: Option<String>,
    encoding: Encoding,
}

/// An entry of `users`.
#[derive(Clone, Debug)]
pub enum User {
    /// `default`: a distribution's own user, which is nothing to us.
    Word,
    Named(Box<NamedUser>),
}

/// cloud-init has a user's name as a field of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamedUser {
    name: String,
    gecos: Option<String>,
    primary_group: Option<String>,
    groups: Words,
    homedir: Option<PathBuf>,
    shell: Option<PathBuf>,
    uid: Option<u32>,
    system: bool,
    no_create_home: bool,
    lock_passwd: Option<bool>,
    #[serde(alias = "hashed_passwd")]
    passwd: Option<String>,
    ssh_authorized_keys: Vec<String>,
}

/// A list, or one text with commas.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

impl Default for Words {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// Words for a shell, or a program and its options.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Command {
    Shell(String),
    Program(Vec<String>),
}

/// `ntp`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ntp {
    servers: Vec<String>,
    pools: Vec<String>,
}

/// The same as steps: state first, `bootcmd` with it at each boot, and `runcmd` once, when the network is there.
pub(super) fn steps(document: Document, config: &mut CloudConfig) {
    let Document { ssh_authorized_keys: keys, ntp, .. } = document;
    let root = (!keys.is_empty()).then(|| ("root".to_owned(), keys));
    let servers: Vec<String> = ntp.servers.into_iter().chain(ntp.pools).collect();
    let ntp = (!servers.is_empty()).then(|| ("NTP".to_owned(), servers.join(" ")));
    let state = Step {
        hostname: document.hostname,
        files: document.write_files.into_iter().map(WriteFile::file).collect(),
        users: document.users.into_iter().filter_map(User::account).collect(),
        authorized_keys: root.into_iter().collect(),
        timesyncd: ntp.into_iter().collect(),
        commands: document.bootcmd.iter().map(Command::words).collect(),
        ..Step::default()
    };
    config.push(Stage::Initramfs, state);
    let commands: Vec<String> = document.runcmd.iter().map(Command::words).collect();
    if !commands.is_empty() {
        let step = Step { name: "runcmd".into(), commands, once: true, ..Step::default() };
        config.push(Stage::Network, step);
    }
}

impl WriteFile {
    fn file(self) -> File {
        let Self { path, content, permissions, encoding } = self;
        File { path, permissions, content, encoding, ..File::default() }
    }
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = User;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`default`, or a user with a name")
            }
            fn visit_str<E>(self, _: &str) -> Result<User, E> {
                Ok(User::Word)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<User, A::Error> {
                NamedUser::deserialize(MapAccessDeserializer::new(map))
                    .map(|user| User::Named(Box::new(user)))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl User {
    fn account(self) -> Option<(String, Account)> {
        let Self::Named(user) = self else { return None };
        let account = Account {
            // cloud-init locks whom it is not told to leave open.
            lock_passwd: user.lock_passwd.unwrap_or(true),
            passwd: user.passwd,
            uid: user.uid,
            gecos: user.gecos,
            homedir: user.homedir,
            no_create_home: user.no_create_home,
            system: user.system,
            shell: user.shell,
            primary_group: user.primary_group,
            groups: user.groups.list(),
            ssh_authorized_keys: user.ssh_authorized_keys,
        };
        Some((user.name, account))
    }
}

impl Words {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(text) => {
                text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(String::from).collect()
            }
            Self::Many(words) => words,
        }
    }
}

impl Command {
    fn words(&self) -> String {
        match self {
            Self::Shell(words) => words.clone(),
            Self::Program(words) => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
        }
    }
}

/// A word as the shell takes it for one, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
