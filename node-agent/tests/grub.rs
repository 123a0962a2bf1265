//! GRUB's files on a disk's boot partition, judged by GRUB's own programs: grub-editenv, grub-script-check,
//! grub-fstest.

mod machine_on_disk;

use std::fs;

use evenkeel_node_agent::{
    boot::{self, BootError, Bootloader, Loader},
    disk::SlotRegion,
    esp,
    install::{self, InstallError},
    slots::{self, Memory},
};
use evenkeel_node_agent_core::{
    grub_env::{GrubEnv, LENGTH},
    layout::Role,
    slot_record::SlotRecord,
};
use machine_on_disk::{Content, Machine, run};

const GRUB: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
const ENV: &str = "evenkeel/grub/grubenv";

impl Machine {
    /// One that boots slot a by GRUB.
    fn installed() -> Self {
        let machine = Self::new();
        let (a, record) = machine.fill("a");
        install::make_bootable_with(&machine.disk, &a, &record, Loader::Grub).unwrap();
        machine
    }

    /// A slot with a file system that has GRUB in it, and kernel and initrd behind that.
    fn fill(&self, name: &str) -> (SlotRegion, SlotRecord) {
        let kernel = format!("kernel of {name}");
        self.fill_with(
            name,
            &Content {
                loader: (GRUB, b"MZ stands for GRUB"),
                kernel: kernel.as_bytes(),
                initrd: b"initrd",
                kernel_options: "quiet dyndbg=+p;x $root",
            },
        )
    }

    fn grub(&self) -> Box<dyn Bootloader> {
        boot::open(&self.disk).unwrap()
    }

    /// A file of the boot partition as GRUB's own FAT driver reads it.
    fn read(&self, path: &str) -> Vec<u8> {
        let to = self.folder.path().join("read");
        let esp = self.folder.path().join("esp.img");
        let partition = self.disk.partition(Role::Esp).unwrap();
        let place = [partition.disk_offset, partition.length].map(|bytes| (bytes >> 20).to_string());
        let (skip, count) = (format!("skip={}", place[0]), format!("count={}", place[1]));
        let files = [format!("if={}", self.disk.path().display()), format!("of={}", esp.display())];
        run("dd", &["bs=1M", "conv=sparse", "status=none", &skip, &count, &files[0], &files[1]]);
        let _ = fs::remove_file(&to);
        run("grub-fstest", &[esp.to_str().unwrap(), "cp", &format!("(loop0)/{path}"), to.to_str().unwrap()]);
        fs::read(&to).unwrap()
    }

