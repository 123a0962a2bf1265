//! Virtual machines that really boot: QEMU with UEFI firmware or a BIOS, a disk file, and a network of their own.

mod clock;
mod cloud_config;
mod hang;
mod monitor;
mod watchdog;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    host_packages,
    process::{Service, last_lines},
};

pub use clock::kernel_options;
pub use cloud_config::{CloudConfig, STAGES, ran};
pub use hang::Hang;

/// The host's loopback as the machine sees it (QEMU's user network).
pub const HOST: &str = "10.0.2.2";
/// A machine's second disk as its system sees it.
pub const SECOND_DISK: &str = "/dev/disk/by-id/virtio-second";
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// With Secure Boot, and variables in which it is on.
const SECURE_FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const MICROSOFTS_KEYS: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
const OWN_KEYS: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
const MEMORY_MIB: u32 = 1536;
/// A key with a password and its certificate, which come with the firmware.
pub const OWN_KEY: [&str; 3] =
    ["/usr/share/ovmf/PkKek-1-snakeoil.key", "snakeoil", "/usr/share/ovmf/PkKek-1-snakeoil.pem"];
/// All that the emulator knows, without what costs it most: page tables of five levels, and guards around each access to
/// a program's memory.
const PROCESSOR: &str = "max,la57=off,smap=off,smep=off,umip=off";

/// A running machine. Dropping it cuts its power.
#[derive(Debug)]
pub struct Machine {
    name: String,
    disk: PathBuf,
    folder: PathBuf,
    hardware: Hardware,
    service: Service,
    watch: hang::Watch,
}

/// What is unusual in a machine.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a part that a machine has or has not")]
pub struct Hardware {
    /// Its clock begins in 2001.
    pub clock_in_the_past: bool,
    /// Its disk is the socket of an NBD server.
    pub remote_disk: bool,
    /// It has a second serial line, whose other end is [`Machine::serial`].
    pub shell: bool,
    /// It has a second disk, whose NBD server listens at [`Machine::second_disk`], and which its system finds as
    /// [`SECOND_DISK`].
    pub second_disk: bool,
    /// Its disk cannot read the sector with this byte.
    pub unreadable_at: Option<u64>,
    /// It has no watchdog: the kernel's own is all there is.
    pub no_watchdog: bool,
    /// It has a BIOS (the one that the emulator brings) in place of UEFI.
    pub bios: bool,
    /// Its UEFI has Secure Boot on, with these keys.
    pub secure_boot: Option<Keys>,
}

/// Whose signatures firmware with Secure Boot on asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Those that real machines come with.
    Microsoft,
    /// The one of [`OWN_KEY`], which stands for that of a machine's owner.
    Own,
}

/// Installs what machines need on this host.
pub async fn prepare_host() -> Result<()> {
    host_packages::ensure(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        (FIRMWARE, "ovmf"),
        ("mke2fs", "e2fsprogs"),
    ])
    .await
}

impl Hardware {
    /// The firmware, and the variables that it begins with.
    fn uefi(self) -> [&'static str; 2] {
        match self.secure_boot {
            None => [FIRMWARE, VARIABLES],
            Some(Keys::Microsoft) => [SECURE_FIRMWARE, MICROSOFTS_KEYS],
            Some(Keys::Own) => [SECURE_FIRMWARE, OWN_KEYS],
        }
    }
}

impl Machine {
    /// Powers a machine on that boots from `disk`. Its firmware's variables and its console's log are kept in `folder`.
    pub fn start(name: &str, disk: &Path, folder: &Path, hardware: Hardware) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let variables = folder.join("variables.fd");
        if !variables.exists() {
            fs::copy(hardware.uefi()[1], &variables).context("copy the firmware's variables")?;
        }
        let watch = hang::Watch::new(&console(folder));
        let service = power_on(name, disk, folder, hardware)?;
        let (disk, folder) = (disk.to_owned(), folder.to_owned());
        Ok(Self { name: name.to_owned(), disk, folder, hardware, service, watch })
    }

    /// Powers the machine on again after it rebooted; an error when the emulator itself failed. To be called all the
    /// time: a reboot ends the emulator, because one that goes on remembers the code of the boot before, and may be
    /// busy for minutes with forgetting it.
    pub fn tend(&mut self) -> Result<()> {
        let Some(status) = self.service.ended() else { return Ok(()) };
        ensure!(status.success(), "the emulator of {} ended ({status}): {}", self.name, self.service.tail());
        self.power_on()
    }

    /// Cuts the power, and lets it come back at once.
    pub fn cut_power(&mut self) -> Result<()> {
        self.power_off();
        self.power_on()
    }

    /// Cuts the power.
    pub fn power_off(&mut self) {
        self.service.kill();
    }

    /// Lets the power come back.
    pub fn power_on(&mut self) -> Result<()> {
        self.watch = hang::Watch::new(&self.console());
        self.service = power_on(&self.name, &self.disk, &self.folder, self.hardware)?;
        Ok(())
    }

    /// Whether the emulator hangs before the first process of its system; to be asked all the time.
    pub fn hangs(&mut self) -> Result<Option<Hang>> {
        self.watch.look(self.service.pid(), &socket(&self.folder))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The log of its serial console.
    pub fn console(&self) -> PathBuf {
        console(&self.folder)
    }

    /// The socket at the other end of its second serial line.
    pub fn serial(&self) -> PathBuf {
        serial(&self.folder)
    }

    /// Where the server of a second disk listens, of a machine with this folder.
    pub fn second_disk(folder: &Path) -> PathBuf {
        folder.join("second-disk")
    }

    /// The last lines of its console, for messages.
    pub fn console_tail(&self) -> String {
        last_lines(&fs::read(self.console()).unwrap_or_default())
    }

    /// Where its processors are and whether they wait, in a line, for messages.
    pub fn processors(&self) -> String {
        let said = monitor::registers(&socket(&self.folder));
        said.map_or_else(|error| format!("{error:#}"), |said| monitor::places(&said))
    }
}

