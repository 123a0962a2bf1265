//! The guard on machines that have lost what it writes to: it still brings them back.

mod machine_on_disk;

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use evenkeel_node_agent::{boot, install};
use evenkeel_node_agent_core::layout::Role;
use machine_on_disk::{Content, Machine};

const LOADER: (&str, &[u8]) = ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", b"MZ, and no more");
const PATIENCE: Duration = Duration::from_mins(1);

/// A machine whose slot b runs on trial; the guard ends with it.
struct OnTrial {
    machine: Machine,
    guard: Option<Child>,
}

impl Drop for OnTrial {
    fn drop(&mut self) {
        if let Some(guard) = &mut self.guard {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

impl OnTrial {
    fn new(uptime: &str) -> Self {
        let machine = Machine::new();
        let content = |kernel| Content { loader: LOADER, kernel, initrd: b"initrd", kernel_options: "" };
        let (a, record) = machine.fill_with("a", &content(b"kernel one"));
        install::make_bootable(&machine.disk, &a, &record).unwrap();
        let (b, record) = machine.fill_with("b", &content(b"kernel two"));
        boot::open(&machine.disk).unwrap().arm_trial(&b, &record, 3).unwrap();
        let it = Self { machine, guard: None };
        for folder in ["proc/sys/kernel/random", "state", "health"] {
            fs::create_dir_all(it.at(folder)).unwrap();
        }
        it.put("proc/cmdline", &format!("evenkeel.slot=b evenkeel.digest={}", record.digest));
        it.put("proc/sys/kernel/random/boot_id", "this-boot");
        it.put("proc/uptime", uptime);
        it.program("reboot", &format!("touch {}", it.at("rebooted").display()));
        it
    }

    fn at(&self, name: &str) -> PathBuf {
        self.machine.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn program(&self, name: &str, text: &str) {
        self.put(name, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
        command.arg("guard").arg("--disk").arg(self.machine.disk.path());
        for (option, name) in [
            ("--proc", "proc"),
            ("--state-dir", "state"),
            ("--health-dir", "health"),
            ("--reboot-command", "reboot"),
        ] {
            command.arg(option).arg(self.at(name));
        }
        self.guard = Some(command.spawn().unwrap());
    }

    /// Waits until there is such a file; the guard may end only when it has asked for the reboot.
    fn waits_for(&mut self, name: &str) {
        let begun = Instant::now();
        while !self.at(name).exists() {
            let ended = self.guard.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() || self.at(name).exists(), "the guard ended before {name}: {ended:?}");
            assert!(begun.elapsed() < PATIENCE, "{name} did not come");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn boots(&self) -> Vec<(String, bool)> {
        let entries = boot::open(&self.machine.disk).unwrap().entries().unwrap();
        entries.into_iter().map(|entry| (entry.name.slot, entry.name.tries.is_some())).collect()
    }
}

#[test]
fn a_state_partition_that_takes_nothing_does_not_keep_a_bad_trial() {
    let mut it = OnTrial::new("99999.5 1.0");
    fs::create_dir(it.at("state/verdict.json.new")).unwrap();
    // What cannot be read cannot be set aside either.
    it.put("state/trial.json", "{ half a docu");
    fs::create_dir_all(it.at("state/trial.json.unreadable/full")).unwrap();
    it.start();
    it.waits_for("rebooted");
    assert_eq!(it.boots(), [("a".to_owned(), false)]);
}

#[test]
fn a_state_folder_that_cannot_be_made_means_the_usual_deadline() {
    let mut it = OnTrial::new("99999.5 1.0");
    fs::remove_dir(it.at("state")).unwrap();
    it.put("state", "no folder");
    it.start();
    it.waits_for("rebooted");
    assert_eq!(it.boots(), [("a".to_owned(), false)]);
}

/// The checks pass and nobody can be told; then the boot partition is lost too.
#[test]
fn the_deadline_comes_whatever_cannot_be_written_or_read() {
    let mut it = OnTrial::new("10.0 1.0");
    fs::create_dir(it.at("state/checks-passed.json.new")).unwrap();
    it.program("health/asked", &format!("touch {}", it.at("asked").display()));
    it.start();
    it.waits_for("asked");
    let esp = it.machine.disk.partition(Role::Esp).unwrap().disk_offset;
    let disk = fs::File::options().write(true).open(it.machine.disk.path()).unwrap();
    disk.write_all_at(&[0; 4096], esp).unwrap();
    it.put("proc/uptime", "99999.5 1.0");
    it.waits_for("rebooted");
}
