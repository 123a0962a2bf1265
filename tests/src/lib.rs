//! Component tests of Evenkeel; each file in `tests/` is one subject. This is what they share.

pub mod audit;
pub mod binaries;
pub mod cluster;
pub mod cosign;
pub mod crowd;
pub mod fleet;
pub mod judges;
pub mod list_server;
pub mod loader;
pub mod machine;
pub mod operator;
pub mod os_image;
pub mod pods;
pub mod proxy;
pub mod rights;
pub mod scale;
pub mod store;
pub mod watch;

use std::path::{Path, PathBuf};

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the checkout").to_owned()
}
