//! A boot partition on which others have left half a change: a kernel that had it mounted, or firmware that counted a
//! try, when the power went. What they leave is written here byte by byte, and fsck.fat judges what the agent makes of
//! it.

mod machine_on_disk;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt as _,
};

use evenkeel_node_agent::{
    boot::{self, Bootloader, Loader},
    disk::{SlotRegion, Window},
    esp::{self, Esp, EspFile},
    install,
};
use evenkeel_node_agent_core::{layout::Role, slot_record::SlotRecord};
use machine_on_disk::{Content, Machine, path};

const LOADER: (&str, &[u8]) = ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", b"MZ, and no more");
/// A size that no other file here has.
const MARKED: usize = 4321;
/// All directories lie in the first bytes of a young partition.
const DIRECTORIES: usize = 16 << 20;
const ENTRY: usize = 32;
/// Attributes of what is no file: a directory, the label, parts of long names.
const NO_FILE: u8 = 0x18;
const REMOVED: u8 = 0xE5;
/// Marks of clusters in the table.
const LAST_OF_A_FILE: u32 = 0x0FFF_FFFF;
const BAD: u32 = 0x0FFF_FFF7;

impl Machine {
    fn fill(&self, name: &str, kernel: &[u8]) -> (SlotRegion, SlotRecord) {
        let initrd = vec![7; 3 << 20];
        self.fill_with(name, &Content { loader: LOADER, kernel, initrd: &initrd, kernel_options: "" })
    }

    fn esp(&self) -> Box<dyn Esp> {
        esp::open(&self.disk).unwrap()
    }

    fn bytes(&self) -> Window {
        self.disk.partition(Role::Esp).unwrap().open(evenkeel_node_agent::disk::Access::Write).unwrap()
    }

    fn content(&self, path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(self.esp().read(path, &mut bytes).unwrap(), "{path} is not there");
        bytes
    }

    /// Place and bytes of the only directory entry of a file of so many bytes.
    fn entry(&self, size: usize) -> (u64, [u8; ENTRY]) {
        let mut bytes = vec![0; DIRECTORIES];
        self.bytes().read_at(0, &mut bytes).unwrap();
        let size = u32::try_from(size).unwrap().to_le_bytes();
        // The tables of clusters lie there too, and a number in them may be the size.
        let is_name = |name: &[u8]| name.iter().all(|letter| *letter >= b' ');
        let of_that_size = |(_, entry): &(usize, &[u8])| {
            entry[11] & NO_FILE == 0 && entry[28..] == size && entry[0] != REMOVED && is_name(&entry[..11])
        };
        let found: Vec<_> = bytes.chunks_exact(ENTRY).enumerate().filter(of_that_size).collect();
        assert_eq!(found.len(), 1, "entries with the size {size:?}");
        ((found[0].0 * ENTRY) as u64, found[0].1.try_into().unwrap())
    }

    /// Gives a file of so many bytes a second name, as a rename does before the first is gone.
    fn name_twice(&self, size: usize, second: &str) {
        let (_, first) = self.entry(size);
        self.esp().write(second, &mut &vec![1; MARKED][..]).unwrap();
        let (at, mut entry) = self.entry(MARKED);
        entry[20..].copy_from_slice(&first[20..]);
        self.bytes().write_at(at, &entry).unwrap();
    }

    /// Leaves no more than so many clusters free: the others are taken, and nothing with a name has them.
    fn lose_all_but(&self, left: usize) {
        self.mark_all_but(left, LAST_OF_A_FILE);
    }

    /// Leaves no more than so many clusters free; the others get a mark in the table.
    fn mark_all_but(&self, left: usize, mark: u32) {
        let (bytes, mut boot) = (self.bytes(), [0; 512]);
        bytes.read_at(0, &mut boot).unwrap();
        let short = |at: usize| usize::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let length = u32::from_le_bytes(boot[36..40].try_into().unwrap()) as usize * 512;
        let mut table = vec![0; length];
        let first = short(14) * 512;
        bytes.read_at(first as u64, &mut table).unwrap();
        let free = table.chunks_exact_mut(4).filter(|entry| **entry == [0; 4]);
        free.skip(left).for_each(|entry| entry.copy_from_slice(&mark.to_le_bytes()));
        for copy in 0..usize::from(boot[16]) {
            bytes.write_at((first + copy * length) as u64, &table).unwrap();
        }
        // The count of free clusters is one that nobody knows.
        bytes.write_at((short(48) * 512 + 488) as u64, &[0xFF; 4]).unwrap();
    }

