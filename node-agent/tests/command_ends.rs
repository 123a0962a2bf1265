//! How commands end where the shell is not kind: nobody listens, there is no room for the answer, the disk is none.

mod machine_on_disk;

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use evenkeel_node_agent::{
    disk::{Access, Disk},
    install,
};
use evenkeel_node_agent_core::layout::Role;
use machine_on_disk::{Content, Machine, SIZES, run};

const CONTENT: Content<'_> = Content {
    loader: ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", b"MZ"),
    kernel: b"kernel",
    initrd: b"initrd",
    kernel_options: "",
};

fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    command.args(args).env("RUST_LOG", "info");
    command
}

/// A pipe that nobody reads from.
fn unread() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

/// The exit code and what was said on standard error; a signal would be a panic.
fn end(output: &Output) -> (i32, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), None, "{said}");
    (output.status.code().unwrap(), said)
}

#[test]
fn who_listens_may_leave_and_what_is_done_is_done() {
    let machine = Machine::new();
    machine.fill_with("b", &CONTENT);
    let disk = machine.disk.path().to_str().unwrap();
    // Nothing boots the disk: `doctor` says so by its exit code, whoever reads what it says.
    for (args, code) in [
        (&["slots"][..], 0),
        (&["slots", "--output", "json"], 0),
        (&["doctor"], 7),
        (&["doctor", "--output", "json"], 7),
        (&["pin", "b"], 0),
        (&["unpin", "b"], 0),
        (&["activate"], 0),
        (&["activate", "--slot", "nope"], 2),
    ] {
        let run = |out: Stdio, err: Stdio| {
            end(&agent(args).args(["--disk", disk]).stdout(out).stderr(err).output().unwrap())
        };
        assert_eq!(run(unread(), Stdio::piped()).0, code, "{args:?}");
        assert_eq!(run(Stdio::piped(), unread()).0, code, "{args:?}");
    }
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for args in [&["slots"][..], &["slots", "--output", "json"], &["doctor"]] {
        let (code, said) = end(&agent(args).args(["--disk", disk]).stdout(full()).output().unwrap());
        assert!(code == 1 && said.contains("write the answer"), "{args:?}: {code} {said}");
    }
}

/// A log that is gone: the library that writes it would say so where it cannot be said.
#[test]
fn a_log_that_nobody_takes_ends_nothing() {
    let args =
        ["verify-image", "127.0.0.1:1/os:1", "--plain-http", "--mirror", "*=http://127.0.0.1:1", "--key"];
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("trust/tests/vectors/p256.pub");
    let output = agent(&args).arg(key).stderr(unread()).output();
    assert_eq!(end(&output.unwrap()).0, 4);
}

#[test]
fn what_is_refused_ends_with_the_code_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(place("text"), "what somebody needs").unwrap();
    let small = File::create(place("small")).unwrap();
    small.set_len(64 << 20).unwrap();
    nix::unistd::mkfifo(place("pipe").as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let here = folder.path().to_str().unwrap().to_owned();
    for (disk, words) in [
        (place("text"), "is not empty"),
        (place("small"), "too small"),
        (here, "neither a file nor a disk"),
        (place("pipe"), "neither a file nor a disk"),
        ("/dev/null".to_owned(), "neither a file nor a disk"),
    ] {
        let (code, said) = end(&agent(&["disk", "create", &disk]).output().unwrap());
        assert!(code == 3 && said.contains(words), "create {disk}: {code} {said}");
        let (code, said) = end(&agent(&["slots", "--disk", &disk]).output().unwrap());
        assert!(
            code != 0 && (words != "neither a file nor a disk" || said.contains(words)),
            "{disk}: {said}"
        );
    }
    let machine = Machine::new();
    let disk = machine.disk.path().to_str().unwrap();
    let (code, said) = end(&agent(&["disk", "mend", "--slot", "b", "--disk", disk]).output().unwrap());
    assert!(code == 3 && said.contains("slot b holds no complete image"), "{code} {said}");
}

/// Of two at once the second would make the partitions anew that the boot entries of the first one name.
#[test]
fn a_disk_is_made_and_installed_by_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let name = path.to_str().unwrap();
    let create = || {
        end(&agent(&["disk", "create", name, "--size", "1100MiB", "--slot-size", "64MiB", "--force"])
            .output()
            .unwrap())
    };
    let mend = || end(&agent(&["disk", "mend", "--disk", name]).output().unwrap());
    let made = install::make_disk(&path, SIZES, false).unwrap();
    for (code, said) in [create(), mend()] {
        assert!(code == 3 && said.contains("another program is making"), "{code} {said}");
    }
    assert!(Disk::open(&path).unwrap().partition(Role::State).is_ok());
    // Nor while a slot is written.
    let made = made.unclaimed();
    let writing = made.slot("a").unwrap().open_rw().unwrap();
    assert_eq!(create().0, 3);
    drop(writing);
    let uuid = |disk: &Disk| disk.partition(Role::State).unwrap().part_uuid.clone();
    let before = uuid(&made);
    let (code, said) = create();
    assert_eq!(code, 0, "{said}");
    assert_ne!(uuid(&Disk::open(&path).unwrap()), before);
}

/// Each reads the tables, and writes what it made of them.
#[test]
fn the_boot_partition_of_a_file_is_changed_by_one_at_a_time() {
    let machine = Machine::new();
    let disk = machine.disk.path().to_str().unwrap();
    let esp = machine.disk.partition(Role::Esp).unwrap();
    for _ in 0..20 {
        let running: Vec<_> = (["pin", "unpin"].into_iter())
            .flat_map(|what| ["a", "b"].map(|slot| agent(&[what, slot, "--disk", disk]).spawn().unwrap()))
            .collect();
        for mut child in running {
            assert!(child.wait().unwrap().success());
        }
    }
    let copy = machine.folder.path().join("esp.img");
    let mut bytes = vec![0; usize::try_from(esp.length).unwrap()];
    esp.open(Access::Read).unwrap().read_at(0, &mut bytes).unwrap();
    fs::write(&copy, bytes).unwrap();
    run("fsck.fat", &["-n", copy.to_str().unwrap()]);
}
