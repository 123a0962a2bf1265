//! Strings in the machine's SMBIOS, as the kernel shows them.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::cloud_config::{DOCUMENT_BYTES_MAX, smbios};

use super::Given;
use crate::cloud_config::DOCUMENTS_MAX;

/// Of the largest document in base64, and what is around it.
const BYTES_MAX: u64 = 2 * DOCUMENT_BYTES_MAX as u64;

/// The documents; `firmware` is the folder `/sys/firmware/dmi`, which machines without SMBIOS do not have.
pub(super) fn read(firmware: &Path) -> Given {
    let found = places(firmware).into_iter().flat_map(|path| smbios::documents(&structures(&path)));
    let mut given = Given::default();
    for (number, document) in (1..).zip(found) {
        let name = format!("document {number} of the SMBIOS");
        match document {
            Ok(text) if number <= DOCUMENTS_MAX => given.documents.push((name, text)),
            Ok(_) => tracing::error!("{name} is left out: {DOCUMENTS_MAX} at most are read"),
            Err(error) => tracing::error!("{name} is left out: {error}"),
        }
    }
    given
}

/// What is there; what cannot be read is told.
fn structures(path: &Path) -> Vec<u8> {
    match bytes(path) {
        Ok(structures) => structures,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a part of the SMBIOS is left out");
            Vec::new()
        }
    }
}

/// A folder for each structure, in their order; or the table, where the kernel's module for them (`dmi-sysfs`) is not there.
fn places(firmware: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(firmware.join("entries")) else {
        return vec![firmware.join("tables/DMI")];
    };
    let numbered = entries.flatten().filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.strip_prefix("11-")?.parse().ok()?;
        Some((number, entry.path().join("raw")))
    });
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort();
    numbered.into_iter().map(|(_, path)| path).collect()
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if length as u64 > BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {BYTES_MAX} bytes"),
        ));
    }
    Ok(bytes)
}
