//! Component tests of Evenkeel; each file in `tests/` is one subject. This is what they share.

pub mod cluster;

use std::path::{Path, PathBuf};

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the checkout").to_owned()
}
