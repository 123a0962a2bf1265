//! Disks that became larger: in files, judged by sgdisk, and as devices whose state is mounted, judged by the kernel and
//! e2fsck. Needs root.

#[path = "machine_on_disk/loop_device.rs"]
mod loop_device;
mod machine_on_disk;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use evenkeel_node_agent::{
    disk::{Disk, DiskError, TableGrowth},
    grow::{self, FileSystem, GrowError, Grown},
    install,
};
use evenkeel_node_agent_core::layout::Role;
use loop_device::Loop;
use machine_on_disk::{Content, Machine, SIZE, SIZES, path, run};
use nix::sys::statvfs::statvfs;

const LARGE: u64 = 3000 << 20;
const PROC: &str = "/proc";
const CONTENT: Content<'_> = Content {
    loader: ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", b"MZ"),
    kernel: b"kernel",
    initrd: b"initrd",
    kernel_options: "",
};

fn set_length(file: &Path, length: u64) {
    File::options().write(true).open(file).unwrap().set_len(length).unwrap();
}

fn partitions(disk: &Path) -> Vec<(String, String, u64, u64)> {
    let disk = Disk::open(disk).unwrap();
    let all = disk.partitions().iter();
    all.map(|part| (part.name.clone(), part.part_uuid.clone(), part.disk_offset, part.length)).collect()
}

/// Where tables are.
fn edges(file: &Path) -> [Vec<u8>; 2] {
    let file = File::open(file).unwrap();
    [0, file.metadata().unwrap().len() - (1 << 20)].map(|at| {
        let mut bytes = vec![0; 1 << 20];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    })
}

fn is_clean(disk: &Path) {
    let said = run("sgdisk", &["-v", path(disk)]);
    assert!(said.contains("No problems found"), "{said}");
}

fn agent(disk: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    let output = command.arg("grow").arg("--disk").arg(disk).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_disk_in_a_file_is_used_to_its_end_and_once() {
    let machine = Machine::new();
    let (slot, record) = machine.fill_with("a", &CONTENT);
    let file = machine.disk.path();
    let before = partitions(file);
    let (code, said) = agent(file);
    assert!(code == 0 && said.contains("has the whole disk already"), "{code} {said}");
    assert_eq!(partitions(file), before);

    set_length(file, LARGE);
    // The second copy of its table lies in the middle, and is not lost for that.
    assert!(machine.disk.lost_of_table().unwrap().is_empty());
    assert!(matches!(machine.disk.unused().unwrap(), (1.., true)));
    let (code, said) = agent(file);
    assert!(
        code == 0 && said.contains("written for the whole disk") && said.contains("next boot"),
        "{code} {said}"
    );
    let after = partitions(file);
    let (old, new) = (&before[5], &after[5]);
    assert_eq!((&before[..5], &before[6..]), (&after[..5], &after[6..]));
    assert_eq!((&old.0, &old.1, old.2), (&new.0, &new.1, new.2));
    assert_eq!(new.2 + new.3, LARGE - 33 * 512);
    assert!(machine.disk.lost_of_table().unwrap().is_empty());
    assert_eq!(machine.disk.unused().unwrap(), (0, false));
    assert_eq!(slot.read_record().unwrap(), record);
    is_clean(file);
    let bytes = edges(file);
    assert!(agent(file).1.contains("has the whole disk already"));
    assert!(edges(file) == bytes);

    // What a power cut leaves of the copy that is written last.
    let first = File::options().write(true).open(file).unwrap();
    first.write_all_at(&[7; 512], 2 * 512).unwrap();
    assert_eq!(Disk::grow_table(file).unwrap(), TableGrowth::Written);
    assert!(edges(file) == bytes);

    // A disk that became smaller keeps what it has.
    set_length(file, SIZE);
    assert!(matches!(Disk::grow_table(file), Err(DiskError::Table { .. })));
    set_length(file, LARGE + (1 << 20));
    // A little more: the second copy moves alone.
    assert_eq!(Disk::grow_table(file).unwrap(), TableGrowth::Written);
    assert_eq!(partitions(file), after);
    is_clean(file);
}

/// As `disk mend` left it at the place where the disk ended before.
#[test]
fn a_larger_disk_is_mended_at_its_end() {
    let machine = Machine::new();
    let (file, before) = (machine.disk.path(), partitions(machine.disk.path()));
    set_length(file, LARGE);
    let mended = Disk::mend_table(file).unwrap();
    assert!(mended.lost.is_empty() && mended.moved, "nothing was lost: {mended:?}");
    assert!(Disk::mend_table(file).unwrap().was_whole());
    assert_eq!(partitions(file), before);
    is_clean(file);
    assert_eq!(Disk::grow_table(file).unwrap(), TableGrowth::Written);
    assert!(partitions(file)[5].3 > before[5].3);
    is_clean(file);
}

#[test]
fn another_last_partition_keeps_the_table_as_it_is() {
    let machine = Machine::new();
    let file = machine.disk.path();
    set_length(file, SIZE + (100 << 20));
    run("sgdisk", &["--move-second-header", "--new=8:0:+10M", "--change-name=8:data", path(file)]);
    set_length(file, LARGE);
    let bytes = edges(file);
    let (code, said) = agent(file);
    assert!(code == 3 && said.contains("last partition is not evenkeel-state"), "{code} {said}");
    assert!(edges(file) == bytes);
}

/// Whether the kernel lets this process resize file systems (`CAP_SYS_RESOURCE`, number 24 in `uapi/linux/capability.h`),
/// which not every container's root may.
fn may_resize() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(capabilities.trim(), 16).unwrap() & 1 << 24 != 0
}

