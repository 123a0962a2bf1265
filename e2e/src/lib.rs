//! Whole machines: tools, images, a control plane and virtual machines.

pub mod archive;
pub mod binaries;
pub mod cache;
pub mod component_images;
pub mod control_plane;
pub mod delta;
pub mod demo;
pub mod host_packages;
pub mod machine;
pub mod os_image;
pub mod process;
pub mod progress;
pub mod registry;
pub mod tools;
pub mod trial;
pub mod wait;
