//! Where the partitions of a disk lie.

/// Bytes in a mebibyte: partitions start on such borders.
pub const MIB: u64 = 1 << 20;
const ESP: u64 = 512 * MIB;
const OEM: u64 = 64 * MIB;
const RECOVERY_MAX: u64 = 512 * MIB;
const STATE_MIN: u64 = 256 * MIB;
const SLOT_MIN: u64 = 16 * MIB;
/// More than the root file system of any node needs; the rest is better used as state.
const SLOT_DEFAULT_MAX: u64 = 16 << 30;
/// The first and the last mebibyte of a disk hold the two partition tables.
const TABLES: u64 = 2 * MIB;

/// Slots of a disk for which nobody wants another number.
pub const SLOTS_DEFAULT: u8 = 2;
/// Most slots of a disk.
pub const SLOTS_MAX: u8 = 8;
const SLOT_PARTITIONS: [&str; SLOTS_MAX as usize] = [
    "evenkeel-a",
    "evenkeel-b",
    "evenkeel-c",
    "evenkeel-d",
    "evenkeel-e",
    "evenkeel-f",
    "evenkeel-g",
    "evenkeel-h",
];
/// Per cent of what the boot and oem partitions leave that all slots get together, when nobody says more.
const SLOTS_SHARE: u64 = 70;

/// Name of the slot that updates never write.
pub const RECOVERY_SLOT: &str = "recovery";

/// The slot's name in the name of its partition, if it is one that updates write.
pub fn slot_name(partition: &str) -> Option<&str> {
    SLOT_PARTITIONS.contains(&partition).then(|| partition.strip_prefix("evenkeel-")).flatten()
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The EFI system partition.
    Esp,
    /// The machine's own cloud-config.
    Oem,
    /// A slot that updates never write.
    Recovery,
    /// A slot that updates write: 0 for `a`, 1 for `b`, …
    Slot(u8),
    /// What outlives updates.
    State,
    /// GRUB for machines with BIOS.
    Bios,
}

impl Role {
    /// The partition's name in the table.
    pub fn partition_name(self) -> &'static str {
        match self {
            Self::Esp => "evenkeel-esp",
            Self::Oem => "evenkeel-oem",
            Self::Recovery => "evenkeel-recovery",
            Self::Slot(index) => SLOT_PARTITIONS[usize::from(index) % SLOT_PARTITIONS.len()],
            Self::State => "evenkeel-state",
            Self::Bios => "evenkeel-bios",
        }
    }
}

/// One partition to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is for.
    pub role: Role,
    /// Bytes from the start of the disk.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Where GRUB for BIOS lies, on every disk that a BIOS can boot: between the partition table, which ends before byte 17408,
/// and the mark of a disk that is being made, at 512 KiB. It takes no place of the others, and its entry in the table comes
/// after theirs.
pub const BIOS: Place = Place { role: Role::Bios, offset: 64 << 10, length: 448 << 10 };
/// Bytes of the blocks of a disk that a BIOS can boot.
pub const BIOS_BLOCK: u64 = 512;

/// Why a disk cannot be laid out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// The parts do not fit.
    #[error(
        "a disk of {disk} MiB is too small: boot 512, oem 64, recovery {recovery}, {slots} slots of {slot}, state at \
         least 256 and 2 for tables need {needed} MiB; give a larger disk or a smaller --slot-size"
    )]
    TooSmall {
        /// MiB of the disk.
        disk: u64,
        /// Number of slots.
        slots: u8,
        /// MiB of a slot.
        slot: u64,
        /// MiB of the recovery slot.
        recovery: u64,
        /// MiB in all.
        needed: u64,
    },
    /// A slot that holds nothing.
    #[error("a slot of {0} bytes is too small to hold an operating system: use at least 16 MiB")]
    SlotTooSmall(u64),
    /// One slot cannot be updated, and partitions have single letters.
    #[error("{0} slots cannot be had: use 2 to 8")]
    NumberOfSlots(u8),
    /// Not a size.
    #[error("{0:?} is not a size: write a number and a unit, for example 8GiB or 512MiB")]
    NotASize(String),
}

