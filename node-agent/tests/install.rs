//! Installation on devices and over what is there: loop devices of both block sizes, wrong disks, interrupted ones. Needs
//! root.

#[path = "machine_on_disk/loop_device.rs"]
mod loop_device;
mod machine_on_disk;

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::FileExt as _,
    thread,
    time::Duration,
};

use evenkeel_node_agent::{
    boot,
    disk::{Disk, DiskError},
    install::{self, InstallError},
    slots::{self, Memory, SlotState},
};
use evenkeel_node_agent_core::layout::Role;
use loop_device::Loop;
use machine_on_disk::{Content, Machine, SIZE, SIZES, run};

const CONTENT: Content<'_> = Content {
    loader: ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", b"MZ"),
    kernel: b"kernel",
    initrd: b"initrd",
    kernel_options: "",
};

/// With blocks of `sector` bytes; the folder holds what is behind it.
fn blank_device(sector: &str) -> (tempfile::TempDir, Loop) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.img");
    File::create(&file).unwrap().set_len(SIZE).unwrap();
    let device = Loop::new(&file, sector);
    (folder, device)
}

fn refusal(result: Result<Disk, InstallError>) -> DiskError {
    match result.unwrap_err() {
        InstallError::Disk(error) => error,
        error => panic!("{error}"),
    }
}

#[test]
fn a_device_becomes_a_disk_whatever_its_blocks() {
    for sector in ["512", "4096"] {
        let (folder, device) = blank_device(sector);
        let disk = install::create_disk(&device.0, SIZES).unwrap();
        assert!(run("sgdisk", &["-v", device.path()]).contains("No problems found"), "{sector}");
        for role in [Role::Oem, Role::State] {
            run("e2fsck", &["-f", "-n", disk.partition(role).unwrap().path.to_str().unwrap()]);
        }
        let esp = disk.partition(Role::Esp).unwrap();
        let said = run("fsck.fat", &["-n", "-v", esp.path.to_str().unwrap()]);
        assert!(said.contains(&format!("{sector} bytes per logical sector")), "{said}");
        let machine = Machine { folder, disk };
        let (a, record) = machine.fill_with("a", &CONTENT);
        install::make_bootable(&machine.disk, &a, &record).unwrap();
        let entries = boot::open(&machine.disk).unwrap().entries().unwrap();
        let report = slots::report(&machine.disk, &entries, &Memory::default()).unwrap();
        assert!(report[0].default && report[0].state == SlotState::Complete, "{sector}: {report:?}");
        // Its parts are no disks, and while one is used the disk is not touched.
        let state = machine.disk.partition(Role::State).unwrap().path.clone();
        assert!(matches!(refusal(install::replace_disk(&state, SIZES)), DiskError::Partition(_)));
        assert!(matches!(refusal(install::create_disk(&device.0, SIZES)), DiskError::Exists(_)));
        let mount = tempfile::tempdir().unwrap();
        run("mount", &[state.to_str().unwrap(), mount.path().to_str().unwrap()]);
        let refused = refusal(install::replace_disk(&device.0, SIZES));
        run("umount", &[mount.path().to_str().unwrap()]);
        assert!(matches!(refused, DiskError::InUse(_)), "{sector}: {refused}");
    }
}

#[test]
fn what_has_something_on_it_is_made_anew_only_when_told_to() {
    let machine = Machine::new();
    let path = machine.disk.path();
    machine.fill_with("a", &CONTENT);
    assert!(matches!(refusal(install::create_disk(path, SIZES)), DiskError::Exists(_)));
    let disk = install::replace_disk(path, SIZES).unwrap();
    let report = slots::report(&disk, &[], &Memory::default()).unwrap();
    assert!(report.iter().all(|slot| slot.state == SlotState::Empty), "{report:?}");
    // A file system without a partition table is something, too.
    let other = machine.folder.path().join("other.img");
    File::create(&other).unwrap().set_len(SIZE).unwrap();
    run("mke2fs", &["-q", "-F", other.to_str().unwrap()]);
    assert!(matches!(refusal(install::create_disk(&other, SIZES)), DiskError::Exists(_)));
}

