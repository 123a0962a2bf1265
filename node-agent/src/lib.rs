//! The agent: every byte on a node's disk, and the report of it. `evenkeel-agent` is its command line.

pub mod boot;
pub mod disk;
pub mod esp;
pub mod run;
pub mod slot;
pub mod state_dir;
