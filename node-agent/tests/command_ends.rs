//! How commands end where the shell is not kind: nobody listens, there is no room for the answer, the disk is none.

mod machine_on_disk;

use std::{
    fs::File,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use machine_on_disk::{Content, Machine};

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
