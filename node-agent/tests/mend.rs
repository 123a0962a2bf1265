//! Disks that have lost a part of what boots them, and get it back by what is left, judged by sgdisk and mtools.

mod machine_on_disk;

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, process::Command};

use evenkeel_node_agent::{
    boot::{self, Loader},
    disk::{Disk, DiskError, MendedTable},
    esp, install, mend,
    slots::{self, Memory, SlotReport},
};
use evenkeel_node_agent_core::layout::Role;
use machine_on_disk::{Content, Machine, SIZE, path, run};

const SECTOR: u64 = 512;
const TABLE: u64 = 33 * SECTOR;
const FIRST: &str = "the first copy of the partition table";
const SECOND: &str = "the second copy of the partition table";
const BOOT_SECTOR: &str = "the protective boot sector";

const PROGRAMS: [&str; 2] =
    ["usr/lib/systemd/boot/efi/systemd-bootx64.efi", "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"];

fn overwrite(disk: &Path, at: u64, length: u64) {
    let nothing = vec![0; usize::try_from(length).unwrap()];
    File::options().write(true).open(disk).unwrap().write_all_at(&nothing, at).unwrap();
}

fn partitions(disk: &Disk) -> Vec<(String, String, u64, u64)> {
    let all = disk.partitions().iter();
    all.map(|part| (part.name.clone(), part.part_uuid.clone(), part.disk_offset, part.length)).collect()
}

fn agent(disk: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    let output = command.args(args).arg("--disk").arg(disk).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_table_comes_back_by_the_copy_that_is_left() {
    let machine = Machine::new();
    let (file, before) = (machine.disk.path(), partitions(&machine.disk));
    for (at, length, expected) in [
        (SECTOR, TABLE, vec![FIRST]),
        // The header is whole, and speaks of entries that are not.
        (2 * SECTOR, SECTOR, vec![FIRST]),
        (SIZE - TABLE, TABLE, vec![SECOND]),
        (SIZE - TABLE, SECTOR, vec![SECOND]),
        (SIZE - SECTOR, SECTOR, vec![SECOND]),
        (0, SECTOR, vec![BOOT_SECTOR]),
        (0, 1 << 20, vec![BOOT_SECTOR, FIRST]),
    ] {
        overwrite(file, at, length);
        let disk = Disk::open(file).unwrap_or_else(|error| panic!("{expected:?}: {error}"));
        assert_eq!((partitions(&disk), disk.lost_of_table().unwrap()), (before.clone(), expected.clone()));
        assert_eq!(Disk::mend_table(file).unwrap(), MendedTable { lost: expected.clone(), moved: false });
        assert!(run("sgdisk", &["-v", path(file)]).contains("No problems found"), "{expected:?}");
        assert_eq!(partitions(&Disk::open(file).unwrap()), before);
        assert!(Disk::mend_table(file).unwrap().was_whole());
    }
    overwrite(file, SECTOR, TABLE);
    overwrite(file, SIZE - TABLE, TABLE);
    assert!(matches!(Disk::mend_table(file), Err(DiskError::NoTable { .. })));
}

#[test]
fn the_table_of_another_disk_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.img");
    File::create(&file).unwrap().set_len(64 << 20).unwrap();
    run("sgdisk", &["--new=1:2048:0", "--change-name=1:data", path(&file)]);
    overwrite(&file, SECTOR, TABLE);
    let before = std::fs::read(&file).unwrap();
    let (code, said) = agent(&file, &["disk", "mend"]);
    assert!(code == 5 && said.contains("no partition evenkeel-esp"), "{code} {said}");
    assert!(std::fs::read(&file).unwrap() == before);
}

fn report(machine: &Machine) -> Vec<SlotReport> {
    let entries = boot::open(&machine.disk).unwrap().entries().unwrap();
    slots::report(&machine.disk, &entries, &Memory::default()).unwrap()
}

