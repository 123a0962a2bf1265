//! The agent: every byte on a node's disk, and the report of it. `evenkeel-agent` is its command line.

pub mod boot;
pub mod cloud_config;
pub mod disk;
pub mod esp;
pub mod init;
pub mod reboot;
pub mod run;
pub mod slot;
pub mod state_dir;
