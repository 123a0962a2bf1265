//! Which pods leave a node before its reboot, and how they are asked to.

mod evict;
mod fate;
mod own_pod;
mod volumes;

pub use evict::{dry_run, evict, look};
pub use fate::{Fate, Rules, title};
pub use own_pod::{OwnPod, relieved};