/// Lays out a disk of `disk` bytes with `slots` slots of `slot` bytes; without a size the slots share 70 % of what the
/// boot and oem partitions leave. The recovery slot has the size of a slot, but at most 512 MiB; state gets the rest.
pub fn layout(disk: u64, slot: Option<u64>, slots: u8) -> Result<Vec<Place>, LayoutError> {
    if !(SLOTS_DEFAULT..=SLOTS_MAX).contains(&slots) {
        return Err(LayoutError::NumberOfSlots(slots));
    }
    let left = disk.saturating_sub(ESP + OEM + TABLES);
    let share = left / 100 * SLOTS_SHARE / u64::from(slots);
    let slot = slot.unwrap_or_else(|| share.clamp(SLOT_MIN, SLOT_DEFAULT_MAX)) / MIB * MIB;
    if slot < SLOT_MIN {
        return Err(LayoutError::SlotTooSmall(slot));
    }
    let recovery = slot.min(RECOVERY_MAX);
    let before_state = slot.saturating_mul(slots.into()).saturating_add(recovery);
    let state = left.saturating_sub(before_state) / MIB * MIB;
    if state < STATE_MIN {
        return Err(LayoutError::TooSmall {
            disk: disk / MIB,
            slots,
            slot: slot / MIB,
            recovery: recovery / MIB,
            needed: before_state.saturating_add(ESP + OEM + TABLES + STATE_MIN) / MIB,
        });
    }
    let slots = (0..slots).map(|index| (Role::Slot(index), slot));
    let before = [(Role::Esp, ESP), (Role::Oem, OEM), (Role::Recovery, recovery)];
    let parts = before.into_iter().chain(slots).chain([(Role::State, state)]);
    let mut offset = MIB;
    Ok(parts
        .map(|(role, length)| {
            let place = Place { role, offset, length };
            offset += length;
            place
        })
        .collect())
}

/// Reads a size: `8GiB`, `512MiB`, `64KiB`, or bytes without a unit.
pub fn parse_size(text: &str) -> Result<u64, LayoutError> {
    let wrong = || LayoutError::NotASize(text.to_owned());
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" | "Ki" | "K" => 1 << 10,
        "MiB" | "Mi" | "M" => 1 << 20,
        "GiB" | "Gi" | "G" => 1 << 30,
        "TiB" | "Ti" | "T" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_manual_fits() {
        let places = layout(8 << 30, Some(3 << 30), 2).unwrap();
        assert_eq!(places[3], Place { role: Role::Slot(0), offset: 1089 * MIB, length: 3 << 30 });
        assert_eq!(places[5].length / MIB, 8192 - 2 - 512 - 64 - 512 - 6144);
    }

    #[test]
    fn a_disk_that_is_too_small_says_what_it_needs() {
        let message = layout(4 << 30, Some(3 << 30), 2).unwrap_err().to_string();
        assert!(message.contains("7490 MiB") && message.contains("--slot-size"), "{message}");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("8GiB"), Ok(8 << 30));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in ["", "GiB", "8 GiB", "8GB", "-1", "99999999TiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn partitions_never_overlap_nor_leave_the_disk(
            disk in 0u64..1 << 42,
            slot in proptest::option::of(0u64..1 << 40),
            slots: u8,
        ) {
            if let Ok(places) = layout(disk, slot, slots) {
                prop_assert!(places[0].offset >= MIB);
                prop_assert!(BIOS.offset + BIOS.length <= places[0].offset);
                for pair in places.windows(2) {
                    prop_assert_eq!(pair[0].offset + pair[0].length, pair[1].offset);
                }
                let last = places.last().unwrap();
                prop_assert!(last.role == Role::State && last.offset + last.length <= disk - MIB);
                let names: Vec<_> = places.iter().filter_map(|place| slot_name(place.role.partition_name())).collect();
                prop_assert_eq!(names.len(), usize::from(slots));
                prop_assert_eq!(places[3].length, places[2 + usize::from(slots)].length);
            }
        }
    }
}
