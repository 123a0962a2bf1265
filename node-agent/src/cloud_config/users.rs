//! Users, by the system's own programs, which know its files and locks; and the SSH keys that may log in as them.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::cloud_config::Account;

use super::{
    CloudConfigError, Machine,
    files::{self, make_directory},
    system,
};
use crate::programs::{GROUPADD, USERADD, USERMOD};

const KEYS_FOLDER_MODE: u32 = 0o700;
const KEYS_MODE: u32 = 0o600;

/// Makes a user, or changes the password and groups of one that is there.
pub(super) fn account(machine: &Machine, name: &str, account: &Account) -> Result<(), CloudConfigError> {
    for group in account.groups.iter().chain(&account.primary_group) {
        if line(machine, "/etc/group", group).is_none() {
            system::run(GROUPADD, options(machine, &[], group))?;
        }
    }
    let entry = line(machine, "/etc/passwd", name);
    if entry.is_none() {
        system::run(USERADD, options(machine, &new_account(account), name))?;
    }
    let present = line(machine, "/etc/shadow", name).and_then(|fields| fields.get(1).cloned());
    if let Some(password) = password(account, present.as_deref())
        && present.as_ref() != Some(&password)
    {
        system::run(USERMOD, options(machine, &["--password".to_owned(), password], name))?;
    }
    let missing = |group: &&String| {
        let members = line(machine, "/etc/group", group).and_then(|fields| fields.get(3).cloned());
        !members.unwrap_or_default().split(',').any(|member| member == name)
    };
    let missing: Vec<&str> = account.groups.iter().filter(missing).map(String::as_str).collect();
    if !missing.is_empty() {
        let groups = ["--append".to_owned(), "--groups".to_owned(), missing.join(",")];
        system::run(USERMOD, options(machine, &groups, name))?;
    }
    Ok(())
}

/// The field of `/etc/shadow`, where it is to be something; `!` before a password locks it, also before one that the
/// image gave the user.
fn password(account: &Account, present: Option<&str>) -> Option<String> {
    let password = account.passwd.as_deref().or(present.filter(|_| account.lock_passwd))?.to_owned();
    Some(if account.lock_passwd && !password.starts_with('!') { format!("!{password}") } else { password })
}

fn new_account(account: &Account) -> Vec<String> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let valued = [
        ("--uid", account.uid.map(|uid| uid.to_string())),
        ("--comment", account.gecos.clone()),
        ("--home-dir", path(&account.homedir)),
        ("--shell", path(&account.shell)),
        ("--gid", account.primary_group.clone()),
    ];
    let mut options: Vec<String> =
        valued.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?])).flatten().collect();
    options.push(if account.no_create_home { "--no-create-home" } else { "--create-home" }.to_owned());
    if account.system {
        options.push("--system".to_owned());
    }
    options
}

/// Options for a program of the shadow suite, whose last word is the name.
fn options(machine: &Machine, options: &[String], name: &str) -> Vec<OsString> {
    let prefix = (!machine.is_this()).then(|| ["--prefix".into(), machine.root.clone().into_os_string()]);
    let options = options.iter().map(OsString::from);
    prefix.into_iter().flatten().chain(options).chain(["--".into(), name.into()]).collect()
}

/// The fields of a line that begins with `name:`.
fn line(machine: &Machine, path: &str, name: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(machine.at(path)).ok()?;
    let mut lines = text.lines().map(|line| line.split(':').map(String::from).collect::<Vec<_>>());
    lines.find(|fields| fields[0] == name)
}

/// Adds keys to those that may log in as a user; none is taken away.
pub(super) fn keys(
    machine: &Machine,
    name: &str,
    keys: &[String],
    written: &mut Vec<PathBuf>,
) -> Result<(), CloudConfigError> {
    if keys.is_empty() {
        return Ok(());
    }
    let fields = line(machine, "/etc/passwd", name).unwrap_or_default();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok());
    let (Some(uid), Some(gid), Some(home)) = (number(2), number(3), fields.get(5)) else {
        return Err(CloudConfigError::Impossible(format!("there is no user {name} to have SSH keys")));
    };
    let owner = (Some(uid), Some(gid));
    let folder = Path::new(home).join(".ssh");
    let there = machine.at(&folder);
    if there.is_symlink() {
        // Its owner could let us write anywhere.
        return Err(CloudConfigError::Impossible(format!(
            "{} is a link: keys are not written there",
            there.display()
        )));
    }
    make_directory(&there, KEYS_FOLDER_MODE, owner).map_err(CloudConfigError::io("make", &there))?;
    let path = folder.join("authorized_keys");
    let mut text = fs::read_to_string(machine.at(&path)).unwrap_or_default();
    for key in keys.iter().map(|key| key.trim()) {
        if !text.lines().any(|line| line.trim() == key) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(key);
            text.push('\n');
        }
    }
    files::write(machine, &path, text.as_bytes(), KEYS_MODE, owner, written)
}
