//! The initrd's own shell, on the boot partition that the agent wrote: a kept slot whose bytes are not what was written, or
//! cannot be read, gives way to another one, whichever loader boots, and a trial is counted that its loader could not
//! count. Needs root, for a mount that nobody else sees. A kernel need not have vfat for it: the folders that matter are
//! copied out, and what is renamed there is renamed on the partition.

mod machine_on_disk;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::Path,
    process::Command,
};

use evenkeel_node_agent::{
    boot::{self, Loader},
    esp, install,
    slots::{self, Memory},
};
use machine_on_disk::{Content, Machine};

const LIBRARY: &str = include_str!("../src/init/files/dracut/evenkeel-lib.sh");
/// What the library asks of dracut, the kernel and the machine; the slot of that name runs, and its bytes are not what was
/// written.
const AROUND: &str = r#"
getarg() { case $1 in evenkeel.slot=) echo "$slot" ;; evenkeel.blocks=) echo 8 ;; *) return 1 ;; esac; }
dmsetup() { echo "0 8 verity ${found:-C} -"; }
evenkeel_slot_device() { echo "$device"; }
evenkeel_mapped() { true; }
evenkeel_told() { [ "$1" = LoaderInfo ]; }
evenkeel_partition() { echo "$folder"; }
evenkeel_say() { echo "$*"; }
mount -t tmpfs tmpfs /run
mount() { [ "$1 $2" = "-t vfat" ] && command mount --bind "$3" "$4"; }
"#;

fn machine(loader: Loader) -> Machine {
    let machine = Machine::new();
    let programs =
        ["usr/lib/systemd/boot/efi/systemd-bootx64.efi", "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"];
    let program = programs[usize::from(loader == Loader::Grub)];
    for slot in ["b", "a"] {
        let kernel = format!("kernel of {slot}");
        let content = Content {
            loader: (program, b"MZ"),
            kernel: kernel.as_bytes(),
            initrd: b"initrd",
            kernel_options: "quiet",
        };
        let (region, record) = machine.fill_with(slot, &content);
        install::make_bootable_with(&machine.disk, &region, &record, loader).unwrap();
    }
    machine
}

const FOLDERS: [&str; 3] = ["loader/entries", "evenkeel/grub", "evenkeel"];

fn names(folder: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    files.filter(|file| file.path().is_file()).map(|file| file.file_name().into_string().unwrap()).collect()
}

