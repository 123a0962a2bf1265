//! What machines do while their power is cut.

use std::ops::Range;

use anyhow::Result;
use clap::ValueEnum;
use evenkeel_node_agent_core::layout::{MIB, Role};

use super::{dice::Dice, install::INSTALL};
use crate::trial::base::{self, DISK_BYTES};

/// What a machine says when it has come to its end.
pub(super) const KEPT: &str = "evenkeel-power: kept";
/// What it says when it will not come to one.
pub(super) const FAILED: &str = "evenkeel-power: failed";

/// One thing that a machine does.
pub(super) struct Tale {
    pub name: &'static str,
    /// Whether it begins in slot b, which is kept, and not in slot a.
    pub begins_in_b: bool,
    /// What it does in each boot: the next step, which it tells.
    pub script: &'static str,
    /// Its own cloud-config.
    pub cloud_config: Option<&'static str>,
    /// Where a cut may come.
    pub places: &'static [Place],
    /// The slot that runs in the end.
    pub ends_in: &'static str,
    /// Whether it runs on another disk than the one that forgets what was not flushed, which is empty in the beginning.
    pub installs: bool,
}

/// Where a cut may come: so many writes at most after these words on the console, as often as such a step has them. A step
/// with fewer lets the cut fall into the next one.
pub(super) struct Place {
    pub words: &'static str,
    /// So many writes are always let through.
    pub skipped: u64,
    pub writes: u64,
    /// The writes that count.
    pub part: Part,
}

/// A part of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// The first copy of the partition table, and the mark of a disk that is not finished.
    Table,
    /// The second copy.
    BackupTable,
    Partition(Role),
}

/// The names of the tales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Another image is staged, tried and kept.
    Update,
    /// The same, but it is given up while it is tried.
    GivenUp,
    /// Back to the other slot.
    Rollback,
    /// A new beginning.
    Reset,
    /// A live system installs onto a second disk.
    Install,
}

impl Tale {
    /// The one with this name, or one by chance, of which an update is twice as likely as another. A seed's other numbers are
    /// the same with a name and without.
    pub(super) fn choose(name: Option<Name>, dice: &mut Dice) -> &'static Self {
        let by_chance = match dice.below(5) {
            0 => Name::Rollback,
            1 => Name::Reset,
            2 => Name::GivenUp,
            _ => Name::Update,
        };
        match name.unwrap_or(by_chance) {
            Name::Update => &UPDATE,
            Name::GivenUp => &GIVEN_UP,
            Name::Rollback => &ROLLBACK,
            Name::Reset => &RESET,
            Name::Install => &INSTALL,
        }
    }
}

impl Part {
    /// Its bytes.
    pub(super) fn range(self) -> Result<Range<u64>> {
        Ok(match self {
            Self::All => 0..u64::MAX,
            Self::Table => 0..MIB,
            Self::BackupTable => DISK_BYTES - MIB..DISK_BYTES,
            Self::Partition(role) => {
                let place = base::place(role)?;
                place.offset..place.offset + place.length
            }
        })
    }
}

/// Counts the writes of the whole disk.
pub(super) const fn after(words: &'static str, writes: u64) -> Place {
    Place { words, skipped: 0, writes, part: Part::All }
}

/// Another image is written, tried and kept.
static UPDATE: Tale = Tale {
    name: "an update",
    begins_in_b: false,
    script: r"
case $(cat /proc/cmdline) in
*evenkeel.slot=b*)
    say commit
    $agent commit --slot b && say kept
    ;;
*) try_image ;;
esac
",
    cloud_config: None,
    places: &[
        after("Linux version", 60),
        after("evenkeel-power: stage", 500),
        after("evenkeel-power: activate", 40),
        after("evenkeel-power: reboot", 60),
        after("evenkeel-power: commit", 12),
        after(KEPT, 20),
    ],
    ends_in: "b",
    installs: false,
};

/// Another image is written, tried and given up.
static GIVEN_UP: Tale = Tale {
    name: "a trial that is given up",
    begins_in_b: false,
    script: r"
given_up=/var/lib/evenkeel-trial/given-up
case $(cat /proc/cmdline) in
*evenkeel.slot=b*)
    touch $given_up && sync
    say give up
    $agent rollback && say back && systemctl reboot
    sleep 1000
    ;;
*)
    if [ -e $given_up ]; then say kept; else try_image; fi
    ;;
esac
",
    cloud_config: None,
    places: &[
        after("Linux version", 60),
        after("evenkeel-power: activate", 40),
        after("evenkeel-power: reboot", 60),
        after("evenkeel-power: give up", 12),
        after("evenkeel-power: back", 60),
        after(KEPT, 20),
    ],
    ends_in: "a",
    installs: false,
};

/// A person goes back from an image that was kept.
static ROLLBACK: Tale = Tale {
    name: "a way back",
    begins_in_b: true,
    script: r"
case $(cat /proc/cmdline) in
*evenkeel.slot=a*)
    say kept
    ;;
*)
    say rollback
    $agent rollback && say reboot && systemctl reboot
    sleep 1000
    ;;
esac
",
    cloud_config: None,
    places: &[
        after("Linux version", 60),
        after("evenkeel-power: rollback", 12),
        after("evenkeel-power: reboot", 60),
        after(KEPT, 20),
    ],
    ends_in: "a",
    installs: false,
};

/// A machine begins anew: this script is gone with its state, and its cloud-config says so.
static RESET: Tale = Tale {
    name: "a new beginning",
    begins_in_b: false,
    script: r"
say reset
$agent reset && say reboot && systemctl reboot
sleep 1000
",
    cloud_config: Some(
        "stages:\n  network:\n  - commands:\n    - \"[ -e /var/lib/evenkeel-trial/run ] || echo 'evenkeel-power: kept' > /dev/console\"\n",
    ),
    // The initrd makes the file systems behind the reboot.
    places: &[
        after("Linux version", 60),
        after("evenkeel-power: reset", 15),
        after("evenkeel-power: reboot", 400),
        after("this machine begins anew", 60),
        after(KEPT, 20),
    ],
    ends_in: "a",
    installs: false,
};
