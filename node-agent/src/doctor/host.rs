//! The machine's part.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
};

use evenkeel_node_agent_core::{
    doctor::{HostFacts, Init, StateFacts, Watchdog},
    layout::Role,
    live_config::LiveConfig,
};
use nix::{
    sys::{signal::kill, statvfs::statvfs},
    unistd::{AccessFlags, Pid, access, geteuid},
};

use super::{Place, host_root};
use crate::{disk::Disk, programs, run::host, state_dir::StateDir};

/// Written by `evenkeel-agent init`.
const GUARD: [&str; 2] = ["usr/lib/evenkeel/evenkeel-agent", "usr/lib/systemd/system/evenkeel-guard.service"];
const WATCHDOGS: &str = "/sys/class/watchdog";
/// What the kernel's own timer calls itself (`drivers/watchdog/softdog.c`).
const SOFTDOG: &str = "Software Watchdog";
/// Where the boot loader says from which partition it was started (systemd's Boot Loader Interface). Below the host's root: a
/// container's own `/sys` has no variables of the firmware.
const LOADER_PARTITION: &str =
    "sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Whether the firmware starts signed programs alone (UEFI specification 2.10, section 3.3): four bytes of attributes, and 1 or 0.
/// Below the host's root like [`LOADER_PARTITION`].
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// File systems by their names in `/proc/filesystems`, which are those of their modules.
const FILE_SYSTEMS: [&str; 4] = ["erofs", "overlay", "ext4", "vfat"];
const VERITY: &str = "dm-verity";
const VERITY_LOADED: &str = "/sys/module/dm_verity";

pub(super) fn look(place: &Place, disk: Option<&Disk>) -> HostFacts {
    let root = host_root(&place.proc);
    let programs_root = root.as_deref().unwrap_or(Path::new("/"));
    let missing = |program: &_| programs::find(*program, programs_root).is_none();
    HostFacts {
        root: geteuid().is_root(),
        running: host::running_slot(&place.proc).ok().flatten().map(|running| running.name),
        init: init(place),
        guard: root.as_ref().map(|root| GUARD.iter().all(|path| root.join(path).exists())),
        state: state(&place.state_dir, disk),
        live: live(&place.state_dir, disk).unwrap_or_default(),
        watchdog: watchdog(Path::new(WATCHDOGS)),
        missing_programs: programs::PROGRAMS.into_iter().filter(missing).collect(),
        missing_in_kernel: missing_in_kernel(&place.proc, programs_root),
        booted_by: booted_by(programs_root),
        secure_boot: secure_boot(programs_root),
    }
}

fn init(place: &Place) -> Init {
    if let Some(program) = &place.reboot_command {
        let runs = fs::metadata(program)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        let name = program.display().to_string();
        return if runs { Init::Program(name) } else { Init::OutOfReach(format!("{name} is no program")) };
    }
    if process::id() == 1 {
        return Init::OutOfReach("process 1 is this program itself".to_owned());
    }
    // Signal 0 is none; whether it could be sent is what is asked.
    if let Err(errno) = kill(Pid::from_raw(1), None) {
        return Init::OutOfReach(errno.desc().to_owned());
    }
    match fs::read_to_string(place.proc.join("1/comm")) {
        Ok(name) if name.trim_end() == "systemd" => Init::Systemd,
        Ok(name) => Init::Other(name.trim_end().to_owned()),
        Err(error) => Init::OutOfReach(error.to_string()),
    }
}

/// The folder is made when it is needed; until then the one that it will be in is looked at.
fn state(folder: &Path, disk: Option<&Disk>) -> Result<StateFacts, String> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let failed = |error: &dyn std::fmt::Display| format!("{} cannot be written: {error}", there.display());
    access(there, AccessFlags::W_OK).map_err(|errno| failed(&errno.desc()))?;
    let room = statvfs(there).map_err(|errno| failed(&errno.desc()))?;
    let device = fs::metadata(there).map_err(|error| failed(&error))?.dev();
    let partition = disk.and_then(|disk| disk.partition(Role::State).ok());
    let node =
        partition.filter(|partition| partition.is_device()).and_then(|state| fs::metadata(&state.path).ok());
    Ok(StateFacts {
        path: folder.display().to_string(),
        on_state_partition: node.map(|node| node.rdev() == device),
        free: room.blocks_available() * room.fragment_size(),
    })
}

