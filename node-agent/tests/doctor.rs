//! `evenkeel-agent doctor`, as people and scripts use it: on disks in files, and on a host that has none of ours.

mod machine_on_disk;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
};

use evenkeel_node_agent::{boot, boot::Loader, install};
use evenkeel_node_agent_core::layout::Role;
use machine_on_disk::{Content, Machine};
use serde_json::Value;

const GRUB: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";

/// The exit code, and the checks that are not well: name, verdict, message.
fn doctor(args: &[&str]) -> (i32, Vec<(String, String, String)>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    let output = command.args(["doctor", "--output", "json"]).args(args).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap().iter();
    let ill = checks.filter(|finding| finding["verdict"] != "ok");
    let ill = ill.map(|finding| ["check", "verdict", "message"].map(|key| text(finding, key)));
    (output.status.code().unwrap(), ill.map(|[check, verdict, message]| (check, verdict, message)).collect())
}

fn of_disk(machine: &Machine) -> (i32, Vec<(String, String, String)>) {
    doctor(&["--disk", machine.disk.path().to_str().unwrap()])
}

fn names(ill: &[(String, String, String)]) -> Vec<&str> {
    ill.iter().map(|(check, _, _)| check.as_str()).collect()
}

fn installed() -> Machine {
    let machine = Machine::new();
    let content = Content { loader: (GRUB, b"MZ"), kernel: b"kernel", initrd: b"initrd", kernel_options: "" };
    let (a, record) = machine.fill_with("a", &content);
    install::make_bootable_with(&machine.disk, &a, &record, Loader::Grub).unwrap();
    machine
}

#[test]
fn a_disk_that_was_installed_is_well_and_stays_as_it_is() {
    let machine = installed();
    let files = || {
        let esp = evenkeel_node_agent::esp::open(&machine.disk).unwrap();
        ["evenkeel", "evenkeel/grub"].map(|folder| esp.list(folder).unwrap())
    };
    let before = files();
    assert_eq!(of_disk(&machine), (0, Vec::new()));
    assert_eq!(files(), before);
}

#[test]
fn each_trouble_of_a_disk_is_named() {
    let machine = Machine::new();
    let (code, ill) = of_disk(&machine);
    assert_eq!((code, names(&ill)), (7, vec!["way-back", "loader"]), "{ill:?}");

    let machine = installed();
    let file = File::options().write(true).open(machine.disk.path()).unwrap();
    // What the kernel writes into the superblock when it has found an error.
    let state = machine.disk.partition(Role::State).unwrap().disk_offset;
    file.write_all_at(&[2], state + 1024 + 0x3A).unwrap();
    let (code, ill) = of_disk(&machine);
    assert_eq!((code, names(&ill)), (7, vec!["state-filesystem"]), "{ill:?}");
    file.write_all_at(&[1], state + 1024 + 0x3A).unwrap();

    let a = machine.disk.slot("a").unwrap();
    file.write_all_at(&[0; 512], a.disk_offset + 1024).unwrap();
    let (code, ill) = of_disk(&machine);
    assert_eq!((code, names(&ill)), (7, vec!["way-back", "slots"]), "{ill:?}");
}

#[test]
fn a_disk_that_became_larger_has_lost_nothing() {
    let machine = installed();
    let file = File::options().write(true).open(machine.disk.path()).unwrap();
    file.set_len(machine_on_disk::SIZE + (300 << 20)).unwrap();
    let (code, ill) = of_disk(&machine);
    assert_eq!((code, names(&ill)), (0, vec!["layout"]), "{ill:?}");
    assert!(ill[0].2.contains("became larger, and 300 MiB of it are not used"), "{ill:?}");
    // Its table is at the new end, and says no more than before.
    evenkeel_node_agent::disk::Disk::mend_table(machine.disk.path()).unwrap();
    assert_eq!(names(&of_disk(&machine).1), ["layout"]);
    let grown = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"))
        .args(["grow", "--disk", path(machine.disk.path())])
        .status();
    assert!(grown.unwrap().success());
    assert_eq!(of_disk(&machine), (0, Vec::new()));
}

/// The kernel's account is elsewhere in a container, and nowhere where none is mounted.
#[test]
fn a_place_without_proc_is_told_to_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    let output = command.args(["slots", "--proc", path(folder.path())]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("mount the host's /proc here") && said.contains("--disk"), "{said}");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn a_loader_that_did_not_write_is_found() {
    let machine = installed();
    let esp = evenkeel_node_agent::esp::open(&machine.disk).unwrap();
    let mut block = Vec::new();
    esp.read("evenkeel/grub/grubenv", &mut block).unwrap();
    let text = String::from_utf8(block).unwrap();
    let at = text.find("evenkeel_loader=asked:").unwrap() + "evenkeel_loader=asked:".len();
    let other = format!("{}{}{}", &text[..at], "0".repeat(32), &text[at + 32..]);
    esp.overwrite("evenkeel/grub/grubenv", other.as_bytes()).unwrap();
    let (code, ill) = of_disk(&machine);
    assert_eq!((code, names(&ill)), (7, vec!["loader"]), "{ill:?}");
    assert!(ill[0].2.contains("could not write its environment block"), "{ill:?}");
}

#[test]
fn a_trial_under_way_is_no_illness() {
    let machine = installed();
    let content = Content { loader: (GRUB, b"MZ"), kernel: b"two", initrd: b"initrd", kernel_options: "" };
    let (b, record) = machine.fill_with("b", &content);
    boot::open(&machine.disk).unwrap().arm_trial(&b, &record, 3).unwrap();
    assert_eq!(of_disk(&machine), (0, Vec::new()));
}

#[test]
fn what_is_not_ours_is_named_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let before = fs::read(&disk).unwrap();
    let (code, ill) = doctor(&["--disk", disk.to_str().unwrap()]);
    assert_eq!((code, names(&ill)), (7, vec!["layout"]), "{ill:?}");
    assert!(ill[0].2.contains("no GPT partition table"), "{ill:?}");
    assert!(fs::read(&disk).unwrap() == before);

    let proc = folder.path().join("proc");
    fs::create_dir_all(proc.join("sys/kernel/random")).unwrap();
    fs::write(proc.join("cmdline"), "root=/dev/sda1 quiet").unwrap();
    fs::write(proc.join("sys/kernel/random/boot_id"), "1\n").unwrap();
    let state = folder.path().join("state");
    let (code, ill) = doctor(&["--proc", path(&proc), "--state-dir", path(&state)]);
    let fails: Vec<&str> = ill.iter().filter(|ill| ill.1 == "fail").map(|ill| ill.0.as_str()).collect();
    assert!(code == 7 && fails.contains(&"running") && fails.contains(&"layout"), "{ill:?}");
    assert!(!fails.contains(&"state") && !state.exists(), "{ill:?}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