fn power_on(name: &str, disk: &Path, folder: &Path, hardware: Hardware) -> Result<Service> {
    let mut command = Command::new(host_packages::find("qemu-system-x86_64")?);
    let accelerator = accelerator();
    // Emulated ones that run at the same time may hang when a kernel changes the code that another one is in.
    let processors = if accelerator.starts_with("tcg") { "1" } else { "2" };
    // A mode of the processor that keeps the system's own code from the keys, and costs time where it is emulated.
    let machine = if hardware.secure_boot.is_some() { "q35,smm=on" } else { "q35,smm=off" };
    command
        .args(["-name", name, "-machine", machine, "-cpu", PROCESSOR])
        .args(["-smp", processors, "-m", &MEMORY_MIB.to_string()])
        .args(["-display", "none", "-monitor", "none", "-nodefaults"])
        .args(["-accel", &accelerator, "-action", "reboot=shutdown"])
        .args(["-drive", &format!("if=virtio,format=raw,{}", boot_disk(disk, hardware))])
        .args(["-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network,romfile="])
        .args(["-device", "virtio-rng-pci"])
        .args(["-chardev", &format!("file,id=console,append=on,path={}", console(folder).display())])
        .args(["-serial", "chardev:console"])
        .args(["-rtc", if hardware.clock_in_the_past { "base=2001-01-01" } else { "base=utc" }])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", socket(folder).display())]);
    if !hardware.no_watchdog {
        command.args(watchdog::arguments(folder)?);
    }
    if !hardware.bios {
        let variables = folder.join("variables.fd");
        let [firmware, _] = hardware.uefi();
        command
            .args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={firmware}")])
            .args(["-drive", &format!("if=pflash,format=raw,file={}", variables.display())]);
    }
    if hardware.secure_boot.is_some() {
        command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
    }
    if hardware.shell {
        let socket = format!("socket,id=shell,server=on,wait=off,path={}", serial(folder).display());
        command.args(["-chardev", &socket, "-serial", "chardev:shell"]);
    }
    if hardware.second_disk {
        // Behind the first one on the bus, wherever that comes to be: the firmware boots that.
        let drive = format!("if=none,id=second,format=raw,{}", source(&Machine::second_disk(folder), true));
        command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=second,serial=second,addr=0x10"]);
    }
    Service::start(name, command, &folder.join("qemu.log"))
}

/// The disk that boots. QEMU's own device for faults gives an error whenever the sector is read.
fn boot_disk(disk: &Path, hardware: Hardware) -> String {
    let Some(at) = hardware.unreadable_at else { return source(disk, hardware.remote_disk) };
    let (disk, sector) = (disk.display(), at / 512);
    format!(
        "file.driver=blkdebug,file.image.driver=file,file.image.filename={disk},file.inject-error.0.event=read_aio,\
         file.inject-error.0.errno=5,file.inject-error.0.sector={sector}"
    )
}

fn source(disk: &Path, remote: bool) -> String {
    let disk = disk.display();
    if remote {
        format!("file.driver=nbd,file.server.type=unix,file.server.path={disk}")
    } else {
        format!("file={disk}")
    }
}

/// The log of the serial console of a machine with this folder.
pub fn console(folder: &Path) -> PathBuf {
    folder.join("console.log")
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("monitor")
}

fn serial(folder: &Path) -> PathBuf {
    folder.join("serial")
}

/// How the machine's processor is made: emulated, which works everywhere; `EVENKEEL_ACCEL=kvm` is many times faster
/// where `/dev/kvm` works.
fn accelerator() -> String {
    std::env::var("EVENKEEL_ACCEL").unwrap_or_else(|_| "tcg".to_owned())
}
