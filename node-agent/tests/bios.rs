//! What a BIOS starts on a disk that boots by GRUB, judged by GRUB's own installer (package grub-pc-bin) and sgdisk. Needs root.

#[path = "machine_on_disk/loop_device.rs"]
mod loop_device;
mod machine_on_disk;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
};

use evenkeel_node_agent::{
    boot::{self, Loader},
    disk::{Disk, NoBiosPlace, SlotRegion},
    install::{self, InstallError, OnBios},
};
use evenkeel_node_agent_core::{bios_boot::BiosState, layout::Role, slot_record::SlotRecord};
use loop_device::Loop;
use machine_on_disk::{Content, Machine, SIZE, SIZES, path, run};

const CONTENT: Content<'_> = Content {
    loader: ("usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", b"MZ"),
    kernel: b"kernel",
    initrd: b"initrd",
    kernel_options: "",
};
const PACKAGE: &str = "/usr/lib/grub/i386-pc";
const SECTOR: u64 = 512;

impl Machine {
    /// A slot whose image has GRUB's boot.img, and a core.img with some modules.
    fn fill(&self, name: &str) -> (SlotRegion, SlotRecord) {
        let grub = self.folder.path().join(format!("root-{name}{PACKAGE}"));
        fs::create_dir_all(&grub).unwrap();
        fs::copy(format!("{PACKAGE}/boot.img"), grub.join("boot.img")).unwrap();
        let core = grub.join("core.img");
        let prefix = "(,gpt1)/EFI/debian";
        run(
            "grub-mkimage",
            &["-O", "i386-pc", "-p", prefix, "-o", path(&core), "biosdisk", "part_gpt", "fat"],
        );
        self.fill_with(name, &CONTENT)
    }

    fn installed() -> Self {
        let machine = Self::new();
        let (a, record) = machine.fill("a");
        assert_eq!(machine.install(&a, &record).unwrap(), OnBios::Boots);
        machine
    }

    fn install(&self, slot: &SlotRegion, record: &SlotRecord) -> Result<OnBios, InstallError> {
        install::make_bootable_with(&self.disk, slot, record, Loader::Grub)
    }