    /// A variable of GRUB's environment, as GRUB's own program lists it.
    fn variable(&self, name: &str) -> Option<String> {
        let block = self.folder.path().join("grubenv");
        fs::write(&block, self.read(ENV)).unwrap();
        let listing = run("grub-editenv", &[block.to_str().unwrap(), "list"]);
        let value = listing.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// What GRUB does to its environment, by GRUB's own program, in place.
    fn edit(&self, setting: &str) {
        let block = self.folder.path().join("grubenv");
        fs::write(&block, self.read(ENV)).unwrap();
        run("grub-editenv", &[block.to_str().unwrap(), "set", setting]);
        let bytes = fs::read(&block).unwrap();
        esp::open(&self.disk).unwrap().overwrite(ENV, &bytes).unwrap();
    }

    fn script(&self, path: &str) -> String {
        let file = self.folder.path().join("script");
        let bytes = self.read(path);
        fs::write(&file, &bytes).unwrap();
        run("grub-script-check", &[file.to_str().unwrap()]);
        String::from_utf8(bytes).unwrap()
    }

    /// The slot that boots next, and its tries.
    fn next(&self) -> (String, Option<u32>) {
        let entries = self.grub().entries().unwrap();
        let report = slots::report(&self.disk, &entries, &Memory::default()).unwrap();
        let next = report.into_iter().find(|slot| slot.default).unwrap();
        (next.name, next.tries_left)
    }
}

#[test]
fn what_is_installed_is_what_grub_reads() {
    let machine = Machine::new();
    let (a, record) = machine.fill("a");
    install::make_bootable_with(&machine.disk, &a, &record, Loader::Grub).unwrap();
    assert_eq!(machine.read("EFI/BOOT/BOOTX64.EFI"), b"MZ stands for GRUB");
    machine.script("EFI/debian/grub.cfg");
    let script = machine.script("evenkeel/grub/a.cfg");
    assert!(script.contains(&format!(" evenkeel.roothash={} ", record.root_hash)), "{script}");
    assert!(script.contains(" 'dyndbg=+p;x' '$root' "), "{script}");
    let kernel = script.lines().find_map(|line| line.strip_prefix("linux /")).unwrap();
    assert_eq!(machine.read(kernel.split(' ').next().unwrap()), b"kernel of a");
    assert_eq!(machine.variable("saved_entry").as_deref(), Some("evenkeel-a"));
    assert_eq!(machine.next(), ("a".into(), None));
    // A first boot in which GRUB writes nothing is known before the first trial.
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let asked = format!("asked:{}", boot_id.trim().replace('-', ""));
    assert_eq!(machine.variable("evenkeel_loader"), Some(asked));
    // A disk keeps its loader.
    let other = install::make_bootable(&machine.disk, &a, &record).unwrap_err();
    assert!(matches!(other, InstallError::OtherLoader("GRUB")), "{other}");
}

#[test]
fn a_trial_is_one_write_of_the_block_and_is_kept_or_gone_by_another() {
    let machine = Machine::installed();
    let (b, record) = machine.fill("b");
    let grub = machine.grub();
    machine.edit("kernelopts=a person's own");
    grub.arm_trial(&b, &record, 3).unwrap();
    machine.script("evenkeel/grub/b.cfg");
    assert_eq!((machine.next(), machine.read(ENV).len()), (("b".into(), Some(3)), 1024));
    for left in ["2", "1", "0"] {
        machine.edit(&format!("evenkeel_tries={left}"));
    }
    // Used up: GRUB's configuration boots the kept one, and so do we think.
    assert_eq!(machine.next().0, "a");
    machine.edit("evenkeel_loader=writes");
    grub.arm_trial(&b, &record, 2).unwrap();
    for slot in ["a", "b", "b"] {
        grub.disarm(slot).unwrap();
    }
    assert_eq!((machine.next(), machine.variable("evenkeel_trial")), (("a".into(), None), None));
    assert!(matches!(grub.commit("b"), Err(BootError::NoEntry(_))));
    grub.arm_trial(&b, &record, 2).unwrap();
    grub.commit("b").unwrap();
    grub.commit("b").unwrap();
    assert_eq!((machine.next(), machine.variable("evenkeel_trial")), (("b".into(), None), None));
    assert_eq!(machine.variable("saved_entry").as_deref(), Some("evenkeel-b"));
    assert_eq!(machine.variable("kernelopts").as_deref(), Some("a person's own"));
    grub.clear("b").unwrap();
    assert_eq!(machine.next(), ("a".into(), None));
    assert_eq!(machine.variable("saved_entry").as_deref(), Some("evenkeel-a"));
}

#[test]
fn a_grub_that_cannot_write_gets_no_second_trial() {
    let machine = Machine::installed();
    let (b, record) = machine.fill("b");
    let grub = machine.grub();
    machine.edit("evenkeel_loader=asked:another-boot");
    let error = grub.arm_trial(&b, &record, 3).unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("LoaderCannotCount", false));
    assert_eq!((machine.next(), machine.variable("evenkeel_trial")), (("a".into(), None), None));
    machine.edit("evenkeel_loader=writes");
    grub.arm_trial(&b, &record, 3).unwrap();
    assert!(machine.variable("evenkeel_loader").unwrap().starts_with("asked:"));
}

#[test]
fn an_image_without_grub_is_refused() {
    let machine = Machine::new();
    let (a, record) = machine.fill("a");
    a.open_rw().unwrap().write_at(0, &[0; 8192]).unwrap();
    let error = install::make_bootable_with(&machine.disk, &a, &record, Loader::Grub).unwrap_err();
    assert!(error.to_string().contains("grub-efi-amd64-bin"), "{error}");
}

#[test]
fn odd_blocks_are_read_as_grub_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let block = folder.path().join("grubenv");
    for lines in
        ["a=1\n", "x\\=1\na=\\\\2\n", "two\nlines=1\n", "a=never ends", "# c\\\na=1\nx\\=2\n", "a=1\na=2\n"]
    {
        let mut bytes = format!("# GRUB Environment Block\n{lines}").into_bytes();
        bytes.resize(LENGTH, b'#');
        fs::write(&block, &bytes).unwrap();
        let listing = format!("\n{}", run("grub-editenv", &[block.to_str().unwrap(), "list"]));
        let env = GrubEnv::decode(&bytes).unwrap();
        for name in ["a", "x\\", "two\nlines"] {
            let mark = format!("\n{name}=");
            let said = listing.rfind(&mark).map(|at| listing[at + mark.len()..].lines().next().unwrap());
            assert_eq!(env.get(name), said, "{name:?} of {lines:?}");
        }
    }
}
