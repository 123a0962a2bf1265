//! The command line.

mod cloud_config;
mod host;
mod source;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use evenkeel_node_agent_core::layout::{SLOTS_DEFAULT, SLOTS_MAX, parse_size};

pub use cloud_config::{CloudConfigApplyArgs, CloudConfigCommand, When};
pub use host::HostArgs;
pub use source::{PullArgs, SourceArgs, TrustArgs};

use crate::{boot::Loader, disk::Sizes, guard::GuardArgs, run::RunArgs};

/// Pulls, writes, switches and reports on the operating system of one machine.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused, or an image that cannot be used; 4 registry or network;
/// 5 disk; 6 a slot, or what it boots by, is not what was written; 7 the machine could not upgrade
/// and return.
#[derive(Debug, Parser)]
#[command(name = "evenkeel-agent", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prepare disks.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Install an image on a disk: partitions if it has none, a slot that it can boot without, boot loader.
    Install(InstallArgs),
    /// Pull an image into a slot, and verify it. Does not make it bootable.
    Stage(StageArgs),
    /// Write the recovery slot, which boots when no other slot does. `rollback --to recovery` boots it by choice.
    Recovery(RecoveryArgs),
    /// Let the machine begin anew: with an image in the passive slot, or with the one that it has; its state is lost at
    /// the next boot, and not before.
    Reset(ResetArgs),
    /// Check an image's signatures as staging does, and print the image by its digest.
    VerifyImage(VerifyImageArgs),
    /// Follow this node's plan: the DaemonSet's command.
    Run(RunArgs),
    /// Say whether this machine could upgrade and return, and why not. Exit code 7: it could not. Writes nothing but one small
    /// file to the boot partition, which it removes again.
    Doctor(DoctorArgs),
    /// Use all of a disk that became larger: the state partition and its file system grow. Done at each boot too, unless the
    /// machine's cloud-config switches it off.
    Grow(GrowArgs),
    /// Show what is in the slots of a disk, and how they boot.
    Slots(SlotsArgs),
    /// Make a staged slot boot next, a counted number of times.
    Activate(ActivateArgs),
    /// Keep the slot that is on trial.
    Commit(SlotArgs),
    /// Give up a slot on trial, or go back from a kept slot to another one.
    Rollback(RollbackArgs),
    /// Read every byte of the slots, and the kernels and initrds that they boot by, and compare them with what was written.
    /// Exit code 6: something is damaged.
    Verify(VerifyArgs),
    /// Protect a slot from being written by any update.
    Pin(PinArgs),
    /// End a slot's protection.
    Unpin(PinArgs),
    /// Make the image that is being built bootable from a slot.
    Init(InitArgs),
    /// Watch a trial boot on the host, and end it if it is not kept.
    Guard(GuardArgs),
    /// The machine's own cloud-config.
    #[command(subcommand)]
    CloudConfig(CloudConfigCommand),
}

/// Prepare disks.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// Write the partition table and empty file systems.
    Create {
        /// File that is made, or device.
        path: PathBuf,
        /// Sizes.
        #[command(flatten)]
        sizes: SizeArgs,
        /// Lose what is on it.
        #[arg(long)]
        force: bool,
    },
    /// Bring back what a disk has lost that no longer boots: a copy of the partition table, the slots' kernels and initrds
    /// on the boot partition, and with --slot all of the boot partition. Slots, cloud-config and state stay.
    Mend(MendArgs),
}

/// Options of `disk mend`.
#[derive(Debug, Args)]
pub struct MendArgs {
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
    /// Make the boot partition anew, whatever is on it, and this slot what boots.
    #[arg(long, value_name = "NAME")]
    pub slot: Option<String>,
    /// The boot loader of a boot partition that is made anew, which the slot's image must bring; default: the one that the disk
    /// has, and where that cannot be seen any more, GRUB where a BIOS starts it or where the image brings nothing else, else
    /// systemd-boot.
    #[arg(long, value_enum)]
    pub bootloader: Option<Loader>,
}

/// Sizes of a disk that is made.
#[derive(Clone, Copy, Debug, Args)]
pub struct SizeArgs {
    /// Size of the disk, such as 8GiB; default: all of the device, or of a blank file that is there; 8 GiB for a new
    /// file.
    #[arg(long, value_parser = parse_size)]
    pub size: Option<u64>,
    /// Size of each slot, such as 3GiB; default: all slots get 70 % of the disk, and each at most 16 GiB.
    #[arg(long, value_parser = parse_size)]
    pub slot_size: Option<u64>,
    /// Number of slots, 2 to 8; default: 2. With more, older images stay for `rollback --to`.
    #[arg(long)]
    #[arg(value_parser = clap::value_parser!(u8).range(i64::from(SLOTS_DEFAULT)..=i64::from(SLOTS_MAX)))]
    pub slots: Option<u8>,
}

impl From<SizeArgs> for Sizes {
    fn from(args: SizeArgs) -> Self {
        Self { disk: args.size, slot: args.slot_size, slots: args.slots.unwrap_or(SLOTS_DEFAULT) }
    }
}

