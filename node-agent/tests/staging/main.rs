//! Staging against real registries, and against one that misbehaves on purpose: what becomes of a slot, and what is
//! said when nothing can.

mod chunked;
mod cloud_config;
mod command_line;
mod credentials;
mod delta;
mod image;
mod install;
mod interruptions;
mod kinds;
mod machine;
mod many_moves;
mod memory;
mod odd_server;
mod own_changes;
mod power_cut;
mod recorder;
mod recovery;
mod refusals;
mod registry;
mod reuse;
mod shell;
mod signatures;
mod state_store;
mod unreadable;
