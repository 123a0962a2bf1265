//! What is said of a machine that runs from a disk: which slot runs, and what the recovery slot is without. Needs root.

#[path = "machine_on_disk/loop_device.rs"]
mod loop_device;
mod machine_on_disk;

use std::{fs, process::Command};

use evenkeel_node_agent::{boot::Loader, install};
use loop_device::Loop;
use machine_on_disk::{Content, Machine, path, run};
use serde_json::Value;

/// Runs a command as on a machine that was booted from a slot of the disk; gives both of its outputs.
fn said(machine: &Machine, slot: &str, args: &[&str]) -> String {
    let proc = machine.folder.path().join(format!("proc-{slot}"));
    fs::create_dir_all(proc.join("sys/kernel/random")).unwrap();
    fs::write(proc.join("sys/kernel/random/boot_id"), "1\n").unwrap();
    let part_uuid = machine.disk.slot(slot).unwrap().part_uuid;
    let line = format!("quiet evenkeel.partuuid={part_uuid} evenkeel.slot={slot} evenkeel.digest=sha256:1");
    fs::write(proc.join("cmdline"), line).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    agent.args(args).args(["--proc", path(&proc), "--state-dir"]).arg(machine.folder.path().join("state"));
    let output = agent.output().unwrap();
    [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
}

#[test]
fn the_slot_that_runs_is_marked_and_the_recovery_slot_needs_no_state() {
    let machine = Machine::new();
    let program = ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", &b"MZ"[..]);
    let content = Content { loader: program, kernel: b"kernel", initrd: b"initrd", kernel_options: "" };
    let (a, record) = machine.fill_with("a", &content);
    install::make_bootable_with(&machine.disk, &a, &record, Loader::SystemdBoot).unwrap();
    let device = Loop::new(machine.disk.path(), "512");
    run("partx", &["--update", device.path()]);

    let slots = said(&machine, "a", &["slots"]);
    assert!(slots.contains("runs, boots next") && slots.matches("runs").count() == 1, "{slots}");
    let slots: Vec<Value> =
        serde_json::from_str(&said(&machine, "b", &["slots", "--output", "json"])).unwrap();
    let runs: Vec<_> = slots.iter().map(|slot| slot["running"].as_bool().unwrap()).collect();
    assert_eq!(runs, [false, true, false]);

    // No folder of the machine that tests run on lies on that partition.
    let on_slot = said(&machine, "a", &["doctor"]);
    assert!(on_slot.contains("FAIL  state "), "{on_slot}");
    let on_recovery = said(&machine, "recovery", &["doctor"]);
    assert!(on_recovery.contains("ok    state "), "{on_recovery}");
}