    /// All before the first partition but the code's own.
    fn beginning(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        File::open(self.disk.path()).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn overwrite(&self, at: u64, bytes: &[u8]) {
        File::options().write(true).open(self.disk.path()).unwrap().write_all_at(bytes, at).unwrap();
    }

    fn agent(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
        let output = command.args(args).arg("--disk").arg(self.disk.path()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }
}

/// Lets GRUB's own installer write the files of a folder to a disk. It wants to know the device of the folder.
fn install_by_grub(disk: &Path, from: &Path, scratch: &Path) {
    let (image, mount, map) = (scratch.join("fs.img"), scratch.join("mount"), scratch.join("device.map"));
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    run("mke2fs", &["-q", "-F", "-d", path(from), path(&image)]);
    fs::create_dir(&mount).unwrap();
    let (disk, folder) = (Loop::new(disk, "512"), Loop::new(&image, "512"));
    fs::write(&map, format!("(hd0) {}\n(hd1) {}\n", disk.path(), folder.path())).unwrap();
    run("mount", &[folder.path(), path(&mount)]);
    let setup = Command::new(format!("{PACKAGE}/grub-bios-setup"))
        .args(["--no-rs-codes", "--skip-fs-probe", "-d", path(&mount), "-m", path(&map), disk.path()])
        .output()
        .unwrap();
    run("umount", &[path(&mount)]);
    assert!(setup.status.success(), "{setup:?}");
}

#[test]
fn the_same_is_written_as_by_grubs_own_installer() {
    let machine = Machine::installed();
    let type_of = run("sgdisk", &["-i", "7", path(machine.disk.path())]);
    assert!(type_of.contains("21686148-6449-6E6F-744E-656564454649"), "{type_of}");
    assert!(run("sgdisk", &["-v", path(machine.disk.path())]).contains("No problems found"));
    let ours = machine.beginning();
    // Without the code, and then with GRUB's.
    machine.overwrite(0, &[0; 440]);
    machine.overwrite(64 << 10, &vec![0; 448 << 10]);
    assert_eq!(machine.disk.bios_state().unwrap(), BiosState::Absent);
    let folder = machine.folder.path();
    install_by_grub(machine.disk.path(), &folder.join(format!("root-a{PACKAGE}")), folder);
    let theirs = machine.beginning();
    let differ: Vec<usize> = (0..ours.len()).filter(|at| ours[*at] != theirs[*at]).collect();
    assert!(differ.is_empty(), "these bytes differ: {differ:?}");
}

#[test]
fn the_code_outlives_what_is_done_to_the_partition_table() {
    let machine = Machine::installed();
    let file = machine.disk.path();
    let code = || {
        let bytes = machine.beginning();
        (bytes[..440].to_vec(), bytes[64 << 10..512 << 10].to_vec())
    };
    let before = code();
    File::options().write(true).open(file).unwrap().set_len(SIZE + (100 << 20)).unwrap();
    Disk::grow_table(file).unwrap();
    assert!(code() == before);
    // All of the sector that is the table's, and the first copy.
    machine.overwrite(446, &vec![0; 34 * 512 - 446]);
    assert_eq!(Disk::mend_table(file).unwrap().lost.len(), 2);
    assert!(code() == before && machine.disk.lost_of_table().unwrap().is_empty());
    // The same image again, and an update of the other slot.
    let (b, record) = machine.fill("b");
    boot::open(&machine.disk).unwrap().arm_trial(&b, &record, 1).unwrap();
    boot::open(&machine.disk).unwrap().commit("b").unwrap();
    assert!(code() == before);
    assert_eq!(machine.install(&b, &record).unwrap(), OnBios::Boots);
    assert!(code() == before);
}

#[test]
fn what_is_lost_is_told_and_comes_back() {
    let machine = Machine::installed();
    let before = machine.beginning();
    assert_eq!(machine.agent(&["doctor"]).0, 0);
    let partition = machine.disk.partition(Role::Bios).unwrap().disk_offset;
    for (at, state) in [(0, BiosState::NoBootSector), (partition, BiosState::NoCore)] {
        machine.overwrite(at, &[0; 440]);
        machine.overwrite(at + 500, &vec![0; if at == 0 { 0 } else { 12 }]);
        assert_eq!(machine.disk.bios_state().unwrap(), state);
        let (code, said) = machine.agent(&["doctor"]);
        assert!(code == 0 && said.contains("GRUB for BIOS") && said.contains("disk mend"), "{code} {said}");
        let (code, said) = machine.agent(&["disk", "mend"]);
        assert!(code == 0 && said.contains("written again, from slot a"), "{code} {said}");
        assert!(machine.beginning() == before, "{state:?}");
    }
    // With the whole of the beginning, table and all.
    machine.overwrite(0, &vec![0; 1 << 20]);
    let (code, said) = machine.agent(&["disk", "mend"]);
    assert!(code == 0 && said.contains("written again, from slot a"), "{code} {said}");
    assert!(machine.beginning() == before);
    machine.overwrite(0, &[0; 512]);
    let (code, said) = machine.agent(&["disk", "mend", "--slot", "a"]);
    assert!(code == 0 && said.contains("with UEFI and with BIOS"), "{code} {said}");
    assert_eq!(machine.disk.bios_state().unwrap(), BiosState::Whole);
}

#[test]
fn where_no_bios_can_boot_nothing_is_written_for_one() {
    let machine = Machine::new();
    let (a, record) = machine.fill_with("a", &CONTENT);
    assert_eq!(machine.install(&a, &record).unwrap(), OnBios::NoLoader);
    assert_eq!(machine.disk.bios_state().unwrap(), BiosState::Absent);

    // A disk of an earlier version.
    let (b, record) = machine.fill("b");
    run("sgdisk", &["--delete=7", path(machine.disk.path())]);
    let old = Machine { disk: Disk::open(machine.disk.path()).unwrap(), folder: machine.folder };
    let before = old.beginning();
    assert_eq!(old.install(&b, &record).unwrap(), OnBios::NoPlace(NoBiosPlace::Partition));
    assert!(old.beginning() == before);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.img");
    File::create(&file).unwrap().set_len(SIZE).unwrap();
    let device = Loop::new(&file, "4096");
    let large = Machine { disk: install::create_disk(&device.0, SIZES).unwrap(), folder };
    assert!(large.disk.partition(Role::Bios).is_err());
    let (a, record) = large.fill("a");
    assert_eq!(large.install(&a, &record).unwrap(), OnBios::NoPlace(NoBiosPlace::Blocks));
    assert_eq!(large.disk.bios_state().unwrap(), BiosState::Absent);
}

#[test]
fn code_that_is_not_grubs_costs_nothing() {
    let machine = Machine::new();
    let grub = machine.folder.path().join(format!("root-a{PACKAGE}"));
    fs::create_dir_all(&grub).unwrap();
    for name in ["boot.img", "core.img"] {
        fs::write(grub.join(name), vec![1; 700]).unwrap();
    }
    let (a, record) = machine.fill_with("a", &CONTENT);
    let before = machine.beginning();
    let error = machine.install(&a, &record).unwrap_err();
    assert!(matches!(error, InstallError::BiosCode(_)), "{error}");
    assert!(machine.beginning() == before && boot::installed(&machine.disk).unwrap().is_none());
}

#[test]
fn a_disk_that_is_made_anew_forgets_the_code() {
    let machine = Machine::installed();
    let core = machine.disk.partition(Role::Bios).unwrap().disk_offset;
    machine.overwrite(0, &[0; 440]);
    let disk = install::replace_disk(machine.disk.path(), SIZES).unwrap();
    assert_eq!(disk.bios_state().unwrap(), BiosState::Absent);
    let first = &machine.beginning()[usize::try_from(core).unwrap()..][..usize::try_from(SECTOR).unwrap()];
    assert!(first.iter().all(|byte| *byte == 0));
}