    /// What fsck.fat says: whether anything is wrong, and its words.
    fn judged(&self) -> (bool, String) {
        let partition = self.disk.partition(Role::Esp).unwrap();
        let (disk, copy) = (File::open(self.disk.path()).unwrap(), self.folder.path().join("esp.img"));
        let file = File::create(&copy).unwrap();
        file.set_len(partition.length).unwrap();
        let mut bytes = vec![0; 1 << 20];
        for at in (0..partition.length).step_by(bytes.len()) {
            disk.read_exact_at(&mut bytes, partition.offset + at).unwrap();
            if bytes.iter().any(|byte| *byte != 0) {
                file.write_all_at(&bytes, at).unwrap();
            }
        }
        let said = std::process::Command::new("fsck.fat").args(["-n", path(&copy)]).output().unwrap();
        (said.status.success(), String::from_utf8_lossy(&said.stdout).into_owned())
    }
}

fn loader(machine: &Machine) -> Box<dyn Bootloader> {
    boot::open(&machine.disk).unwrap()
}

#[test]
fn a_file_with_two_names_outlives_either_of_them() {
    let machine = Machine::new();
    let (a, record) = machine.fill("a", b"kernel one");
    install::make_bootable(&machine.disk, &a, &record).unwrap();
    let (esp, bytes) = (machine.esp(), vec![5; 70_001]);
    for (kept, goes) in [("evenkeel/kept", "evenkeel/goes"), ("evenkeel/goes", "evenkeel/kept")] {
        esp.write("evenkeel/kept", &mut &bytes[..]).unwrap();
        machine.name_twice(bytes.len(), "evenkeel/goes");
        assert!(machine.judged().1.contains("share clusters"));
        esp.remove(goes).unwrap();
        // What is written now takes the first clusters that are free.
        esp.write("evenkeel/later", &mut &vec![6; 200_000][..]).unwrap();
        assert_eq!(machine.content(kept), bytes);
        esp.remove(kept).unwrap();
        esp.remove("evenkeel/later").unwrap();
    }
    esp.reclaim().unwrap();
    assert!(machine.judged().0, "{}", machine.judged().1);
}

/// Firmware has the old name and the new one when it counts a try.
#[test]
fn a_trial_that_was_counted_by_halves_is_kept_under_one_name() {
    let machine = Machine::new();
    let (a, record_a) = machine.fill("a", b"kernel one");
    install::make_bootable(&machine.disk, &a, &record_a).unwrap();
    let (b, mut record_b) = machine.fill("b", b"kernel two");
    // So that its entry has a length of its own.
    record_b.kernel_options = "quiet".into();
    loader(&machine).arm_trial(&b, &record_b, 3).unwrap();
    let trial = machine.content("loader/entries/evenkeel-b+3.conf");
    machine.name_twice(trial.len(), "loader/entries/evenkeel-b+2-1.conf");
    assert_eq!(loader(&machine).entries().unwrap().len(), 3);

    loader(&machine).commit("b").unwrap();
    let entries = loader(&machine).entries().unwrap();
    let names: Vec<_> = entries.iter().map(|entry| (entry.name.slot.as_str(), entry.name.tries)).collect();
    assert_eq!(names, [("a", None), ("b", None)]);
    machine.esp().write("loader/later", &mut &vec![6; 200_000][..]).unwrap();
    assert_eq!(machine.content("loader/entries/evenkeel-b.conf"), trial);
    machine.esp().reclaim().unwrap();
    assert!(machine.judged().0, "{}", machine.judged().1);
}

#[test]
fn room_that_was_lost_is_found_when_it_is_needed() {
    let machine = Machine::new();
    let (a, record_a) = machine.fill("a", b"kernel one");
    install::make_bootable(&machine.disk, &a, &record_a).unwrap();
    let old = machine.content("loader/entries/evenkeel-a.conf");
    let (b, record_b) = machine.fill("b", &vec![9; 4 << 20]);
    let free = machine.esp().free().unwrap();
    machine.lose_all_but(64);
    assert!(machine.esp().free().unwrap() < 1 << 20);
    assert!(machine.judged().1.contains("Reclaimed"), "{}", machine.judged().1);

    loader(&machine).arm_trial(&b, &record_b, 3).unwrap();
    assert!(machine.esp().free().unwrap() > free - (8 << 20));
    assert_eq!(machine.content("loader/entries/evenkeel-a.conf"), old);
    assert!(machine.judged().0, "{}", machine.judged().1);
}

