//! Where an image is taken from, as the command line says it.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use evenkeel_crds::{
    managed_os_image::{Proxy, Pull},
    verification::Verification,
};
use evenkeel_registry::RegistryOptions;
use evenkeel_trust::Policy;

use crate::{
    args::{PullArgs, SourceArgs, TrustArgs},
    disk::Disk,
    stage::StageRequest,
};

/// How registries are spoken to, and who must have signed what they give.
pub(super) struct Source {
    pub(super) registry: RegistryOptions,
    pub(super) trust: Option<Policy>,
}

impl Source {
    /// Reads the keys that are named.
    pub(super) fn of(args: &SourceArgs) -> Result<Self> {
        Ok(Self { registry: options(&args.pull), trust: policy(&args.trust)? })
    }

    /// What staging is asked for by a person.
    pub(super) fn request(&self, disk: Disk, slot: &str, image: &str) -> StageRequest {
        StageRequest {
            cloud_config: None,
            disk,
            slot: slot.to_owned(),
            image: image.to_owned(),
            registry: self.registry.clone(),
            trust: self.trust.clone(),
            plan_id: None,
        }
    }
}

fn policy(trust: &TrustArgs) -> Result<Option<Policy>> {
    if trust.keys.is_empty() {
        return Ok(None);
    }
    let read =
        |path: &PathBuf| fs::read_to_string(path).with_context(|| format!("read the key {}", path.display()));
    let keys = trust.keys.iter().map(read).collect::<Result<Vec<String>>>()?;
    Ok(Some(Policy::try_from(&Verification::any_of(keys))?))
}

fn options(pull: &PullArgs) -> RegistryOptions {
    let proxy = pull.proxy.clone().map(|url| Proxy { url, no_proxy: Vec::new() });
    RegistryOptions {
        pull: Pull {
            plain_http: pull.plain_http,
            mirrors: pull.mirrors.clone(),
            proxy,
            max_bytes_per_second: pull.max_bytes_per_second,
            background: pull.background,
            ..Pull::default()
        },
        docker_config: pull.docker_config.clone(),
        ca_file: pull.ca_file.clone(),
        hosts_dir: pull.hosts_dir.clone(),
        ..RegistryOptions::default()
    }
}
