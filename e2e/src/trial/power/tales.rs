//! What machines do while their power is cut.

use super::dice::Dice;

/// What a machine says when it has come to its end.
pub(super) const KEPT: &str = "evenkeel-power: kept";

/// One thing that a machine does.
pub(super) struct Tale {
    pub name: &'static str,
    /// Whether it begins in slot b, which is kept, and not in slot a.
    pub begins_in_b: bool,
    /// What it does in each boot: the next step, which it tells.
    pub script: &'static str,
    /// Its own cloud-config.
    pub cloud_config: Option<&'static str>,
    /// Where a cut may come: so many writes at most after these words on the console, as often as such a step has them. A step
    /// with fewer lets the cut fall into the next one.
    pub places: &'static [(&'static str, u64)],
    /// The slot that runs in the end.
    pub ends_in: &'static str,
}

impl Tale {
    /// One of them; an update is as likely as all others together.
    pub(super) fn choose(dice: &mut Dice) -> &'static Self {
        let others = [&ROLLBACK, &RESET];
        let chosen = usize::try_from(dice.below(2 * others.len() as u64)).unwrap_or_default();
        others.get(chosen).copied().unwrap_or(&UPDATE)
    }
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
*)
    say stage
    until $agent stage IMAGE --slot b --plain-http; do sleep 5; done
    say activate
    $agent activate --slot b && say reboot && systemctl reboot
    sleep 1000
    ;;
esac
",
    cloud_config: None,
    places: &[
        ("Linux version", 60),
        ("evenkeel-power: stage", 500),
        ("evenkeel-power: activate", 40),
        ("evenkeel-power: reboot", 60),
        ("evenkeel-power: commit", 12),
        (KEPT, 20),
    ],
    ends_in: "b",
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
        ("Linux version", 60),
        ("evenkeel-power: rollback", 12),
        ("evenkeel-power: reboot", 60),
        (KEPT, 20),
    ],
    ends_in: "a",
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
        ("Linux version", 60),
        ("evenkeel-power: reset", 15),
        ("evenkeel-power: reboot", 400),
        ("this machine begins anew", 60),
        (KEPT, 20),
    ],
    ends_in: "a",
};
