//! Programs of others that the agent runs: all of them.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use evenkeel_node_agent_core::doctor::Program;

/// Makes ext4 file systems.
pub const MKE2FS: Program = Program {
    name: "mke2fs",
    package: "e2fsprogs",
    needed_for: "`install`, `disk create` and `reset` make the oem and state file systems with it",
};
/// Says whether the system is up.
pub const SYSTEMCTL: Program = Program {
    name: "systemctl",
    package: "systemd",
    needed_for: "the guard asks it whether the system is up, and runs the health checks at once without it",
};
/// Waits for devices.
pub const UDEVADM: Program = Program {
    name: "udevadm",
    package: "udev",
    needed_for: "a cloud-config on another disk is looked for when all disks are there, and at once without it",
};
/// Loads kernel modules.
pub const MODPROBE: Program = Program {
    name: "modprobe",
    package: "kmod",
    needed_for: "`modules` of a cloud-config are loaded with it",
};
/// Make users and groups, and change them.
pub const USERADD: Program =
    Program { name: "useradd", package: "passwd", needed_for: "`users` of a cloud-config are made with it" };
/// See [`USERADD`].
pub const USERMOD: Program = Program {
    name: "usermod",
    package: "passwd",
    needed_for: "`users` of a cloud-config are changed with it",
};
/// See [`USERADD`].
pub const GROUPADD: Program = Program {
    name: "groupadd",
    package: "passwd",
    needed_for: "`groups` of a cloud-config are made with it",
};
/// What a machine may need at run time, whatever its cloud-config says; `init` runs dracut too, while an image is built.
pub const PROGRAMS: [Program; 2] = [MKE2FS, SYSTEMCTL];

/// Where programs are, beside the folders of `PATH`: those of administrators are not in everybody's.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Where a program is below `root`, if it is there.
pub fn find(program: Program, root: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    let mut places =
        folders.map(|folder| root.join(folder.strip_prefix("/").unwrap_or(&folder)).join(program.name));
    places.find(|place| place.is_file())
}

/// Runs a program of this machine to its end, without input; an error when it is not there.
pub fn run(program: Program, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<Output> {
    let place = find(program, Path::new("/")).ok_or(io::ErrorKind::NotFound)?;
    Command::new(place).args(options).stdin(Stdio::null()).output()
}
