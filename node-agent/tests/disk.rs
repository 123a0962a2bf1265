//! Disks in files, judged by programs that are not ours: sgdisk, fsck.fat, mtools, e2fsck, mkfs.erofs.

mod machine_on_disk;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use evenkeel_node_agent::{
    boot::{self, BootError},
    disk::{Disk, DiskError, Sizes, SlotRegion},
    install,
    slots::{self, Memory, SlotState},
};
use evenkeel_node_agent_core::{layout::Role, slot_record::SlotRecord};
use machine_on_disk::{Content, Machine, SIZE, SIZES, path, run, sha256};

const LOADER: &[u8] = b"MZ not a real loader, but longer than nothing";

impl Machine {
    fn file(&self) -> &str {
        self.disk.path().to_str().unwrap()
    }

    fn mtools(&self, program: &str, args: &[&str]) -> String {
        let offset = self.disk.partition(Role::Esp).unwrap().disk_offset;
        run(program, &[&["-i", &format!("{}@@{offset}", self.file())], args].concat())
    }

    fn entries(&self) -> Vec<String> {
        let listing = self.mtools("mdir", &["-b", "::/loader/entries"]);
        let mut names: Vec<String> =
            listing.lines().map(|line| line.rsplit('/').next().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    fn fill(&self, name: &str, kernel: &str) -> (SlotRegion, SlotRecord) {
        let loader = ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", LOADER);
        let initrd = vec![7; 3 << 20];
        self.fill_with(
            name,
            &Content { loader, kernel: kernel.as_bytes(), initrd: &initrd, kernel_options: "" },
        )
    }
}

/// On a disk's device the kernel sees to it.
#[test]
fn a_slot_of_a_disks_file_is_written_by_one_at_a_time() {
    let machine = Machine::new();
    let (a, b) = (machine.disk.slot("a").unwrap(), machine.disk.slot("b").unwrap());
    let writing = a.open_rw().unwrap();
    let refused = a.open_rw().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
    assert!(refused.to_string().contains("another program is writing"), "{refused}");
    b.open_rw().unwrap();
    a.open_ro().unwrap();
    drop(writing);
    a.open_rw().unwrap();
}

#[test]
fn a_new_disk_is_clean_in_the_eyes_of_others() {
    let machine = Machine::new();
    assert!(run("sgdisk", &["-v", machine.file()]).contains("No problems found"));
    let mut names = run("sgdisk", &["-p", machine.file()]);
    names.retain(|c| !c.is_whitespace());
    for name in ["esp", "oem", "recovery", "a", "b", "state"] {
        assert!(names.contains(&format!("evenkeel-{name}")), "{names}");
    }
    for role in [Role::Oem, Role::State] {
        let offset = machine.disk.partition(role).unwrap().disk_offset;
        run("e2fsck", &["-f", "-n", &format!("{}?offset={offset}", machine.file())]);
    }
    let esp = machine.disk.partition(Role::Esp).unwrap();
    let copy: PathBuf = machine.folder.path().join("esp.img");
    let mut bytes = vec![0; usize::try_from(esp.length).unwrap()];
    File::open(machine.file()).unwrap().read_exact_at(&mut bytes, esp.offset).unwrap();
    fs::write(&copy, bytes).unwrap();
    run("fsck.fat", &["-n", path(&copy)]);
}

#[test]
fn a_disk_with_something_on_it_is_not_made_again() {
    let machine = Machine::new();
    let again = install::create_disk(machine.disk.path(), SIZES).unwrap_err();
    assert!(again.to_string().contains("not empty"), "{again}");
}

#[test]
fn a_blank_file_becomes_a_disk_of_its_own_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    Disk::create(&path, Sizes { disk: None, ..SIZES }, false).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);
    let other = folder.path().join("other.img");
    let file = File::create(&other).unwrap();
    file.set_len(SIZE).unwrap();
    file.write_all_at(b"somebody's", SIZE - 512).unwrap();
    assert!(matches!(Disk::create(&other, Sizes { disk: None, ..SIZES }, false), Err(DiskError::Exists(_))));
}

