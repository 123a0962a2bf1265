//! Kernels and initrds on a boot partition that are lost or damaged: `doctor` and `verify` tell, and `disk mend` writes
//! them again from the slots. One row for each loader and each way to be damaged.

mod machine_on_disk;

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, process::Command};

use evenkeel_node_agent::{
    boot::{self, Loader},
    esp, install,
    slots::{self, Memory},
};
use evenkeel_node_agent_core::slot_record::SlotRecord;
use machine_on_disk::{Content, Machine, run, sha256};

const SYSTEMD_BOOT: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const GRUB: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
const LOADERS: [(Loader, &str); 2] = [(Loader::SystemdBoot, SYSTEMD_BOOT), (Loader::Grub, GRUB)];
/// Larger than a cluster, so that a tail of it can be lost.
static KERNEL: [u8; 100_000] = [b'k'; 100_000];
static INITRD: [u8; 150_000] = [b'i'; 150_000];

fn agent(disk: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    let output = command.args(args).arg("--disk").arg(disk).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), said.concat())
}

/// Slot b is kept and boots; a was kept before, with another kernel and the same initrd.
fn installed(loader: (Loader, &str)) -> (Machine, SlotRecord, SlotRecord) {
    let machine = Machine::new();
    let content =
        |kernel| Content { loader: (loader.1, b"MZ"), kernel, initrd: &INITRD, kernel_options: "quiet" };
    let fill = |name, kernel| {
        let (region, record) = machine.fill_with(name, &content(kernel));
        install::make_bootable_with(&machine.disk, &region, &record, loader.0).unwrap();
        record
    };
    let old = fill("a", b"the old kernel");
    let kept = fill("b", &KERNEL);
    (machine, old, kept)
}

fn file(kind: &str, sha256: &str) -> String {
    format!("evenkeel/{kind}-{}", &sha256[..16])
}

fn sum(machine: &Machine, name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    esp::open(&machine.disk).unwrap().read(name, &mut bytes).unwrap().then(|| sha256(&bytes))
}

/// What boots: each entry as it is, and which slot is the default.
fn boots(machine: &Machine) -> String {
    let entries = boot::open(&machine.disk).unwrap().entries().unwrap();
    let report = slots::report(&machine.disk, &entries, &Memory::default()).unwrap();
    let defaults: Vec<_> = report.into_iter().map(|slot| (slot.name, slot.default)).collect();
    format!("{entries:?} {defaults:?}")
}

#[test]
fn a_lost_cut_or_changed_file_is_told_and_written_again() {
    for loader in LOADERS {
        let (machine, _, kept) = installed(loader);
        let disk = machine.disk.path();
        let (esp, before) = (esp::open(&machine.disk).unwrap(), boots(&machine));
        let mut logged = false;
        let whole = |said: &str| said.contains("nothing to mend");
        assert_eq!(agent(disk, &["doctor"]).0, 0, "{loader:?}");
        assert!(whole(&agent(disk, &["disk", "mend"]).1), "{loader:?}");
        for (kind, content) in [("vmlinuz", &kept.kernel), ("initrd", &kept.initrd)] {
            let name = file(kind, &content.sha256);
            let mut bytes = Vec::new();
            esp.read(&name, &mut bytes).unwrap();
            let cut = bytes[..bytes.len() / 2].to_vec();
            let mut changed = bytes;
            changed[70_000] ^= 1;
            for (what, damaged) in [
                ("is not there", None),
                ("is not what the slot holds", Some(cut)),
                ("is not what the slot holds", Some(changed)),
            ] {
                esp.remove(&name).unwrap();
                if let Some(damaged) = &damaged {
                    esp.write(&name, &mut &damaged[..]).unwrap();
                }
                let case = format!("{loader:?} {name} {:?}", damaged.map(|bytes| bytes.len()));
                let expected = format!("/{name} on the boot partition, by which slot b boots, {what}");

                let (code, said) = agent(disk, &["doctor"]);
                let finding = format!("FAIL  boot-files        {expected}");
                assert!(code == 7 && said.contains(&finding), "{case}: {code} {said}");
                assert!(said.contains("`evenkeel-agent disk mend`"), "{case}: {said}");

                let (code, said) = agent(disk, &["verify"]);
                assert!(code == 6 && said.matches(&expected).count() == 1, "{case}: {code} {said}");

                let (code, said) = agent(disk, &["disk", "mend"]);
                let mended = format!("{expected}: written again, from the slot");
                assert!(code == 0 && said.contains(&mended) && !whole(&said), "{case}: {code} {said}");
                logged |= said.contains("has rotted");
                assert!(!said.contains('\x1b'), "colours where there is no terminal, {case}: {said:?}");
                assert_eq!(sum(&machine, &name).as_deref(), Some(content.sha256.as_str()), "{case}");
                assert_eq!(boots(&machine), before, "{case}");

                assert_eq!(agent(disk, &["doctor"]).0, 0, "{case}");
                assert!(whole(&agent(disk, &["disk", "mend"]).1), "{case}");
            }
        }
        assert!(logged, "{loader:?}");
    }
}

