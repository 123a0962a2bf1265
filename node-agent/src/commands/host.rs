//! Commands that run on the host, or in an image that is being built.

use anyhow::Result;

use crate::{
    args::InitArgs,
    guard::{self, GuardArgs},
    init,
    tell::tell,
};

pub(super) fn init(args: &InitArgs) -> Result<()> {
    init::init(&args.root, !args.no_initrd)?;
    tell!("the image under {} can be booted from a slot", args.root.display());
    Ok(())
}

pub(super) fn guard(args: &GuardArgs) -> Result<()> {
    Ok(guard::guard(args)?)
}