fn live(folder: &Path, disk: Option<&Disk>) -> Option<Vec<LiveConfig>> {
    let state = folder.is_dir().then(|| StateDir::open(folder).ok())??;
    state.live_configs(disk?.slot_names()).ok()
}

fn watchdog(class: &Path) -> Watchdog {
    let listing = fs::read_dir(class).into_iter().flatten().flatten();
    let names = listing.map(|entry| {
        let identity = fs::read_to_string(entry.path().join("identity"));
        identity
            .map_or_else(|_| entry.file_name().to_string_lossy().into_owned(), |text| text.trim().to_owned())
    });
    let (software, hardware): (Vec<String>, Vec<String>) = names.partition(|name| name == SOFTDOG);
    match hardware.into_iter().next() {
        Some(name) => Watchdog::Hardware(name),
        None if software.is_empty() => Watchdog::Absent,
        None => Watchdog::Software,
    }
}

/// What is neither in the kernel nor among its modules.
fn missing_in_kernel(proc: &Path, root: &Path) -> Vec<&'static str> {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let file_systems = read(proc.join("filesystems"));
    let modules = root.join("lib/modules").join(read(proc.join("sys/kernel/osrelease")).trim());
    let lists = read(modules.join("modules.dep")) + &read(modules.join("modules.builtin"));
    let module = |name: &str| lists.contains(&format!("/{name}.ko"));
    let there = |name: &str| file_systems.split_whitespace().any(|word| word == name);
    let missing = FILE_SYSTEMS.into_iter().filter(|name| !there(name) && !module(name));
    missing.chain((!Path::new(VERITY_LOADED).exists() && !module(VERITY)).then_some(VERITY)).collect()
}

fn booted_by(root: &Path) -> Option<String> {
    firmware_text(&fs::read(root.join(LOADER_PARTITION)).ok()?)
}

fn secure_boot(root: &Path) -> Option<bool> {
    let variable = fs::read(root.join(SECURE_BOOT)).ok()?;
    variable.get(4).map(|value| *value == 1)
}

/// The text of a variable of the firmware: four bytes of attributes, then UTF-16 with a zero at its end.
fn firmware_text(bytes: &[u8]) -> Option<String> {
    let units = bytes.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    String::from_utf16(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firmware_says(root: &Path, name: &str, bytes: &[u8]) {
        let variable = root.join(name);
        fs::create_dir_all(variable.parent().unwrap()).unwrap();
        fs::write(variable, bytes).unwrap();
    }

    #[test]
    fn the_loaders_partition_is_a_text_below_the_hosts_root() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(booted_by(root.path()), None);
        for (bytes, expected) in [(&[6, 0, 0, 0, b'E', 0, b'5', 0, 0, 0][..], Some("E5")), (&[1, 2], None)] {
            firmware_says(root.path(), LOADER_PARTITION, bytes);
            assert_eq!(booted_by(root.path()).as_deref(), expected);
        }
    }

    #[test]
    fn whether_secure_boot_is_on_is_behind_the_attributes() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(secure_boot(root.path()), None);
        for (bytes, expected) in
            [(&[6, 0, 0, 0, 1][..], Some(true)), (&[6, 0, 0, 0, 0], Some(false)), (&[6, 0], None)]
        {
            firmware_says(root.path(), SECURE_BOOT, bytes);
            assert_eq!(secure_boot(root.path()), expected);
        }
    }

    #[test]
    fn a_timer_of_the_kernel_is_no_hardware() {
        let class = tempfile::tempdir().unwrap();
        assert_eq!(watchdog(class.path()), Watchdog::Absent);
        let add = |name: &str, identity: &str| {
            fs::create_dir(class.path().join(name)).unwrap();
            fs::write(class.path().join(name).join("identity"), identity).unwrap();
        };
        add("watchdog0", "Software Watchdog\n");
        assert_eq!(watchdog(class.path()), Watchdog::Software);
        add("watchdog1", "iTCO_wdt\n");
        assert_eq!(watchdog(class.path()), Watchdog::Hardware("iTCO_wdt".to_owned()));
    }
}
