//! What is read of documents that come from outside, without a network: for the fuzz targets, which have no other way
//! to these functions.

use oci_spec::distribution::Reference;

use crate::{
    Platform, credentials,
    image::{self, Config, Document},
    platform,
};

/// A manifest or an index, and a configuration, as a registry would give them for an image.
pub fn image_documents(manifest: &[u8], config: &[u8]) {
    let reference: Reference = "r.example/team/os:1".parse().expect("it is a reference");
    let config: Option<Config> = serde_json::from_slice(config).ok();
    match image::parse_manifest(&reference, manifest) {
        Ok(Document::Index(index)) => {
            for machine in [Some(Platform::host()), None] {
                let chosen = platform::choose(&reference, &index, machine.as_ref());
                assert!(
                    chosen.is_err()
                        || chosen
                            .is_ok_and(|digests| !digests.is_empty() && digests[0].starts_with("sha256:"))
                );
            }
        }
        Ok(Document::Manifest(manifest)) => {
            let Some(config) = config else { return };
            let _ = (config.labels(), config.platform.fits(&Platform::host()));
            if let Ok(layers) = image::layers(&reference, &manifest, &config) {
                assert!((1..=127).contains(&layers.len()));
            }
        }
        Err(_) => {}
    }
}

/// A Docker `config.json`.
pub fn docker_config(bytes: &[u8]) {
    for (registry, repository) in
        [("r.example", "team/os"), ("docker.io", "library/os"), ("127.0.0.1:5000", "")]
    {
        let _ = credentials::find_in(bytes, registry, repository);
    }
}
