//! From the text of one document to stages.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    CloudConfig, Stage, Step,
    cloud_init::{self, Command, Ntp, User, WriteFile},
    growpart,
};

/// The first line of cloud-init's dialect.
const HEADER: &str = "#cloud-config";
/// What yip hangs on the name of a stage, in the order in which it is done.
const PARTS: [&str; 3] = [".before", "", ".after"];
/// A document with more is not read: it would carry what belongs into an image.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// A document that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// What was understood.
    pub config: CloudConfig,
    /// The keys that were not, as `stages.boot[0].git`.
    pub unknown: Vec<String>,
}

/// Why nothing of a document is used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CloudConfigError {
    /// Neither dialect.
    #[error("the cloud-config neither begins with the line `{HEADER}` nor has `stages`")]
    NoHeader,
    /// Not in the format.
    #[error("the cloud-config cannot be used: {0}")]
    Format(String),
    /// Too much.
    #[error(
        "the cloud-config has {0} bytes, and {DOCUMENT_BYTES_MAX} at most are read: put large files into an image"
    )]
    TooLarge(usize),
}

/// Both dialects' top level.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    /// yip's documents have one, and nothing is done with it.
    pub name: Option<String>,
    stages: BTreeMap<String, Vec<Step>>,
    pub hostname: Option<String>,
    pub write_files: Vec<WriteFile>,
    pub users: Vec<User>,
    pub ssh_authorized_keys: Vec<String>,
    pub bootcmd: Vec<Command>,
    pub runcmd: Vec<Command>,
    pub ntp: Ntp,
    growpart: growpart::Module,
    datasource_list: Option<Vec<String>>,
}

/// Reads a document.
pub fn parse(text: &str) -> Result<Parsed, CloudConfigError> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(CloudConfigError::TooLarge(text.len()));
    }
    let has_header = text.lines().next().map(str::trim_end) == Some(HEADER);
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return if has_header { Ok(Parsed::default()) } else { Err(CloudConfigError::NoHeader) };
    }
    let mut unknown = Vec::new();
    let document = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde_ignored::deserialize(deserializer, |path| unknown.push(path.to_string()))
    });
    let mut document: Document = document.map_err(|error| CloudConfigError::Format(error.to_string()))?;
    let stages = std::mem::take(&mut document.stages);
    if stages.is_empty() && !has_header {
        return Err(CloudConfigError::NoHeader);
    }
    let growpart = document.growpart.mode;
    let sources = document.datasource_list.take();
    let mut config = CloudConfig { growpart, sources, ..CloudConfig::default() };
    cloud_init::steps(document, &mut config);
    let mut parts = Vec::new();
    for (name, steps) in stages {
        match part_of_stage(&name) {
            Some((part, stage)) => parts.push((part, stage, steps)),
            None => unknown.push(format!("stages.{name}")),
        }
    }
    parts.sort_by_key(|(part, ..)| *part);
    for (_, stage, steps) in parts {
        for step in steps {
            config.push(stage, step);
        }
    }
    config.check().map_err(CloudConfigError::Format)?;
    Ok(Parsed { config, unknown })
}

