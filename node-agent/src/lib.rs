//! The agent: every byte on a node's disk, and the report of it. `evenkeel-agent` is its command line.

pub mod disk;
pub mod run;
pub mod state_dir;
