//! What a machine with Secure Boot on starts from a disk, judged by sbsign and sbattach (package sbsigntool).

mod machine_on_disk;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    rc::Rc,
};

use evenkeel_node_agent::{
    boot::{self, Grub, Loader, LoaderProgram},
    esp::{self, Esp, EspFile},
    install::{self, InstallError},
};
use evenkeel_node_agent_core::{
    efi_program::{Unsigned, bears_signature},
    layout::Role,
};
use machine_on_disk::{Content, Machine, path, run};

const SYSTEMD_BOOT: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const GRUB: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
const SIGNED_GRUB: &str = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed";
const SHIM: &str = "usr/lib/shim/shimx64.efi.signed";
const FIRST: &str = "EFI/BOOT/BOOTX64.EFI";
const BY_SHIM: &str = "EFI/BOOT/grubx64.efi";

/// A program for UEFI, this host's GRUB, with a signature by a key of its own.
fn signed() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let [key, certificate, program] = ["key", "certificate", "program"].map(|name| folder.path().join(name));
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test/"];
    run("openssl", &[&request[..], &["-keyout", path(&key), "-out", path(&certificate)]].concat());
    let by = ["--key", path(&key), "--cert", path(&certificate), "--output", path(&program)];
    run("sbsign", &[&by[..], &[&format!("/{GRUB}")]].concat());
    fs::read(program).unwrap()
}

impl Machine {
    /// Installs an image that has these files into a slot.
    fn install(&self, slot: &str, files: &[(&str, &[u8])], kernel: &[u8]) -> Result<(), InstallError> {
        for (path, content) in files {
            let file = self.folder.path().join(format!("root-{slot}/{path}"));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        let content =
            Content { loader: ("etc/os-release", b""), kernel, initrd: b"initrd", kernel_options: "" };
        let (slot, record) = self.fill_with(slot, &content);
        install::make_bootable_with(&self.disk, &slot, &record, Loader::Grub).map(|_| ())
    }

    fn programs(&self) -> [Option<Vec<u8>>; 2] {
        let esp = esp::open(&self.disk).unwrap();
        [FIRST, BY_SHIM].map(|path| {
            let mut bytes = Vec::new();
            esp.read(path, &mut bytes).unwrap().then_some(bytes)
        })
    }

    fn unsigned(&self) -> Unsigned {
        boot::unsigned(&*boot::open(&self.disk).unwrap()).unwrap()
    }

    fn doctor(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
        let output = command.args(["doctor", "--disk", path(self.disk.path())]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        said.lines().find(|line| line.contains("secure-boot")).unwrap().to_owned()
    }
}

#[test]
fn what_is_signed_by_others_bears_a_signature() {
    assert!(!bears_signature(&fs::read(Path::new("/").join(GRUB)).unwrap()));
    let mut program = signed();
    assert!(bears_signature(&program));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program");
    fs::write(&file, &program).unwrap();
    run("sbattach", &["--remove", path(&file)]);
    assert!(!bears_signature(&fs::read(&file).unwrap()));
    // A byte less, and it is cut off.
    program.pop();
    assert!(!bears_signature(&program));
}

#[test]
fn shim_starts_grub_where_the_image_brings_both() {
    let machine = Machine::new();
    let (grub, shim) = (signed(), signed());
    machine.install("a", &[(GRUB, b"MZ"), (SIGNED_GRUB, &grub), (SHIM, &shim)], &signed()).unwrap();
    assert!(machine.programs() == [Some(shim), Some(grub)]);
    assert_eq!(machine.unsigned(), Unsigned::default());
    assert!(machine.doctor().starts_with("ok "), "{}", machine.doctor());
    assert!(machine.doctor().contains("what boots this disk bears the signatures"), "{}", machine.doctor());
}

#[test]
fn half_of_both_is_neither() {
    let machine = Machine::new();
    machine.install("a", &[(GRUB, b"MZ alone"), (SIGNED_GRUB, &signed())], &signed()).unwrap();
    assert!(machine.programs() == [Some(b"MZ alone".to_vec()), None]);
    assert_eq!(machine.unsigned(), Unsigned { loaders: vec![FIRST], kernels: Vec::new() });
    assert!(
        machine.doctor().contains(&format!("as {FIRST} (GRUB) has no signature")),
        "{}",
        machine.doctor()
    );
    let error = machine.install("b", &[(SIGNED_GRUB, &signed())], b"kernel").unwrap_err();
    assert!(matches!(error, InstallError::NoGrub(_)), "{error}");
}

#[test]
fn a_kernel_without_a_signature_is_told_with_its_slot() {
    let machine = Machine::new();
    let programs: [(&str, &[u8]); 2] = [(SIGNED_GRUB, &signed()), (SHIM, &signed())];
    machine.install("a", &programs, &signed()).unwrap();
    machine.install("b", &programs, b"MZ kernel").unwrap();
    assert_eq!(machine.unsigned(), Unsigned { loaders: Vec::new(), kernels: vec!["b".to_owned()] });
    let esp = esp::open(&machine.disk).unwrap();
    esp.write(BY_SHIM, &mut &b"MZ"[..]).unwrap();
    assert_eq!(machine.unsigned().loaders, [BY_SHIM]);
}

#[test]
fn what_secure_boot_starts_gives_way_only_to_what_it_starts() {
    let machine = Machine::new();
    machine.install("a", &[(GRUB, b"MZ alone")], &signed()).unwrap();
    let both: [&[u8]; 2] = [&signed(), &signed()];
    machine.install("b", &[(SHIM, both[0]), (SIGNED_GRUB, both[1])], &signed()).unwrap();
    let there = both.map(|program| Some(program.to_vec()));
    assert!(machine.programs() == there);
    fs::remove_dir_all(machine.folder.path().join("root-b")).unwrap();
    machine.install("b", &[(GRUB, b"MZ alone")], &signed()).unwrap();
    assert!(machine.programs() == there, "GRUB without a signature took the place of shim");

    let newer: [&[u8]; 2] = [&signed(), &signed()];
    machine.install("b", &[(SHIM, newer[0]), (SIGNED_GRUB, newer[1])], &signed()).unwrap();
    assert!(machine.programs() == newer.map(|program| Some(program.to_vec())));
}

#[test]
fn a_boot_partition_that_was_lost_gets_shim_where_the_image_brings_it() {
    let machine = Machine::new();
    let (grub, shim) = (signed(), signed());
    machine.install("a", &[(SYSTEMD_BOOT, b"MZ"), (SIGNED_GRUB, &grub), (SHIM, &shim)], &signed()).unwrap();
    let partition = machine.disk.partition(Role::Esp).unwrap().disk_offset;
    let file = fs::File::options().write(true).open(machine.disk.path()).unwrap();
    file.write_all_at(&vec![0; 64 << 10], partition).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    let mended =
        command.args(["disk", "mend", "--slot", "a", "--disk", path(machine.disk.path())]).output().unwrap();
    let said = String::from_utf8(mended.stderr).unwrap();
    assert!(mended.status.success() && said.contains("made anew, with GRUB: slot a"), "{said}");
    assert!(said.contains("machines with Secure Boot on boot it"), "{said}");
    assert!(machine.programs() == [Some(shim), Some(grub)]);
}

/// A boot partition whose power goes after some changes.
#[derive(Clone, Default)]
struct Cut {
    files: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    left: Rc<Cell<usize>>,
}

impl Cut {
    fn change(&self, work: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> io::Result<()> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| io::Error::other("the power is gone"))?;
        self.left.set(left);
        work(&mut self.files.borrow_mut());
        Ok(())
    }
}

impl Esp for Cut {
    fn read(&self, path: &str, sink: &mut dyn Write) -> io::Result<bool> {
        let files = self.files.borrow();
        let Some(bytes) = files.get(path) else { return Ok(false) };
        sink.write_all(bytes).map(|()| true)
    }