/// Slots with the same kernel and initrd share them: what has rotted would boot neither.
#[test]
fn a_kernel_or_initrd_that_has_rotted_is_written_again() {
    let machine = Machine::new();
    let kernel = &vec![9; 70_001];
    let (a, record_a) = machine.fill("a", kernel);
    install::make_bootable(&machine.disk, &a, &record_a).unwrap();
    let (b, record_b) = machine.fill("b", kernel);
    for (kind, file) in [("vmlinuz", &record_b.kernel), ("initrd", &record_b.initrd)] {
        let path = format!("evenkeel/{kind}-{}", &file.sha256[..16]);
        let good = machine.content(&path);
        let mut rotten = good.clone();
        rotten[good.len() / 2] ^= 1;
        machine.esp().overwrite(&path, &rotten).unwrap();
        loader(&machine).place_files(&b, &record_b).unwrap();
        assert!(machine.content(&path) == good, "{path}");
        let files = machine.esp().list("evenkeel").unwrap();
        assert_eq!(files.len(), 2, "{files:?}");
    }
    assert!(machine.judged().0, "{}", machine.judged().1);
}

/// As one is that a kernel has mounted read-only.
struct TakesNothing(Box<dyn Esp>);

impl Esp for TakesNothing {
    fn read(&self, path: &str, sink: &mut dyn Write) -> io::Result<bool> {
        self.0.read(path, sink)
    }
    fn write(&self, _: &str, _: &mut dyn Read) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "it is mounted read-only at /boot"))
    }
    fn overwrite(&self, path: &str, _: &[u8]) -> io::Result<()> {
        self.write(path, &mut io::empty())
    }
    fn rename(&self, path: &str, _: &str) -> io::Result<()> {
        self.write(path, &mut io::empty())
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.write(path, &mut io::empty())
    }
    fn list(&self, folder: &str) -> io::Result<Vec<EspFile>> {
        self.0.list(folder)
    }
    fn reclaim(&self) -> io::Result<()> {
        self.write("", &mut io::empty())
    }
    fn free(&self) -> io::Result<u64> {
        self.0.free()
    }
}

#[test]
fn a_trial_on_a_partition_that_is_mounted_read_only_is_refused_with_what_helps() {
    let machine = Machine::new();
    let (a, record_a) = machine.fill("a", b"kernel one");
    install::make_bootable(&machine.disk, &a, &record_a).unwrap();
    let before = loader(&machine).entries().unwrap();
    // One that has kernel and initrd already, and one that has not.
    for kernel in [&b"kernel one"[..], b"kernel two"] {
        let (b, record_b) = machine.fill("b", kernel);
        let loader = boot::SystemdBoot::new(Box::new(TakesNothing(machine.esp())));
        let error = loader.arm_trial(&b, &record_b, 3).unwrap_err();
        assert_eq!((error.reason(), error.retryable()), ("EspReadOnly", false));
        let said = format!("{:#}", anyhow::Error::from(error));
        assert!(said.contains("remount,rw") && said.contains("at /boot"), "{said}");
        assert_eq!(loader.entries().unwrap(), before);
    }
}

/// Kernel and initrd are there already: only the entry is missing.
#[test]
fn a_trial_whose_entry_does_not_fit_is_refused() {
    const GRUB: (&str, &[u8]) = ("usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", b"MZ");
    for (program, kind) in [(LOADER, Loader::SystemdBoot), (GRUB, Loader::Grub)] {
        let machine = Machine::new();
        let content = Content { loader: program, kernel: b"kernel", initrd: b"initrd", kernel_options: "" };
        let (a, record_a) = machine.fill_with("a", &content);
        install::make_bootable_with(&machine.disk, &a, &record_a, kind).unwrap();
        let (b, record_b) = machine.fill_with("b", &content);
        let before = loader(&machine).entries().unwrap();
        machine.mark_all_but(1, BAD);
        let error = loader(&machine).arm_trial(&b, &record_b, 3).unwrap_err();
        assert_eq!((error.reason(), error.retryable()), ("EspFull", false), "{kind:?}: {error}");
        assert_eq!(loader(&machine).entries().unwrap(), before, "{kind:?}");
    }
}
