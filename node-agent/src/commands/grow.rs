//! `grow`.

use std::path::Path;

use anyhow::Result;

use super::{disk, refused};
use crate::{
    args::GrowArgs,
    disk::TableGrowth,
    grow::{self, FileSystem, Grown},
    tell::tell,
};

pub(super) fn grow(args: &GrowArgs) -> Result<()> {
    let path = disk::open(&args.disk)?.path().to_owned();
    let grown = grow::grow(&path, &args.disk.proc)?;
    if grown.table == TableGrowth::NotLast {
        let message =
            "the last partition is not evenkeel-state, so that it has no room to grow: nothing was done";
        return Err(refused(format!("{}: {message}", path.display())));
    }
    tell!("{}", words(&path, grown));
    Ok(())
}

fn words(path: &Path, grown: Grown) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let table = match grown.table {
        TableGrowth::Written => "the partition table was written for the whole disk",
        TableGrowth::Whole | TableGrowth::NotLast => "the partition table has the whole disk already",
    };
    let file_system = match grown.file_system {
        FileSystem::Grown(before, after) => {
            format!("and its file system grew from {} to {} MiB", mib(before), mib(after))
        }
        FileSystem::Whole => "and its file system all of that".to_owned(),
        FileSystem::NotMounted => {
            "and its file system, which is not mounted, grows at the next boot".to_owned()
        }
    };
    format!(
        "{}: {table}; the state partition has {} MiB, {file_system}",
        path.display(),
        mib(grown.partition)
    )
}
