//! The agent: every byte on a node's disk, and the report of it. `evenkeel-agent` is its command line.

// They end the program where nobody listens: see [`tell`].
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod args;
pub mod boot;
pub mod causes;
pub mod cloud_config;
pub mod commands;
pub mod disk;
pub mod doctor;
pub mod esp;
pub mod grow;
pub mod guard;
pub mod init;
pub mod install;
pub mod mend;
pub mod own_changes;
pub mod pins;
mod plan_error;
pub mod printable;
pub mod programs;
pub mod reboot;
pub mod reset;
pub mod run;
pub mod slot;
pub mod slots;
pub mod stage;
pub mod state_dir;
pub mod tell;
