//! The kernel, init, the shell, and the small files that configure them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use evenkeel_node_agent_core::{
    cloud_config::{ENVIRONMENT_FILE, Step, Systemctl},
    doctor::Program,
};

use super::{CloudConfigError, Machine, files};
use crate::programs::{self, MODPROBE, SYSTEMCTL};

const SHELL: &str = "/bin/sh";
const TIMESYNCD: &str = "/etc/systemd/timesyncd.conf.d/90-cloud-config.conf";
const MODE: u32 = 0o644;
const NOBODY: files::Owner = (None, None);

/// Runs a program, whose words go to this one's output.
pub(super) fn run(
    program: Program,
    options: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<(), CloudConfigError> {
    let Some(place) = programs::find(program, Path::new("/")) else {
        let (name, package, needed_for) = (program.name, program.package, program.needed_for);
        let message =
            format!("this system has no {name}, and {needed_for}: put the package {package} into the image");
        return Err(CloudConfigError::Impossible(message));
    };
    let mut command = Command::new(place);
    command.args(options);
    finish(command)
}

fn finish(mut command: Command) -> Result<(), CloudConfigError> {
    let words = format!("{command:?}");
    let status = command.stdin(Stdio::null()).status();
    match status.map_err(CloudConfigError::io("run", Path::new(command.get_program())))? {
        status if status.success() => Ok(()),
        status => Err(CloudConfigError::Program { words, status: status.to_string() }),
    }
}

fn in_shell(machine: &Machine, words: &str) -> Command {
    let mut command = Command::new(SHELL);
    command.args(["-c", words]).current_dir(&machine.root);
    command
}

pub(super) fn shell(machine: &Machine, words: &str) -> Result<(), CloudConfigError> {
    finish(in_shell(machine, words))
}

/// Whether a condition's words end well; true without any.
pub(super) fn holds(machine: &Machine, words: Option<&str>) -> bool {
    words.is_none_or(|words| finish(in_shell(machine, words)).is_ok())
}

pub(super) fn hostname(
    machine: &Machine,
    name: &str,
    written: &mut Vec<PathBuf>,
) -> Result<(), CloudConfigError> {
    files::write(machine, Path::new("/etc/hostname"), format!("{name}\n").as_bytes(), MODE, NOBODY, written)?;
    if machine.is_this() {
        let kernel = Path::new("/proc/sys/kernel/hostname");
        fs::write(kernel, name).map_err(CloudConfigError::io("write", kernel))?;
    }
    Ok(())
}

pub(super) fn sysctl(machine: &Machine, values: &BTreeMap<String, String>) -> Result<(), CloudConfigError> {
    for (name, value) in values {
        let path = machine.at("/proc/sys").join(parameter(name));
        fs::write(&path, value).map_err(CloudConfigError::io("write", &path))?;
    }
    Ok(())
}

/// Where a kernel parameter is below `/proc/sys`: whichever of `.` and `/` comes first separates, the other one is part of a
/// name (sysctl(8)).
fn parameter(name: &str) -> String {
    if name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/')) {
        return name.to_owned();
    }
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

pub(super) fn modules(machine: &Machine, names: &[String]) -> Result<(), CloudConfigError> {
    if names.is_empty() || !machine.is_this() {
        return Ok(());
    }
    run(MODPROBE, ["--all", "--"].into_iter().chain(names.iter().map(String::as_str)))
}

pub(super) fn timesyncd(
    machine: &Machine,
    values: &BTreeMap<String, String>,
    written: &mut Vec<PathBuf>,
) -> Result<(), CloudConfigError> {
    if values.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = values.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let text = format!("[Time]\n{}\n", lines.join("\n"));
    files::write(machine, Path::new(TIMESYNCD), text.as_bytes(), MODE, NOBODY, written)
}

/// Units are started without waiting for them: they may wait for us.
pub(super) fn systemctl(machine: &Machine, units: &Systemctl) -> Result<(), CloudConfigError> {
    let verbs = [
        (&["mask"][..], &units.mask),
        (&["disable"], &units.disable),
        (&["enable"], &units.enable),
        (&["start", "--no-block"], &units.start),
    ];
    for (words, names) in verbs.into_iter().filter(|(_, names)| !names.is_empty() && machine.is_this()) {
        run(SYSTEMCTL, words.iter().copied().chain(["--"]).chain(names.iter().map(String::as_str)))?;
    }
    Ok(())
}

/// Sets variables in a file of `NAME="value"` lines; the others in it stay.
pub(super) fn environment(
    machine: &Machine,
    step: &Step,
    written: &mut Vec<PathBuf>,
) -> Result<(), CloudConfigError> {
    if step.environment.is_empty() {
        return Ok(());
    }
    let path = step.environment_file.as_deref().unwrap_or(Path::new(ENVIRONMENT_FILE));
    let before = fs::read_to_string(machine.at(path)).unwrap_or_default();
    let ours = |line: &&str| {
        line.split_once('=').is_some_and(|(name, _)| step.environment.contains_key(name.trim()))
    };
    let kept = before.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n"));
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let set = step.environment.iter().map(|(name, value)| format!("{name}=\"{}\"\n", quoted(value)));
    let text: String = kept.chain(set).collect();
    files::write(machine, path, text.as_bytes(), MODE, NOBODY, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_where_sysctl_has_them() {
        assert_eq!(parameter("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(parameter("net.ipv4.conf.eth0/100.forwarding"), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(parameter("net/ipv4/conf/eth0.100/forwarding"), "net/ipv4/conf/eth0.100/forwarding");
    }
}