    fn write(&self, path: &str, source: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        self.change(|files| drop(files.insert(path.to_owned(), bytes)))
    }

    fn overwrite(&self, path: &str, mut bytes: &[u8]) -> io::Result<()> {
        self.write(path, &mut bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|files| {
            let bytes = files.remove(from).unwrap();
            files.insert(to.to_owned(), bytes);
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change(|files| drop(files.remove(path)))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<EspFile>> {
        let files = self.files.borrow();
        let within = files.iter().filter_map(|(path, bytes)| {
            let name = path.strip_prefix(folder)?.strip_prefix('/')?;
            Some(EspFile { name: name.to_owned(), length: bytes.len() as u64 })
        });
        Ok(within.collect())
    }

    fn reclaim(&self) -> io::Result<()> {
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(1 << 30)
    }
}

#[test]
fn shim_is_never_there_before_what_it_starts() {
    let [grub, shim] = [b"MZ, grub".to_vec(), b"MZ, shim".to_vec()];
    let program = LoaderProgram { loader: grub.clone(), shim: Some(shim.clone()) };
    for before in [None, Some(b"MZ alone".to_vec())] {
        let mut cuts = 0;
        loop {
            let esp = Cut::default();
            esp.files.borrow_mut().extend(before.clone().map(|bytes| (FIRST.to_owned(), bytes)));
            esp.left.set(cuts);
            let done = Grub::new(Box::new(esp.clone())).install(&program, "EFI/debian/grub.cfg");
            let files = esp.files.borrow();
            if files.get(FIRST) == Some(&shim) {
                assert_eq!(files.get(BY_SHIM), Some(&grub), "after {cuts} changes: {:?}", files.keys());
                assert!(
                    files.contains_key("EFI/debian/grub.cfg"),
                    "after {cuts} changes: {:?}",
                    files.keys()
                );
            }
            if done.is_ok() {
                assert_eq!(files.get(FIRST), Some(&shim));
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 3, "{cuts} changes");
    }
}