/// A device of ours, with its state mounted.
struct Mounted {
    device: Loop,
    file: PathBuf,
    mount: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mounted {
    fn new(sector: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, mount) = (folder.path().join("device.img"), folder.path().join("state"));
        File::create(&file).unwrap().set_len(SIZE).unwrap();
        fs::create_dir(&mount).unwrap();
        let device = Loop::new(&file, sector);
        install::create_disk(&device.0, SIZES).unwrap();
        let mounted = Self { device, file, mount, _folder: folder };
        mounted.mount();
        mounted
    }

    fn mount(&self) {
        run("mount", &[path(&self.state()), path(&self.mount)]);
    }

    fn state(&self) -> PathBuf {
        Disk::open(&self.device.0).unwrap().partition(Role::State).unwrap().path.clone()
    }

    fn resize(&self, length: u64) {
        set_length(&self.file, length);
        run("losetup", &["--set-capacity", self.device.path()]);
    }

    fn grow(&self) -> Grown {
        grow::grow(&self.device.0, Path::new(PROC)).unwrap()
    }

    /// Bytes of the file system before and after. Where this process may not ask the kernel for it, which has to refuse it
    /// then, resize2fs does what was asked for while nothing is mounted.
    fn grow_file_system(&self) -> (u64, u64) {
        let before = statvfs(&self.mount).unwrap().blocks();
        match grow::grow(&self.device.0, Path::new(PROC)) {
            Ok(Grown { file_system: FileSystem::Grown(old, new), .. }) => {
                assert!(statvfs(&self.mount).unwrap().blocks() > before);
                (old, new)
            }
            Err(GrowError::Resize { blocks, source, .. }) if !may_resize() => {
                assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
                eprintln!("without CAP_SYS_RESOURCE: not grown by the kernel");
                run("umount", &[path(&self.mount)]);
                let state = self.state();
                run("e2fsck", &["-f", "-p", path(&state)]);
                let said = run("resize2fs", &[path(&state), &blocks.to_string()]);
                assert!(said.contains(&format!("is now {blocks} (4k) blocks long")), "{said}");
                self.mount();
                (before * 4096, blocks * 4096)
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).output();
    }
}

#[test]
fn a_mounted_state_grows_whatever_the_disks_blocks() {
    for (sector, bytes) in [("512", 512), ("4096", 4096)] {
        let mounted = Mounted::new(sector);
        let before = fs::metadata(mounted.state()).unwrap();
        fs::write(mounted.mount.join("mine"), "mine").unwrap();
        assert_eq!(
            (mounted.grow().table, mounted.grow().file_system),
            (TableGrowth::Whole, FileSystem::Whole)
        );
        mounted.resize(LARGE);
        let (old, new) = mounted.grow_file_system();
        let grown = mounted.grow();
        assert_eq!((grown.table, grown.file_system), (TableGrowth::Whole, FileSystem::Whole), "{sector}");
        assert!(old < 300 << 20 && new > 2100 << 20 && new <= grown.partition, "{old} {new} {grown:?}");
        // The kernel knows the partition, which is the same one, and the room is there.
        let known = run("blockdev", &["--getsize64", path(&mounted.state())]);
        assert_eq!(known.trim(), grown.partition.to_string());
        let tables = (16 << 10) + bytes;
        assert_eq!(partitions(&mounted.device.0)[5].2 + grown.partition, LARGE - tables);
        assert!(fs::metadata(mounted.state()).unwrap().file_type() == before.file_type());
        is_clean(&mounted.device.0);
        let content = vec![7; 1 << 20];
        for number in 0..400 {
            fs::write(mounted.mount.join(number.to_string()), &content).unwrap();
        }
        run("umount", &[path(&mounted.mount)]);
        run("e2fsck", &["-f", "-n", path(&mounted.state())]);
        mounted.mount();
        assert_eq!(fs::read_to_string(mounted.mount.join("mine")).unwrap(), "mine");
        assert!(fs::read(mounted.mount.join("399")).unwrap() == content);
    }
}

/// Each step may be the last one before the power goes.
#[test]
fn what_was_cut_off_is_gone_on_with() {
    let mounted = Mounted::new("512");
    mounted.resize(LARGE);
    // The table alone.
    assert_eq!(Disk::grow_table(&mounted.device.0).unwrap(), TableGrowth::Written);
    let known = run("blockdev", &["--getsize64", path(&mounted.state())]);
    let disk = Disk::open(&mounted.device.0).unwrap();
    assert!(known.trim().parse::<u64>().unwrap() < disk.partition(Role::State).unwrap().length);
    // And the kernel, with no file system that it could grow.
    run("umount", &[path(&mounted.mount)]);
    let grown = mounted.grow();
    assert_eq!((grown.table, grown.file_system), (TableGrowth::Whole, FileSystem::NotMounted));
    run("mount", &["-o", "ro", path(&mounted.state()), path(&mounted.mount)]);
    assert_eq!(mounted.grow().file_system, FileSystem::NotMounted);
    run("mount", &["-o", "remount,rw", path(&mounted.mount)]);
    mounted.grow_file_system();
    assert_eq!(mounted.grow().file_system, FileSystem::Whole);
}

/// The recovery slot, which has no state mounted, leaves the disk as it is.
#[test]
fn a_boot_grows_what_is_mounted_and_no_failure_ends_it() {
    let mounted = Mounted::new("512");
    mounted.resize(LARGE);
    let disk = Disk::open(&mounted.device.0).unwrap();
    let length = |disk: &Disk| partitions(disk.path())[5].3;
    let before = length(&disk);
    run("umount", &[path(&mounted.mount)]);
    grow::at_boot(&disk, Path::new(PROC));
    assert_eq!(length(&disk), before);
    mounted.mount();
    grow::at_boot(&disk, Path::new("/nowhere"));
    assert_eq!(length(&disk), before);
    grow::at_boot(&disk, Path::new(PROC));
    assert!(length(&disk) > before);
    if may_resize() {
        assert_eq!(mounted.grow().file_system, FileSystem::Whole);
    }
}