#[test]
fn a_boot_partition_is_made_anew_from_the_slots() {
    for (loader, name) in [(Loader::SystemdBoot, "systemd-boot"), (Loader::Grub, "grub")] {
        let machine = Machine::new();
        let content = Content {
            loader: (PROGRAMS[usize::from(loader == Loader::Grub)], b"MZ"),
            kernel: b"kernel",
            initrd: b"initrd",
            kernel_options: "quiet",
        };
        for slot in ["recovery", "b", "a"] {
            let (region, record) = machine.fill_with(slot, &content);
            install::make_bootable_with(&machine.disk, &region, &record, loader).unwrap();
        }
        let (file, offset) = (machine.disk.path(), machine.disk.partition(Role::Esp).unwrap().disk_offset);
        let (code, said) = agent(file, &["disk", "mend"]);
        assert!(code == 0 && said.contains("nothing to mend"), "{name}: {code} {said}");

        overwrite(file, offset, 64 << 10);
        let (code, said) = agent(file, &["disk", "mend"]);
        assert!(
            code == 3 && said.contains("--slot NAME") && said.contains("b (registry.example/os:b"),
            "{said}"
        );
        let (code, said) = agent(file, &["disk", "mend", "--slot", "c", "--bootloader", name]);
        assert!(code == 2 && said.contains("no slot c: its slots are a, b, recovery"), "{code} {said}");
        // The image brings one of them.
        let (code, said) = agent(file, &["disk", "mend", "--slot", "b"]);
        assert!(code == 0 && said.contains("slot b (1.0) boots next"), "{name}: {code} {said}");
        let boots: Vec<_> = report(&machine).into_iter().map(|slot| (slot.bootable, slot.default)).collect();
        assert_eq!(boots, [(false, false), (true, true), (true, false)], "{name}");
        let kernel = run("mdir", &["-b", "-i", &format!("{}@@{offset}", path(file)), "::/evenkeel"]);
        assert!(kernel.contains("vmlinuz-"), "{name}: {kernel}");
        // The old slot is still there to go back to.
        assert_eq!(agent(file, &["rollback", "--to", "a"]).0, 0);
        assert!(report(&machine)[0].default, "{name}");
    }
}

/// The images bring both.
#[test]
fn a_boot_partition_that_is_made_anew_gets_the_loader_that_it_had() {
    for (loader, name) in [(Loader::SystemdBoot, "systemd-boot"), (Loader::Grub, "GRUB")] {
        let machine = Machine::new();
        let mut filled = None;
        for program in PROGRAMS {
            let content = Content {
                loader: (program, b"MZ"),
                kernel: b"kernel",
                initrd: b"initrd",
                kernel_options: "",
            };
            filled = Some(machine.fill_with("a", &content));
        }
        let (a, record) = filled.unwrap();
        install::make_bootable_with(&machine.disk, &a, &record, loader).unwrap();
        let (code, said) = agent(machine.disk.path(), &["disk", "mend", "--slot", "a"]);
        assert!(
            code == 0 && said.contains(&format!("made anew, with {name}: slot a")),
            "{name}: {code} {said}"
        );
        assert_eq!(boot::installed(&machine.disk).unwrap(), Some(loader));
    }
}

#[test]
fn a_slot_that_cannot_boot_costs_no_boot_partition() {
    let machine = Machine::new();
    let content =
        Content { loader: ("usr/bin/none", b"MZ"), kernel: b"kernel", initrd: b"initrd", kernel_options: "" };
    machine.fill_with("a", &content);
    let esp = esp::open(&machine.disk).unwrap();
    esp.write("somebody/else", &mut &b"s"[..]).unwrap();
    for slot in ["a", "b"] {
        assert!(mend::make_boot_partition(&machine.disk, slot, Loader::SystemdBoot).is_err(), "{slot}");
        assert!(esp.read("somebody/else", &mut Vec::new()).unwrap(), "{slot}");
    }
}
