//! Commands that run on the host, or in an image that is being built.

use std::{fs, path::Path};

use anyhow::Result;

use super::disk;
use crate::{
    args::{DiskArg, InitArgs},
    cloud_config,
    guard::{self, GuardArgs},
    init,
};

pub(super) fn init(args: &InitArgs) -> Result<()> {
    init::init(&args.root, !args.no_initrd)?;
    eprintln!("the image under {} can be booted from a slot", args.root.display());
    Ok(())
}

pub(super) fn guard(args: &GuardArgs) -> Result<()> {
    Ok(guard::guard(args)?)
}

pub(super) fn apply_cloud_config(args: &DiskArg) -> Result<()> {
    let Some(config) = cloud_config::read(&disk::open(args)?)? else {
        eprintln!("this machine has no cloud-config");
        return Ok(());
    };
    for path in config.apply(Path::new("/"))? {
        eprintln!("wrote {}", path.display());
    }
    if let Some(name) = &config.hostname {
        fs::write("/proc/sys/kernel/hostname", name)?;
    }
    Ok(())
}
