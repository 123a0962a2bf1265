//! How the operator ends.

use std::{os::unix::process::ExitStatusExt as _, process::Command};

/// A log that is gone: the library that writes it would say so where it cannot be said, and end the program by that.
#[test]
fn a_log_that_nobody_takes_ends_nothing() {
    let nobody_reads = std::io::pipe().unwrap().1;
    let mut operator = Command::new(env!("CARGO_BIN_EXE_evenkeel-operator"));
    operator.args(["--namespace", "evenkeel", "--identity", "one"]).env("KUBECONFIG", "/nowhere/kubeconfig");
    let status = operator.stderr(nobody_reads).status().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(1), None));
}
