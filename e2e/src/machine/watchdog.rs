//! The watchdog of the machine type, which counts in the emulator and not in the machine.
//!
//! QEMU's q35 has the timer of Intel's I/O hub ICH9 (TCO, section 13.9 of its data sheet). The kernels of cloud images have
//! no driver for it, but they have that for watchdogs of which the firmware tells how they are used: the table WDAT
//! ("Hardware Watchdog Timers Design Specification" of Microsoft). QEMU makes no such table before its version 11; this one
//! says the same. It begins behind the header that every ACPI table has, which QEMU adds:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | bytes of this header, 32 |
//! | 2, 1, 1, 1, 3 | PCI segment, bus, device, function: none; reserved |
//! | 4, 4, 4 | milliseconds of one count, most and fewest counts |
//! | 1, 3 | flags: 1 there is one, 128 it stops in sleep; reserved |
//! | 4 | number of entries |
//! | 24 each | action, instruction, 2 reserved bytes, address (space, bits, first bit, width, 8 bytes), value, mask |

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// Where both firmwares put the registers of power management, and the timer's behind them.
const TIMER: u64 = 0x600 + 0x60;
/// Where both firmwares put the hub's own registers, and that of general control and status behind them.
const CONTROL: u64 = 0xfed1_c000 + 0x3410;
/// The timer counts 600 ms, and resets when it has run out twice.
const COUNT: u32 = 2 * 600;
const COUNTS: std::ops::RangeInclusive<u32> = 4..=0x3ff;

/// A register: its address space (0 memory, 1 ports), bytes, and address.
type Register = (u8, u8, u64);
const RELOAD: Register = (1, 2, TIMER);
const TIMED_OUT_TWICE: Register = (1, 2, TIMER + 0x06);
const TIMER_CONTROL: Register = (1, 2, TIMER + 0x08);
const INITIAL: Register = (1, 2, TIMER + 0x12);
const GENERAL_CONTROL: Register = (0, 4, CONTROL);

const READ: u8 = 0;
const READ_COUNT: u8 = 1;
const WRITE: u8 = 2;
const WRITE_COUNT: u8 = 3;
/// Bits beside the mask stay as they are.
const CHANGE: u8 = WRITE | 0x80;

/// Action, instruction, register, value, mask.
const ENTRIES: [(u8, u8, Register, u32, u32); 11] = [
    // Begin to count anew.
    (0x01, WRITE, RELOAD, 1, 0x1ff),
    // Counts that are left, and that it begins with.
    (0x04, READ_COUNT, RELOAD, 0, 0x3ff),
    (0x05, READ_COUNT, INITIAL, 0, 0x3ff),
    (0x06, WRITE_COUNT, INITIAL, 0, 0x3ff),
    // It runs while the halt bit is not set.
    (0x08, READ, TIMER_CONTROL, 0, 0x800),
    (0x09, CHANGE, TIMER_CONTROL, 0, 0x800),
    (0x0a, READ, TIMER_CONTROL, 0x800, 0x800),
    (0x0b, CHANGE, TIMER_CONTROL, 0x800, 0x800),
    // It resets while "no reboot" is not set.
    (0x11, CHANGE, GENERAL_CONTROL, 0, 0x20),
    // Whether it was what ended the boot before.
    (0x20, READ, TIMED_OUT_TWICE, 2, 2),
    (0x21, CHANGE, TIMED_OUT_TWICE, 2, 2),
];

/// Writes the table and gives what makes an emulator have the watchdog.
pub(super) fn arguments(folder: &Path) -> Result<[String; 4]> {
    let path = folder.join("wdat");
    fs::write(&path, table()).with_context(|| format!("write {}", path.display()))?;
    let table = format!("sig=WDAT,rev=1,data={}", path.display());
    Ok(["-acpitable".to_owned(), table, "-global".to_owned(), "ICH9-LPC.noreboot=off".to_owned()])
}

fn table() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(32_u32.to_le_bytes());
    bytes.extend([0xff, 0, 0xff, 0xff, 0xff, 0, 0, 0]);
    for number in [COUNT, *COUNTS.end(), *COUNTS.start()] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([0x81, 0, 0, 0]);
    #[expect(clippy::cast_possible_truncation, reason = "eleven")]
    bytes.extend((ENTRIES.len() as u32).to_le_bytes());
    for (action, instruction, (space, width, address), value, mask) in ENTRIES {
        // The width of an access: 1 a byte, 2 two, 3 four.
        bytes.extend([action, instruction, 0, 0, space, width * 8, 0, width / 2 + 1]);
        bytes.extend(address.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes.extend(mask.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_long_as_it_says() {
        let table = table();
        assert_eq!(table.len(), 32 + 24 * usize::from(table[28]));
    }
}
