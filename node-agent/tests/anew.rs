//! A machine that begins anew: what `evenkeel-agent reset` asks for, and what the initrd's own shell does about it, with
//! the real mke2fs on files. Needs root, for mounts that nobody else sees.

mod machine_on_disk;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use evenkeel_node_agent::{boot::Loader, esp, install};
use evenkeel_node_agent_core::{
    layout::Role,
    reset::{DONE, REQUEST, Reset},
};
use machine_on_disk::{Content, Machine, sha256};

const LIBRARY: &str = include_str!("../src/init/files/dracut/evenkeel-lib.sh");
/// What the library asks of dracut, the kernel and the machine.
const AROUND: &str = r#"
getarg() { case $1 in evenkeel.slot=) echo "$slot" ;; evenkeel.digest=) echo "$digest" ;; *) return 1 ;; esac; }
evenkeel_partition() { echo "$folder/$1"; }
evenkeel_say() { echo "$*"; }
mount -t tmpfs tmpfs /run
mount() { [ "$1 $2" = "-t vfat" ] && command mount --bind "$3" "$4"; }
_state=/run/evenkeel/state
evenkeel_reset || exit 1
[ "$_state" = /run/evenkeel/state ]
"#;

/// The partitions of a machine, as files, and its boot partition, as a folder.
struct Partitions(tempfile::TempDir);