#[test]
fn a_disk_that_lost_its_partition_table_is_not_blank() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    install::create_disk(&path, SIZES).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let table = vec![0; 1 << 20];
    file.write_all_at(&table, 0).unwrap();
    file.write_all_at(&table, SIZE - table.len() as u64).unwrap();
    assert!(matches!(refusal(install::create_disk(&path, SIZES)), DiskError::Exists(_)));
    install::replace_disk(&path, SIZES).unwrap();
}

#[test]
fn a_disk_that_is_too_small_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    File::create(&path).unwrap().set_len(600 << 20).unwrap();
    let error =
        refusal(install::replace_disk(&path, evenkeel_node_agent::disk::Sizes { disk: None, ..SIZES }));
    assert!(matches!(error, DiskError::Layout(_)), "{error}");
    assert!(fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn an_interrupted_disk_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    // As far as the table and the state partition, and then the power went.
    Disk::create(&path, SIZES, false).unwrap();
    assert!(Disk::is_unfinished(&path));
    // Or within the table.
    File::options().write(true).open(&path).unwrap().write_all_at(&[7; 512], 512).unwrap();
    let disk = install::create_disk(&path, SIZES).unwrap();
    assert!(!Disk::is_unfinished(&path) && boot::open(&disk).unwrap().entries().unwrap().is_empty());
    assert!(matches!(refusal(install::create_disk(&path, SIZES)), DiskError::Exists(_)));
}

#[test]
fn a_partition_that_is_held_open_for_a_moment_is_waited_for() {
    let (_folder, device) = blank_device("512");
    let disk = install::create_disk(&device.0, SIZES).unwrap();
    let held = File::open(&disk.partition(Role::Oem).unwrap().path).unwrap();
    let lets_go = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1500));
        drop(held);
    });
    install::replace_disk(&device.0, SIZES).unwrap();
    assert!(lets_go.is_finished());
    lets_go.join().unwrap();
}

/// As udev does, which is asked to leave the disk alone meanwhile.
#[test]
fn whoever_looks_into_a_disk_is_waited_for_and_kept_out() {
    let (_folder, device) = blank_device("512");
    let looks = File::open(&device.0).unwrap();
    looks.lock_shared().unwrap();
    let looks_away = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1500));
        drop(looks);
    });
    let disk = install::make_disk(&device.0, SIZES, false).unwrap();
    assert!(looks_away.is_finished());
    looks_away.join().unwrap();
    let looks = File::open(&device.0).unwrap();
    assert!(matches!(looks.try_lock_shared(), Err(TryLockError::WouldBlock)));
    let _disk = disk.unclaimed();
    looks.try_lock_shared().unwrap();
}

#[test]
fn a_cloud_config_takes_the_place_of_the_one_before_and_of_nothing_else() {
    let (_folder, device) = blank_device("512");
    let disk = install::create_disk(&device.0, SIZES).unwrap();
    let oem = disk.partition(Role::Oem).unwrap().path.to_str().unwrap().to_owned();
    let document = |name: &str| run("debugfs", &["-R", &format!("cat /{name}"), &oem]);
    let mount = tempfile::tempdir().unwrap();
    run("mount", &[&oem, mount.path().to_str().unwrap()]);
    fs::write(mount.path().join("mine.yaml"), "stages: {}\n").unwrap();
    // A running system has its own mounted.
    install::write_cloud_config(&disk, "hostname: one\n").unwrap();
    run("umount", &[mount.path().to_str().unwrap()]);
    assert!(document("cloud-config.yaml").contains("hostname: one"));
    install::write_cloud_config(&disk, "hostname: two\n").unwrap();
    assert!(document("cloud-config.yaml").contains("hostname: two"));
    assert!(document("mine.yaml").contains("stages: {}"));
    assert!(!run("debugfs", &["-R", "ls -p /", &oem]).contains(".new"));
    // What cannot be mounted is made anew.
    File::options().write(true).open(&oem).unwrap().write_all_at(&[0; 4096], 0).unwrap();
    install::write_cloud_config(&disk, "hostname: three\n").unwrap();
    assert!(document("cloud-config.yaml").contains("hostname: three"));
}