/// Which of [`PARTS`] of which stage a name is.
fn part_of_stage(name: &str) -> Option<(usize, Stage)> {
    let part = |(at, part): (usize, &&str)| Some((at, name.strip_suffix(part).and_then(Stage::named)?));
    PARTS.iter().enumerate().find_map(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud_config::System;

    #[test]
    fn elementals_documents_mean_what_they_mean_there() {
        let text = r#"
name: Node
stages:
  initramfs:
  - name: base
    hostname: node-7
    users:
      root: { passwd: "$6$salt$hash", ssh_authorized_keys: [ssh-ed25519 AAAA me] }
    files:
    - { path: /etc/a, content: "one\n", permissions: 0600, owner: 7, group: 8 }
    - { path: /etc/b, content: b25lCg==, encoding: b64 }
    sysctl: { net.ipv4.ip_forward: 1 }
    timesyncd: { NTP: 0.pool.example }
  boot.after:
  - commands: [third]
  boot:
  - { if: "[ -e /x ]", only_os: "^deb", commands: [second], modules: [br_netfilter] }
  boot.before:
  - commands: [first]
  reconcile:
  - commands: [never]
"#;
        let Parsed { config, unknown } = parse(text).unwrap();
        assert_eq!(unknown, ["stages.reconcile"]);
        let step = &config.steps(Stage::Initramfs)[0];
        assert_eq!(step.hostname.as_deref(), Some("node-7"));
        assert_eq!(step.users["root"].passwd.as_deref(), Some("$6$salt$hash"));
        assert_eq!(
            (step.files[0].mode(), step.files[0].owner, step.files[0].group),
            (Ok(0o600), Some(7), Some(8))
        );
        assert_eq!(step.files[1].bytes(), Ok(b"one\n".to_vec()));
        assert_eq!(step.sysctl["net.ipv4.ip_forward"], "1");
        let commands: Vec<&str> =
            config.steps(Stage::Boot).iter().map(|step| step.commands[0].as_str()).collect();
        assert_eq!(commands, ["first", "second", "third"]);
        let second = &config.steps(Stage::Boot)[1];
        let system = |id: &str| System { id: id.into(), ..System::default() };
        assert!(second.is_for(&system("debian")) && !second.is_for(&system("suse")));
        assert!(!config.has(Stage::Network));
    }

    #[test]
    fn cloud_inits_documents_come_to_steps() {
        let text = "#cloud-config\nhostname: node-1\nwrite_files:\n- path: /etc/x.conf\n  content: |\n    one\n  permissions: \
                    '0600'\nusers:\n- default\n- {name: core, groups: 'sudo, adm', sudo: ALL}\nruncmd:\n- [echo, \"it's\"]\n- \
                    date\nntp: {servers: [a, b]}\npackages: [vim]\n";
        let Parsed { config, unknown } = parse(text).unwrap();
        assert_eq!(unknown, ["users.1.sudo", "packages"]);
        let step = &config.steps(Stage::Initramfs)[0];
        assert_eq!(step.files[0].content, "one\n");
        assert_eq!(step.files[0].mode(), Ok(0o600));
        assert_eq!(step.users["core"].groups, ["sudo", "adm"]);
        assert!(step.users["core"].lock_passwd);
        assert_eq!(step.timesyncd["NTP"], "a b");
        let run = &config.steps(Stage::Network)[0];
        assert_eq!(run.commands, [r"'echo' 'it'\''s'", "date"]);
        assert!(run.once);
        assert_eq!(parse("#cloud-config\n"), Ok(Parsed::default()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (text, expected) in [
            ("hostname: a", "#cloud-config"),
            ("", "#cloud-config"),
            ("#cloud-config\nhostname: [", "cannot be used"),
            ("#cloud-config\nwrite_files: [{path: a}]", "not absolute"),
            ("#cloud-config\nwrite_files: [{path: /a, permissions: rw}]", "octal"),
            ("#cloud-config\nhostname: 'a b'", "not a host name"),
            ("#cloud-config\nusers: [{name: 'a:b'}]", "not a name of a user"),
            ("stages: {boot: [{only_os: '('}]}", "the condition"),
            ("stages: {boot: [{sysctl: {../../etc/passwd: x}}]}", "kernel parameter"),
            ("stages: {boot: [{files: [{path: /a, content: '%', encoding: base64}]}]}", "base64"),
            ("stages: {boot: [{users: {a: {passwd: '$6$x:0:0'}}}]}", "colon"),
            ("stages: {boot: [{users: {a: {passwd: secret}}}]}", "openssl passwd"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let large = format!("#cloud-config\n# {}", "x".repeat(DOCUMENT_BYTES_MAX));
        assert!(matches!(parse(&large), Err(CloudConfigError::TooLarge(_))));
    }
}