impl Partitions {
    /// As the machine has them now.
    fn of(machine: &Machine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let esp = folder.path().join("evenkeel-esp");
        fs::create_dir_all(esp.join("evenkeel")).unwrap();
        if let Some(text) = on_esp(machine, REQUEST) {
            fs::write(esp.join(REQUEST), text).unwrap();
        }
        for name in ["evenkeel-state", "evenkeel-oem"] {
            fs::write(folder.path().join(name), b"what the machine had").unwrap();
            fs::File::options()
                .write(true)
                .open(folder.path().join(name))
                .unwrap()
                .set_len(64 << 20)
                .unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A boot of a slot; whether it goes on.
    fn boot(&self, slot: &str, digest: &str, mke2fs: &str) -> bool {
        let library = LIBRARY.replace(". /lib/dracut-lib.sh", ":");
        let folder = self.0.path().display();
        let script = format!("folder='{folder}' slot='{slot}' digest='{digest}'\n{library}{mke2fs}{AROUND}");
        Command::new("unshare").args(["--mount", "dash", "-c", &script]).status().unwrap().success()
    }

    fn is_new(&self, name: &str) -> bool {
        let label = Command::new("e2label").arg(self.path(&format!("evenkeel-{name}"))).output().unwrap();
        String::from_utf8_lossy(&label.stdout).trim() == format!("ek-{name}")
    }

    fn request(&self) -> bool {
        self.path("evenkeel-esp").join(REQUEST).exists()
    }

    fn done(&self) -> bool {
        self.path("evenkeel-esp").join(DONE).exists()
    }
}

fn on_esp(machine: &Machine, path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let there = esp::open(&machine.disk).unwrap().read(path, &mut bytes).unwrap();
    there.then(|| String::from_utf8(bytes).unwrap())
}

fn installed() -> Machine {
    let machine = Machine::new();
    let program = ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", &b"MZ"[..]);
    let content = Content { loader: program, kernel: b"kernel", initrd: b"initrd", kernel_options: "" };
    let (a, record) = machine.fill_with("a", &content);
    install::make_bootable_with(&machine.disk, &a, &record, Loader::SystemdBoot).unwrap();
    machine
}

const AGENT: &str = env!("CARGO_BIN_EXE_evenkeel-agent");

fn agent(disk: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(AGENT);
    let output = command.args(args).arg("--disk").arg(disk).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_boot_that_was_meant_begins_anew_and_no_other() {
    let machine = installed();
    let digest = format!("sha256:{}", sha256(b"a"));
    let (code, said) = agent(machine.disk.path(), &["reset"]);
    assert!(
        code == 0 && said.contains("state is lost") && said.contains("cloud-config stays"),
        "{code} {said}"
    );
    let expected =
        Reset { slot: "a".into(), digest: digest.clone(), wipe_state: true, wipe_oem: false, asked: None };
    assert_eq!(Reset::parse(&on_esp(&machine, REQUEST).unwrap()), Some(expected));

    let boots = Partitions::of(&machine);
    for (slot, digest) in [("b", digest.as_str()), ("a", "sha256:another")] {
        assert!(boots.boot(slot, digest, "") && boots.request() && !boots.is_new("state"), "{slot} {digest}");
    }
    // Cut off, and begun again.
    assert!(!boots.boot("a", &digest, "mke2fs() { return 1; }"));
    assert!(boots.request() && !boots.done());
    assert!(boots.boot("a", &digest, "") && boots.is_new("state") && !boots.is_new("oem"));
    assert!(!boots.request() && boots.done());
    // The next boot finds its state.
    fs::write(boots.path("evenkeel-state"), b"new state").unwrap();
    assert!(boots.boot("a", &digest, "") && !boots.is_new("state"));
}

#[test]
fn what_is_kept_and_what_is_lost_is_the_users_choice() {
    let machine = installed();
    let digest = format!("sha256:{}", sha256(b"a"));
    assert_eq!(agent(machine.disk.path(), &["reset", "--keep-state", "--wipe-oem"]).0, 0);
    let boots = Partitions::of(&machine);
    assert!(boots.boot("a", &digest, "") && !boots.is_new("state") && boots.is_new("oem"));
}

/// What `slots` and `doctor` say of a disk, for people.
fn listings(machine: &Machine) -> [String; 2] {
    ["slots", "doctor"].map(|command| {
        let output =
            Command::new(AGENT).arg(command).arg("--disk").arg(machine.disk.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    })
}

#[test]
fn a_reset_that_is_pending_is_listed_and_whatever_withdraws_it_says_so() {
    let machine = installed();
    let content = Content {
        loader: ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", b"MZ"),
        kernel: b"two",
        initrd: b"initrd",
        kernel_options: "",
    };
    machine.fill_with("b", &content);
    let losses = "begins anew at its next boot";
    assert!(listings(&machine).iter().all(|said| !said.contains("begins anew")));
    // With nothing to withdraw nothing is said of it.
    let (code, said) = agent(machine.disk.path(), &["activate", "--slot", "b"]);
    assert!(code == 0 && !said.contains("anew"), "{code} {said}");
    for args in [&["activate", "--slot", "b"][..], &["rollback", "--to", "b"], &["rollback"]] {
        assert_eq!(agent(machine.disk.path(), &["rollback", "--to", "a"]).0, 0);
        assert_eq!(agent(machine.disk.path(), &["reset", "--wipe-oem"]).0, 0);
        for said in listings(&machine) {
            let lost = "state is lost then, the machine's own cloud-config is lost then";
            assert!(said.contains(losses) && said.matches(lost).count() == 1, "{said}");
        }
        let (code, said) = agent(machine.disk.path(), args);
        let withdrawn = said.contains("slot a does not begin anew any more");
        let by_itself = said.contains("slot a boots next, and does not begin anew any more");
        assert!(code == 0 && (withdrawn || by_itself), "{args:?}: {code} {said}");
        assert!(listings(&machine).iter().all(|said| !said.contains("begins anew")), "{args:?}");
    }
}

#[test]
fn a_reset_is_taken_back_by_a_rollback() {
    let machine = installed();
    assert_eq!(agent(machine.disk.path(), &["reset"]).0, 0);
    let (code, said) = agent(machine.disk.path(), &["rollback"]);
    assert!(code == 0 && said.contains("does not begin anew"), "{code} {said}");
    assert_eq!(on_esp(&machine, REQUEST), None);
    assert!(machine.disk.partition(Role::State).is_ok());
}
