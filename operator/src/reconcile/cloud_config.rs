//! The cloud-config of an image object: what nodes get, and whether they would understand it.

use evenkeel_crds::cloud_config::{CloudConfig, DOCUMENT_BYTES_MAX, OrderedCloudConfig};
use evenkeel_node_agent_core::{cloud_config::parse, digest::hex};
use sha2::{Digest as _, Sha256};

/// What nodes get.
pub fn ordered(config: &CloudConfig) -> OrderedCloudConfig {
    let document = config.document();
    let sha256 = hex(&Sha256::digest(&document));
    OrderedCloudConfig { document, sha256 }
}

/// Refuses a document that is too long, that is damaged, or of which a part would be left out.
pub fn check(config: &CloudConfig) -> Result<(), String> {
    let document = config.document();
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(format!(
            "cloudConfig has {} bytes and may have {DOCUMENT_BYTES_MAX}: put large files into the image",
            document.len()
        ));
    }
    let parsed = parse(&document).map_err(|error| format!("cloudConfig cannot be used: {error}"))?;
    if parsed.unknown.is_empty() {
        return Ok(());
    }
    let keys = parsed.unknown.join(", ");
    Err(format!("cloudConfig cannot be used: not supported, and would be left out: {keys}"))
}
