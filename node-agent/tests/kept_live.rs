//! What people see and do of slots for which a cloud-config was applied without a reboot, and kept.

mod machine_on_disk;

use std::{path::PathBuf, process::Command};

use evenkeel_node_agent::{boot::Loader, install, state_dir::StateDir};
use evenkeel_node_agent_core::live_config::{Kept, Setting};
use machine_on_disk::{Content, Machine, path, sha256};
use serde_json::Value;

const DOCUMENT: &str = "#cloud-config\n{\"stages\":{}}\n";
const GRUB: (&str, &[u8]) = ("usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", b"MZ");

/// A disk that boots slot a, and has another image in slot b, for which a document was applied and kept.
struct Host {
    machine: Machine,
    state: PathBuf,
    /// What slot b itself holds.
    release: String,
}

impl Host {
    fn new() -> Self {
        let machine = Machine::new();
        let content = Content { loader: GRUB, kernel: b"kernel", initrd: b"initrd", kernel_options: "" };
        let (a, record) = machine.fill_with("a", &content);
        install::make_bootable_with(&machine.disk, &a, &record, Loader::Grub).unwrap();
        let (_, record) = machine.fill_with("b", &content);
        let state = machine.folder.path().join("state");
        let host = Self { machine, state, release: record.release() };
        let setting = Setting { release: host.kept_release(), document: Some(DOCUMENT.into()) };
        let before = Setting { release: host.release.clone(), document: None };
        let kept = Kept { slot: "b".into(), under: host.release.clone(), setting, before };
        StateDir::open(&host.state).unwrap().write_live_kept(&kept).unwrap();
        host
    }

    fn kept_release(&self) -> String {
        format!("{}+{}", self.release, &sha256(DOCUMENT.as_bytes())[..16])
    }

    /// What a command on the disk says, both ways; it must succeed.
    fn agent(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
        command.args(args).args(["--disk", path(self.machine.disk.path()), "--state-dir", path(&self.state)]);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(output.status.success(), "{args:?}: {text}");
        text
    }

    fn boots_with(&self, slot: usize) -> Value {
        let slots: Value = serde_json::from_str(&self.agent(&["slots", "--output", "json"])).unwrap();
        slots[slot]["bootsWith"].clone()
    }
}

#[test]
fn slots_tells_what_each_boots_with() {
    let host = Host::new();
    let sha256 = sha256(DOCUMENT.as_bytes());
    let b = host.boots_with(1);
    assert_eq!(
        (&b["release"], &b["cloudConfigSha256"]),
        (&host.kept_release().into(), &sha256.as_str().into())
    );
    assert_eq!(b["appliedWithoutReboot"], true);
    let a = host.boots_with(0);
    assert_eq!((&a["cloudConfigSha256"], &a["appliedWithoutReboot"]), (&Value::Null, &false.into()));
    let text = host.agent(&["slots"]);
    let said = format!("boots with cloud-config {sha256}, applied without a reboot");
    assert_eq!(text.matches("boots with cloud-config").count(), 1, "{text}");
    assert!(text.contains(&said), "{text}");
}

/// As with the agent's own trial: what is tried is what the slot holds.
#[test]
fn a_slot_that_is_put_on_trial_by_hand_boots_with_what_it_holds() {
    let host = Host::new();
    let text = host.agent(&["activate", "--slot", "b"]);
    assert!(
        text.contains(&format!("{}, applied without a reboot, is forgotten", host.kept_release())),
        "{text}"
    );
    let b = host.boots_with(1);
    assert_eq!((&b["release"], &b["appliedWithoutReboot"]), (&host.release.as_str().into(), &false.into()));
    assert!(!host.agent(&["activate", "--slot", "b"]).contains("forgotten"));
}

/// Going back is no trial: the slot comes up as it was left.
#[test]
fn a_slot_that_is_gone_back_to_boots_with_what_was_kept() {
    let host = Host::new();
    host.agent(&["rollback", "--to", "b"]);
    assert_eq!(host.boots_with(1)["release"], host.kept_release());
}
