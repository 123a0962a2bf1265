//! What is fuzzed: everything that comes from outside, one function for each kind. The seeds of each lie in the folder
//! of its name in `seeds/`; ordinary tests run them through the same functions.

mod chunks;
mod disk;
mod documents;
mod layer;
mod memory;
mod signature;

pub use chunks::chunk_table;
pub use disk::{bios_boot, boot_entry, content_index, erofs_read, grub_env, partition_table, slot_record};
pub use documents::{docker_config, image_documents, journal, kernel_options};
pub use layer::{layer, pax};
pub use signature::signature;

/// A function that takes any bytes without a panic.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 15] = [
    ("layer", layer),
    ("pax", pax),
    ("erofs_read", erofs_read),
    ("slot_record", slot_record),
    ("partition_table", partition_table),
    ("boot_entry", boot_entry),
    ("kernel_options", kernel_options),
    ("journal", journal),
    ("image_documents", image_documents),
    ("docker_config", docker_config),
    ("signature", signature),
    ("content_index", content_index),
    ("chunk_table", chunk_table),
    ("grub_env", grub_env),
    ("bios_boot", bios_boot),
];

/// The bytes before and behind the first `mark`.
fn halves<'a>(bytes: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    let at = bytes.windows(mark.len()).position(|part| part == mark);
    at.map_or((bytes, &[]), |at| (&bytes[..at], &bytes[at + mark.len()..]))
}
