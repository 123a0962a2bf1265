//! What each command of the command line does.

mod cloud_config;
mod disk;
mod doctor;
mod grow;
mod host;
mod image;
mod install;
mod mend;
mod recovery;
mod run;
mod slot;
mod source;
mod verify;

use std::error::Error;

use anyhow::Result;
use evenkeel_registry::RegistryError;
use evenkeel_trust::{PolicyError, Refusal};

use crate::{
    args::{CloudConfigCommand, Command, DiskCommand},
    cloud_config::live,
    slot::scrub::Damage,
    stage::StageError,
};

/// Why the program ends without success, as its exit code tells.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    message: String,
}

/// A machine that could not upgrade and return.
#[derive(Debug, thiserror::Error)]
#[error("this machine could not upgrade and return: {0} checks failed, see above")]
struct Unfit(usize);

/// A slot that the disk does not have.
#[derive(Debug, thiserror::Error)]
#[error("the disk has no slot {wanted}: its slots are {there}")]
struct NoSuchSlot {
    wanted: String,
    there: String,
}

/// Exit code for wrong usage, as the parser of the command line has it.
pub const EXIT_USAGE: u8 = 2;
/// Exit code for a request that is refused, or an image that cannot be used.
pub const EXIT_REFUSED: u8 = 3;
/// Exit code for a registry that does not answer or does not let us in.
pub const EXIT_REGISTRY: u8 = 4;
/// Exit code for a disk that cannot be used.
pub const EXIT_DISK: u8 = 5;
/// Exit code for a slot that does not hold what was written into it, or a boot partition that does not hold what the slot
/// boots by.
pub const EXIT_DAMAGED: u8 = 6;
/// Exit code for a machine that could not upgrade and return.
pub const EXIT_UNFIT: u8 = 7;

/// Does what the command line says.
pub fn execute(command: Command) -> Result<()> {
    match command {
        Command::Disk(DiskCommand::Create { path, sizes, force }) => disk::create(&path, sizes, force),
        Command::Disk(DiskCommand::Mend(args)) => mend::mend(&args),
        Command::Install(args) => install::install(&args),
        Command::Stage(args) => image::stage(&args),
        Command::Recovery(args) => recovery::recovery(&args),
        Command::Reset(args) => recovery::reset(&args),
        Command::VerifyImage(args) => image::verify(&args),
        Command::Run(args) => run::run(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Grow(args) => grow::grow(&args),
        Command::Slots(args) => disk::slots(&args),
        Command::Activate(args) => slot::activate(&args),
        Command::Commit(args) => slot::commit(&args),
        Command::Rollback(args) => slot::rollback(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Pin(args) => slot::pin(&args),
        Command::Unpin(args) => slot::unpin(&args),
        Command::Init(args) => host::init(&args),
        Command::Guard(args) => host::guard(&args),
        Command::CloudConfig(CloudConfigCommand::Apply(args)) => cloud_config::apply(&args),
        Command::CloudConfig(CloudConfigCommand::Live(args)) => match args.apply {
            None => Ok(live::follow(&args)?),
            Some(which) => Ok(live::apply_one(&args, which)?),
        },
        Command::CloudConfig(CloudConfigCommand::Check { file }) => cloud_config::check(&file),
    }
}

/// The program's exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    use crate::{
        boot::{BootError, FileDamage},
        cloud_config::CloudConfigError,
        disk::DiskError,
        disk::RegionError,
        esp::EspError,
        grow::GrowError,
        install::InstallError,
        mend::MendError,
        pins::PinError,
        reset::ResetError,
        slots::SlotsError,
    };
    for cause in error.chain().map(innermost) {
        if let Some(error) = cause.downcast_ref::<StageError>() {
            return stage_exit_code(error);
        }
        if cause.is::<Refusal>() || cause.is::<PolicyError>() {
            return EXIT_REFUSED;
        }
        if let Some(error) = cause.downcast_ref::<RegistryError>() {
            return registry_exit_code(error);
        }
        if let Some(
            DiskError::Exists(_)
            | DiskError::InUse(_)
            | DiskError::Claimed(_)
            | DiskError::NoDisk(_)
            | DiskError::Partition(_)
            | DiskError::Layout(_),
        ) = cause.downcast_ref()
        {
            return EXIT_REFUSED;
        }
        if let Some(error) = cause.downcast_ref::<BootError>() {
            let refused = matches!(
                error,
                BootError::EspFull { .. }
                    | BootError::NoEntry(_)
                    | BootError::CannotCount
                    | BootError::DidNotCount(_)
            );
            return if refused { EXIT_REFUSED } else { EXIT_DISK };
        }
        if cause.is::<Damage>() || cause.is::<FileDamage>() {
            return EXIT_DAMAGED;
        }
        if cause.is::<NoSuchSlot>() {
            return EXIT_USAGE;
        }
        if cause.is::<Unfit>() {
            return EXIT_UNFIT;
        }
        if let Some(RegionError::Record { .. }) = cause.downcast_ref() {
            return EXIT_REFUSED;
        }
        let disk = cause.is::<DiskError>()
            || cause.is::<RegionError>()
            || cause.is::<EspError>()
            || cause.is::<GrowError>()
            || cause.is::<PinError>()
            || cause.is::<ResetError>()
            || cause.is::<SlotsError>();
        if let Some(
            InstallError::Loader(_)
            | InstallError::NoGrub(_)
            | InstallError::BiosCode(_)
            | InstallError::OtherLoader(_),
        ) = cause.downcast_ref()
        {
            return EXIT_REFUSED;
        }
        if disk || cause.is::<InstallError>() || cause.is::<MendError>() {
            return EXIT_DISK;
        }
        if cause.is::<Refused>() || cause.is::<CloudConfigError>() {
            return EXIT_REFUSED;
        }
    }
    1
}