/// The disk to work on.
#[derive(Clone, Debug, Args)]
pub struct DiskArg {
    /// Disk with Evenkeel's layout, a file or a device; default: the one that this machine runs from.
    #[arg(long, env = "EVENKEEL_DISK")]
    pub disk: Option<PathBuf>,
    /// Where the kernel tells of the running system.
    #[arg(long, env = "EVENKEEL_PROC", default_value = "/proc", hide = true)]
    pub proc: PathBuf,
}

/// Options of `install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The image, such as registry.example/os:1.
    pub image: String,
    /// File or whole disk. One with Evenkeel's layout is installed into; a blank one gets it, as does one whose
    /// installation was interrupted.
    #[arg(long)]
    pub disk: PathBuf,
    /// Make the disk anew, whatever is on it: that is lost.
    #[arg(long)]
    pub force: bool,
    /// Sizes, for a disk without Evenkeel's layout; one that has it keeps its own, and others are refused.
    #[command(flatten)]
    pub sizes: SizeArgs,
    /// The boot loader, which the image must bring; default: the one that the disk has, else systemd-boot. A disk that has
    /// another one is refused. GRUB boots machines with BIOS too, if the image brings it for them.
    #[arg(long, value_enum)]
    pub bootloader: Option<Loader>,
    /// The machine's own cloud-config, a file.
    #[arg(long)]
    pub cloud_config: Option<PathBuf>,
    /// Image for the recovery slot, which boots when no other slot does.
    #[arg(long, value_name = "IMAGE")]
    pub recovery_image: Option<String>,
    /// How the image is pulled, and who must have signed it.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Options of `stage`.
#[derive(Debug, Args)]
pub struct StageArgs {
    /// The image, such as registry.example/os:2.
    pub image: String,
    /// Which slot; default: the passive one.
    #[command(flatten)]
    pub slot: SlotArgs,
    /// What is remembered of the slots: the only good one behind a damaged one is not chosen.
    #[command(flatten)]
    pub state: StateArg,
    /// How the image is pulled, and who must have signed it.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Options of `recovery`.
#[derive(Debug, Args)]
pub struct RecoveryArgs {
    /// The image, such as registry.example/os:1; the slot has 512 MiB, or the size of another slot where that is less.
    pub image: String,
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
    /// How the image is pulled, and who must have signed it.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Options of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The image to begin with, which is tried before it is kept; default: the one that is kept.
    pub image: Option<String>,
    /// Keep what is on the state partition.
    #[arg(long)]
    pub keep_state: bool,
    /// Make the oem partition anew too: the machine's own cloud-config is lost.
    #[arg(long)]
    pub wipe_oem: bool,
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
    /// What is remembered of the slots: the only good one behind a damaged one is not chosen.
    #[command(flatten)]
    pub state: StateArg,
    /// How the image is pulled, and who must have signed it.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Options of `verify-image`.
#[derive(Debug, Args)]
pub struct VerifyImageArgs {
    /// The image, such as registry.example/os:2.
    pub image: String,
    /// How the image is pulled, and who must have signed it.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Options of `slots`.
#[derive(Debug, Args)]
pub struct SlotsArgs {
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
    /// What the agent remembers of the slots.
    #[command(flatten)]
    pub state: StateArg,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The disk; one that is named is looked at alone, without the machine.
    #[command(flatten)]
    pub disk: DiskArg,
    /// The agent's folder.
    #[command(flatten)]
    pub state: StateArg,
    /// Program that reboots the host, for hosts whose init is not systemd.
    #[arg(long, env = "EVENKEEL_REBOOT_COMMAND")]
    pub reboot_command: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Options of `grow`.
#[derive(Debug, Args)]
pub struct GrowArgs {
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
}

/// Options of `activate`.
#[derive(Debug, Args)]
pub struct ActivateArgs {
    /// Which slot.
    #[command(flatten)]
    pub slot: SlotArgs,
    /// Boots before the loader gives the slot up, 1 to 3.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3))]
    pub tries: u32,
    /// Where a cloud-config that was applied to the slot without a reboot is forgotten: what is tried is what the slot holds.
    #[command(flatten)]
    pub state: StateArg,
}

/// A slot of a disk.
#[derive(Debug, Args)]
pub struct SlotArgs {
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
    /// The slot; default: the one that can be meant.
    #[arg(long)]
    pub slot: Option<String>,
}

/// Options of `rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
    /// The slot to go back to; default: give up the trial if there is one, else what was kept before.
    #[arg(long, alias = "slot", value_name = "NAME")]
    pub to: Option<String>,
    /// Where the agent finds that a trial was given up by a person.
    #[command(flatten)]
    pub state: StateArg,
}

/// Options of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
    /// The slot; default: every slot that holds an image.
    #[arg(long, value_name = "NAME")]
    pub slot: Option<String>,
    /// Where results are remembered.
    #[command(flatten)]
    pub state: StateArg,
}

/// Options of `pin` and `unpin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// The slot.
    pub slot: String,
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
}

/// The agent's memory.
#[derive(Debug, Args)]
pub struct StateArg {
    /// The agent's folder on the state partition; default: /var/lib/evenkeel for the disk that this machine runs from,
    /// and nothing is remembered for another one.
    #[arg(long, env = "EVENKEEL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Options of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Root of the image.
    #[arg(long, default_value = "/")]
    pub root: PathBuf,
    /// Do not build initrds; the image's own build does.
    #[arg(long)]
    pub no_initrd: bool,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}