fn spoil(machine: &Machine, slot: &str, at: u64) {
    let region = machine.disk.slot(slot).unwrap();
    let file = File::options().write(true).open(machine.disk.path()).unwrap();
    file.write_all_at(b"spoilt", region.disk_offset + at).unwrap();
}

#[test]
fn what_one_slot_cannot_give_another_one_gives() {
    for loader in LOADERS {
        let (machine, old, kept) = installed(loader);
        let (disk, esp) = (machine.disk.path(), esp::open(&machine.disk).unwrap());
        let name = file("initrd", &kept.initrd.sha256);
        spoil(&machine, "a", old.initrd.offset);
        esp.remove(&name).unwrap();
        let (code, said) = agent(disk, &["disk", "mend"]);
        assert!(code == 0 && said.contains("by which slot b boots, is not there: written again"), "{said}");
        assert_eq!(sum(&machine, &name), Some(kept.initrd.sha256.clone()));

        spoil(&machine, "b", kept.initrd.offset);
        esp.remove(&name).unwrap();
        let (code, said) = agent(disk, &["disk", "mend"]);
        assert!(code == 5 && said.contains(&name) && !said.contains("nothing to mend"), "{code} {said}");
        assert!(said.contains("stage the image again"), "{said}");
        assert_eq!(sum(&machine, &name), None);
    }
}

/// What is in a slot is compared with that slot's own entry: one that holds nothing, or has no entry, is no damage.
#[test]
fn slots_that_boot_by_nothing_are_passed_over() {
    for loader in LOADERS {
        let (machine, old, _) = installed(loader);
        let (disk, esp) = (machine.disk.path(), esp::open(&machine.disk).unwrap());
        let name = file("vmlinuz", &old.kernel.sha256);
        esp.remove(&name).unwrap();
        // It is the older one: an update could still be begun, and would be come back from.
        let (code, said) = agent(disk, &["doctor"]);
        assert!(code == 0 && said.contains(&format!("warn  boot-files        /{name} ")), "{code} {said}");
        boot::open(&machine.disk).unwrap().clear("a").unwrap();
        assert!(agent(disk, &["disk", "mend"]).1.contains("nothing to mend"));
    }
}

/// As who copies disks does, so that no two have the same. The initrd looks for the slot by its partition's GUID.
#[test]
fn a_copy_of_a_disk_with_guids_of_its_own_is_told_to_boot_nothing() {
    for loader in LOADERS {
        let (machine, ..) = installed(loader);
        let disk = machine.disk.path();
        run("sgdisk", &["--randomize-guids", disk.to_str().unwrap()]);
        let words = "the boot entry on the boot partition, by which slot b boots, names partition";
        let (code, said) = agent(disk, &["doctor"]);
        assert!(code == 7 && said.contains(&format!("FAIL  boot-files        {words}")), "{code} {said}");
        let (code, said) = agent(disk, &["disk", "mend"]);
        assert!(code != 0 && said.contains(words) && said.contains("rollback --to"), "{code} {said}");
        for slot in ["a", "b"] {
            assert_eq!(agent(disk, &["rollback", "--to", slot]).0, 0);
        }
        assert_eq!(agent(disk, &["doctor"]).0, 0, "{loader:?}");
        assert_eq!(agent(disk, &["disk", "mend"]).0, 0, "{loader:?}");
    }
}