/// What an error speaks for: those that say another's words alone hide it from whoever goes from cause to cause.
fn innermost<'a>(cause: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    use crate::{install::InstallError, mend::MendError, slots::SlotsError};
    let inner: Option<&(dyn Error + 'static)> = match cause.downcast_ref() {
        Some(InstallError::Disk(error)) => Some(error),
        Some(InstallError::Esp(error)) => Some(error),
        Some(InstallError::Boot(error)) => Some(error),
        _ => None,
    };
    let inner: Option<&(dyn Error + 'static)> = match cause.downcast_ref() {
        Some(MendError::Disk(error)) => Some(error),
        Some(MendError::Region(error)) => Some(error),
        Some(MendError::Install(error)) => Some(error),
        None => inner,
    };
    let inner: Option<&(dyn Error + 'static)> = match cause.downcast_ref() {
        Some(SlotsError::Disk(error)) => Some(error),
        Some(SlotsError::Region(error)) => Some(error),
        Some(SlotsError::Pins(error)) => Some(error),
        None => inner,
    };
    inner.map_or(cause, innermost)
}

fn stage_exit_code(error: &StageError) -> u8 {
    match error {
        StageError::Registry(error) => registry_exit_code(error),
        _ => match error.reason() {
            "DiskFailed" | "EspUnavailable" | "EspReadOnly" | "SlotUnreadable" | "BootFileMismatch" => {
                EXIT_DISK
            }
            _ => EXIT_REFUSED,
        },
    }
}

/// What comes from the registry's answer is the image's fault, and settings that cannot be used are refused.
fn registry_exit_code(error: &RegistryError) -> u8 {
    match error {
        RegistryError::Mirrors { source, .. } => registry_exit_code(source),
        RegistryError::Mirror { .. }
        | RegistryError::Hosts { .. }
        | RegistryError::Proxy { .. }
        | RegistryError::CaBundle { .. }
        | RegistryError::Client(_)
        | RegistryError::TooLarge { .. }
        | RegistryError::Truncated { .. }
        | RegistryError::DigestMismatch { .. }
        | RegistryError::InvalidManifest { .. }
        | RegistryError::UnsupportedLayer { .. }
        | RegistryError::WrongArchitecture { .. }
        | RegistryError::Reference { .. }
        | RegistryError::DigestAlgorithm { .. } => EXIT_REFUSED,
        _ => EXIT_REGISTRY,
    }
}

fn refused(message: impl Into<String>) -> anyhow::Error {
    Refused { message: message.into() }.into()
}