#[test]
fn a_trial_goes_from_armed_to_kept_and_back_without_touching_the_old_entry() {
    let machine = Machine::new();
    let (a, record_a) = machine.fill("a", "kernel one");
    install::make_bootable(&machine.disk, &a, &record_a).unwrap();
    assert_eq!(machine.mtools("mtype", &["::/EFI/BOOT/BOOTX64.EFI"]).as_bytes(), LOADER);
    assert_eq!(machine.entries(), ["evenkeel-a.conf"]);
    let old = machine.mtools("mtype", &["::/loader/entries/evenkeel-a.conf"]);
    let blocks = record_a.filesystem_length / 4096;
    for words in [
        "root=/dev/mapper/evenkeel-root gpt ".to_owned(),
        format!(" evenkeel.partuuid={} ", a.part_uuid),
        format!(" evenkeel.blocks={blocks} evenkeel.roothash={} evenkeel.slot=a ", record_a.root_hash),
    ] {
        assert!(old.contains(&words), "{words:?} is not in: {old}");
    }

    let (b, record_b) = machine.fill("b", "kernel two");
    let loader = boot::open(&machine.disk).unwrap();
    loader.place_files(&b, &record_b).unwrap();
    assert_eq!(machine.entries(), ["evenkeel-a.conf"]);
    loader.arm_trial(&b, &record_b, 3).unwrap();
    loader.arm_trial(&b, &record_b, 3).unwrap();
    assert_eq!(machine.entries(), ["evenkeel-a.conf", "evenkeel-b+3.conf"]);
    // Firmware does not rename, and so the loader does not count, what has a time that is none.
    let listing = machine.mtools("mdir", &["-a", "::/loader/entries"]);
    let trial = listing.lines().find(|line| line.contains("evenkeel-b+3.conf")).unwrap();
    assert!(trial.contains(" 20") && !trial.contains("1980-00-00"), "{trial}");
    // Both images bring the same initrd: it is there once.
    let files = machine.mtools("mdir", &["-b", "::/evenkeel"]);
    assert_eq!(files.lines().count(), 3, "{files}");

    loader.disarm("b").unwrap();
    loader.disarm("a").unwrap();
    assert_eq!(machine.entries(), ["evenkeel-a.conf"]);
    assert!(matches!(loader.commit("b"), Err(BootError::NoEntry(_))));

    loader.arm_trial(&b, &record_b, 3).unwrap();
    // The boot loader counts the try by a rename.
    machine.mtools("mren", &["::/loader/entries/evenkeel-b+3.conf", "::/loader/entries/evenkeel-b+2-1.conf"]);
    let report = slots::report(&machine.disk, &loader.entries().unwrap(), &Memory::default()).unwrap();
    assert_eq!((report[1].tries_left, report[1].default, report[0].default), (Some(2), true, false));
    loader.commit("b").unwrap();
    loader.commit("b").unwrap();
    assert_eq!(machine.entries(), ["evenkeel-a.conf", "evenkeel-b.conf"]);
    assert_eq!(machine.mtools("mtype", &["::/loader/entries/evenkeel-a.conf"]), old);

    loader.make_default(&a, &record_a).unwrap();
    let report = slots::report(&machine.disk, &loader.entries().unwrap(), &Memory::default()).unwrap();
    assert!(report[0].default && !report[1].default && report[1].bootable);
    let kernel = format!("::/evenkeel/vmlinuz-{}", &record_a.kernel.sha256[..16]);
    assert_eq!(machine.mtools("mtype", &[&kernel]), "kernel one");
}

#[test]
fn a_full_boot_partition_is_refused_and_the_old_entry_stays() {
    let machine = Machine::new();
    let (a, record_a) = machine.fill("a", "kernel one");
    install::make_bootable(&machine.disk, &a, &record_a).unwrap();
    let before = machine.mtools("mdir", &["-/", "-b", "::"]);
    let (b, mut record_b) = machine.fill("b", "kernel two");
    record_b.kernel.length = 600 << 20;
    let loader = boot::open(&machine.disk).unwrap();
    let error = loader.arm_trial(&b, &record_b, 3).unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("EspFull", false));
    assert_eq!(machine.mtools("mdir", &["-/", "-b", "::"]), before);
}

#[test]
fn a_slot_counts_only_with_the_superblock_that_its_record_names() {
    let machine = Machine::new();
    let state = |machine: &Machine| slots::report(&machine.disk, &[], &Memory::default()).unwrap()[0].state;
    assert_eq!(state(&machine), SlotState::Empty);
    let (a, _) = machine.fill("a", "kernel one");
    assert_eq!(state(&machine), SlotState::Complete);
    let file = a.open_rw().unwrap();
    let mut byte = [0];
    file.read_at(1024, &mut byte).unwrap();
    file.write_at(1024, &[!byte[0]]).unwrap();
    assert_eq!(state(&machine), SlotState::Damaged);
    file.write_at(1024, &byte).unwrap();
    assert_eq!(state(&machine), SlotState::Complete);
    drop(file);
    a.wipe_record().unwrap();
    assert_eq!(state(&machine), SlotState::Empty);
}

#[test]
fn what_the_slot_does_not_hold_never_becomes_a_boot_file() {
    let machine = Machine::new();
    let (a, mut record) = machine.fill("a", "kernel one");
    record.initrd.sha256 = sha256(b"something else");
    let error = install::make_bootable(&machine.disk, &a, &record).unwrap_err();
    assert!(error.to_string().contains("is not what the image holds"), "{error}");
    assert_eq!(boot::open(&machine.disk).unwrap().entries().unwrap(), []);
}