/// What the library says when `slot` runs and does `what`.
fn in_initrd(machine: &Machine, slot: &str, what: &str) -> String {
    let esp = esp::open(&machine.disk).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for folder in FOLDERS {
        let files = esp.list(folder).unwrap();
        if !files.is_empty() {
            fs::create_dir_all(copy.path().join(folder)).unwrap();
        }
        for file in files {
            let path = format!("{folder}/{}", file.name);
            esp.read(&path, &mut File::create(copy.path().join(&path)).unwrap()).unwrap();
        }
    }
    let library = LIBRARY.replace(". /lib/dracut-lib.sh", ":");
    let folder = copy.path().display();
    let script = format!("folder='{folder}' slot={slot} device=/dev/zero\n{library}{AROUND}{what}");
    let output = Command::new("unshare").args(["--mount", "dash", "-c", &script]).output().unwrap();
    for folder in FOLDERS.iter().filter(|folder| copy.path().join(folder).exists()) {
        let before: BTreeSet<String> = esp.list(folder).unwrap().into_iter().map(|file| file.name).collect();
        let after = names(&copy.path().join(folder));
        let mut gone = (&before - &after).into_iter();
        for new in &after - &before {
            let to = format!("{folder}/{new}");
            match gone.next() {
                Some(from) => esp.rename(&format!("{folder}/{from}"), &to).unwrap(),
                None => esp.write(&to, &mut File::open(copy.path().join(&to)).unwrap()).unwrap(),
            }
        }
    }
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Slot a's boot fails.
fn boot_fails(machine: &Machine) -> String {
    in_initrd(machine, "a", "evenkeel_give_up")
}

/// The slot that boots next; and slot a's tries, if it has an entry.
fn next(machine: &Machine) -> (String, Option<u32>) {
    let entries = boot::open(&machine.disk).unwrap().entries().unwrap();
    let report = slots::report(&machine.disk, &entries, &Memory::default()).unwrap();
    let tries = report.iter().find(|slot| slot.name == "a").unwrap().tries_left;
    (report.into_iter().find(|slot| slot.default).unwrap().name, tries)
}

#[test]
fn a_damaged_kept_slot_gives_way_to_another() {
    for loader in [Loader::SystemdBoot, Loader::Grub] {
        let machine = machine(loader);
        assert_eq!(next(&machine), ("a".into(), None));
        let said = boot_fails(&machine);
        assert!(said.contains("slot a is damaged and is given up"), "{loader:?}: {said}");
        assert_eq!(next(&machine), ("b".into(), Some(0)), "{loader:?}");
        // A second look, and the way back for a slot that was written again.
        boot_fails(&machine);
        assert_eq!(next(&machine), ("b".into(), Some(0)), "{loader:?}");
        let (slot, loader_of_disk) = (machine.disk.slot("a").unwrap(), boot::open(&machine.disk).unwrap());
        loader_of_disk.make_default(&slot, &slot.read_record().unwrap()).unwrap();
        assert_eq!(next(&machine), ("a".into(), None), "{loader:?}");
        let files = esp::open(&machine.disk).unwrap().list("evenkeel/grub").unwrap();
        assert!(files.iter().all(|file| !file.name.ends_with("given-up")), "{files:?}");
    }
}

/// What fails is not in the slot, until a read of it fails too: that of a folder does.
#[test]
fn a_kept_slot_that_the_disk_cannot_read_gives_way_and_one_that_it_reads_stays() {
    for loader in [Loader::SystemdBoot, Loader::Grub] {
        let machine = machine(loader);
        let fails =
            |device: &str| in_initrd(&machine, "a", &format!("found=V device={device}\nevenkeel_give_up"));
        assert!(!fails("/dev/zero").contains("given up"), "{loader:?}");
        assert_eq!(next(&machine), ("a".into(), None), "{loader:?}");
        assert!(fails("/proc").contains("slot a is damaged and is given up"), "{loader:?}");
        assert_eq!(next(&machine), ("b".into(), Some(0)), "{loader:?}");
    }
}

#[test]
fn a_damaged_slot_that_is_the_only_one_stays() {
    for loader in [Loader::SystemdBoot, Loader::Grub] {
        let machine = machine(loader);
        boot::open(&machine.disk).unwrap().clear("b").unwrap();
        assert!(!boot_fails(&machine).contains("given up"), "{loader:?}");
        assert_eq!(next(&machine), ("a".into(), None), "{loader:?}");
        // A trial that was used up is no other slot.
        let (slot, boot) = (machine.disk.slot("b").unwrap(), boot::open(&machine.disk).unwrap());
        boot.arm_trial(&slot, &slot.read_record().unwrap(), 1).unwrap();
        let esp = esp::open(&machine.disk).unwrap();
        match loader {
            Loader::SystemdBoot => {
                let folder = "loader/entries/evenkeel-b";
                esp.rename(&format!("{folder}+1.conf"), &format!("{folder}+0-1.conf")).unwrap();
            }
            Loader::Grub => {
                let path = "evenkeel/grub/grubenv";
                let mut block = Vec::new();
                esp.read(path, &mut block).unwrap();
                let used = String::from_utf8(block).unwrap().replace("evenkeel_tries=1", "evenkeel_tries=0");
                esp.overwrite(path, used.as_bytes()).unwrap();
            }
        }
        assert!(!boot_fails(&machine).contains("given up"), "{loader:?}");
        assert_eq!(next(&machine), ("a".into(), None), "{loader:?}");
    }
}

#[test]
fn a_trial_that_the_loader_cannot_count_ends_and_is_the_last() {
    let machine = machine(Loader::SystemdBoot);
    let arm = || {
        let (slot, boot) = (machine.disk.slot("b").unwrap(), boot::open(&machine.disk).unwrap());
        boot.arm_trial(&slot, &slot.read_record().unwrap(), 2)
    };
    // Nothing is counted for a slot that is kept.
    assert_eq!(in_initrd(&machine, "a", "evenkeel_count"), "");
    arm().unwrap();
    for slot in ["b", "b", "a"] {
        assert_eq!(next(&machine).0, slot);
        let said = in_initrd(&machine, slot, "evenkeel_count; evenkeel_counted && echo and on trial");
        let counted = said.contains("could not count this boot of slot b") && said.contains("and on trial");
        assert_eq!(counted, slot == "b", "{said}");
    }
    let error = arm().unwrap_err();
    let said = error.to_string();
    assert_eq!((error.reason(), error.retryable()), ("LoaderCannotCount", false));
    assert!(said.contains("remove /evenkeel/uncounted"), "{said}");
    assert_eq!(next(&machine).0, "a");
    // A person mended it.
    esp::open(&machine.disk).unwrap().remove("evenkeel/uncounted").unwrap();
    arm().unwrap();
    assert_eq!(next(&machine).0, "b");
}

#[test]
fn a_boot_that_the_loader_counted_is_not_counted_again() {
    let machine = machine(Loader::SystemdBoot);
    let (slot, boot) = (machine.disk.slot("b").unwrap(), boot::open(&machine.disk).unwrap());
    boot.arm_trial(&slot, &slot.read_record().unwrap(), 2).unwrap();
    for told in ["evenkeel_told() { true; }", "evenkeel_told() { false; }"] {
        assert_eq!(in_initrd(&machine, "b", &format!("{told}\nevenkeel_count")), "");
        boot.can_count().unwrap();
        let entries = boot.entries().unwrap();
        let tries = entries.iter().find_map(|entry| entry.name.tries).unwrap();
        assert_eq!((tries.left, tries.done), (2, 0));
    }
}
