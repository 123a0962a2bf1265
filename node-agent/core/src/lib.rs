//! The node's side without I/O: on-disk formats and the update machine, as functions of what is given.
//!
//! Never touches a file, a socket or a clock.

pub mod bios_boot;
pub mod boot_entry;
pub mod boot_files;
pub mod chunks;
pub mod cloud_config;
pub mod content_index;
pub mod digest;
pub mod doctor;
pub mod efi_program;
pub mod erofs;
pub mod erofs_read;
pub mod growth;
pub mod grub_config;
pub mod grub_env;
pub mod journal;
pub mod kernel_options;
pub mod layout;
pub mod live_config;
pub mod machine;
pub mod own_changes;
pub mod partition_table;
pub mod reset;
pub mod reuse;
pub mod section_list;
pub mod slot_check;
pub mod slot_record;
pub mod tree;
