//! A disk with Evenkeel's layout: a regular file or a block device.

pub mod region;

pub use region::{RegionError, SlotRegion};
