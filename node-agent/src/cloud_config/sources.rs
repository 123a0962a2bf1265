//! All documents of a machine: those of its data sources, and then those of its own disk, which have the last word. What is
//! damaged is told and left out.

mod fat;
mod nocloud;
mod smbios;

use std::path::{Path, PathBuf};

use evenkeel_node_agent_core::cloud_config::{CloudConfig, Source, nocloud::MetaData};

use super::CloudConfigError;
use crate::{
    causes::with_causes,
    disk::{self, Disk},
    programs::{self, UDEVADM},
};

const FIRMWARE: &str = "/sys/firmware/dmi";
/// Seconds in which devices are there: one that comes later is not looked at in this boot.
const DEVICES_SECONDS: &str = "--timeout=10";

/// What a data source gives.
#[derive(Debug, Default)]
pub struct Given {
    /// The documents and what they are called, in their order.
    pub documents: Vec<(String, String)>,
    /// What the machine is called.
    pub meta_data: MetaData,
}

/// What all documents of a machine say.
pub fn read(disk: &Disk) -> Result<CloudConfig, CloudConfigError> {
    let own = super::read(disk)?;
    Ok(read_with(own, Path::new(FIRMWARE), || devices(disk)))
}

/// The same of a machine with this folder of its firmware and with these devices, for what its own documents say.
pub fn read_with(own: CloudConfig, firmware: &Path, devices: impl FnOnce() -> Vec<PathBuf>) -> CloudConfig {
    let mut config = CloudConfig::default();
    let mut host_name = None;
    if own.asks(Source::Smbios) {
        append(&mut config, smbios::read(firmware));
    }
    if own.asks(Source::NoCloud) {
        let given = nocloud::read(&devices());
        host_name.clone_from(&given.meta_data.local_hostname);
        append(&mut config, given);
    }
    config.append(own);
    if let Some(name) = host_name {
        config.set_default_host_name(name);
    }
    config
}

/// All that may be a data source. Drives that the initrd does not know, such as those of CDs, come while the system starts.
fn devices(disk: &Disk) -> Vec<PathBuf> {
    if let Err(error) = programs::run(UDEVADM, ["settle", DEVICES_SECONDS]) {
        tracing::debug!(%error, "nothing to wait for devices with");
    }
    let devices = disk::other_devices(disk.path());
    devices
        .inspect_err(|error| tracing::error!(%error, "no disk is searched for a data source"))
        .unwrap_or_default()
}

fn append(config: &mut CloudConfig, given: Given) {
    for (name, text) in given.documents {
        match super::document(&name, &text) {
            Ok(document) => config.append(document),
            Err(error) => tracing::error!(error = with_causes(&error.into()), "left out"),
        }
    }
}
