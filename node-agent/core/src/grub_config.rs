//! What GRUB runs: one configuration for all slots, and one small script per slot.
//!
//! A slot's script begins with its type 1 entry in comments, which is how it is read again.

use std::fmt::Write as _;

use crate::boot_entry::EntryBody;

/// Folder of both on the boot partition.
pub const FOLDER: &str = "evenkeel/grub";
/// Ends the name of a script of a slot that was kept, and whose bytes are not what was written: GRUB does not see it.
pub const GIVEN_UP: &str = ".given-up";
/// The environment block, beside them.
pub const ENV: &str = "evenkeel/grub/grubenv";

/// The configuration. A trial is booted only after its try was counted on the disk: a loader that cannot write boots
/// the kept slot. A kept slot without a script was given up, and the last slot that is not on trial takes its place:
/// the recovery slot is the first, so that every other one comes before it. Where a part of a slot's kernel or initrd is
/// missing, the kept slot is tried, and then all others that are not on trial. (GRUB's own `fallback` takes one name, or
/// numbers, and not both.)
/// `next_entry` is a person's choice for one boot.
pub const CONFIG: &str = r#"# Written by evenkeel-agent. What boots is said by grubenv, and by one script per slot.
set timeout=0
set evenkeel=/evenkeel/grub
load_env --file $evenkeel/grubenv saved_entry next_entry evenkeel_trial evenkeel_tries evenkeel_loader

set evenkeel_kept=
for evenkeel_slot in recovery a b c d e f g h; do
    if [ -f "$evenkeel/$evenkeel_slot.cfg" ]; then
        menuentry "Evenkeel, slot $evenkeel_slot" --id "evenkeel-$evenkeel_slot" "$evenkeel_slot" {
            for evenkeel_tried in "$2" $evenkeel_kept $evenkeel_others; do
                if source "/evenkeel/grub/$evenkeel_tried.cfg"; then boot; fi
            done
        }
        if [ "evenkeel-$evenkeel_slot" = "$saved_entry" ]; then
            set evenkeel_saved=$evenkeel_slot
        elif [ "$evenkeel_slot" != "$evenkeel_trial" ]; then
            set evenkeel_kept=$evenkeel_slot
            set evenkeel_others="$evenkeel_slot $evenkeel_others"
        fi
    fi
done
if [ -n "$evenkeel_saved" ]; then set evenkeel_kept=$evenkeel_saved; fi
set default="evenkeel-$evenkeel_kept"

if [ -n "$evenkeel_loader" -a "$evenkeel_loader" != "writes" ]; then
    set evenkeel_loader=writes
    save_env --file $evenkeel/grubenv evenkeel_loader
fi

if [ -n "$next_entry" ]; then
    set evenkeel_once=$next_entry
    set next_entry=
    if save_env --file $evenkeel/grubenv next_entry; then
        set default=$evenkeel_once
    fi
elif [ -n "$evenkeel_trial" -a -f "$evenkeel/$evenkeel_trial.cfg" ]; then
    set evenkeel_left=
    if [ "$evenkeel_tries" = 3 ]; then set evenkeel_left=2; fi
    if [ "$evenkeel_tries" = 2 ]; then set evenkeel_left=1; fi
    if [ "$evenkeel_tries" = 1 ]; then set evenkeel_left=0; fi
    if [ -n "$evenkeel_left" ]; then
        set evenkeel_tries=$evenkeel_left
        if save_env --file $evenkeel/grubenv evenkeel_tries; then
            set default=evenkeel-$evenkeel_trial
            set evenkeel_counted_$evenkeel_trial=evenkeel.trial
        fi
    fi
fi
"#;

/// Path of a slot's script on the boot partition.
pub fn script_path(slot: &str) -> String {
    format!("{FOLDER}/{slot}.cfg")
}

/// Where a kept slot's script lies once an initrd has given the slot up.
pub fn given_up_path(slot: &str) -> String {
    format!("{FOLDER}/{slot}{GIVEN_UP}")
}

/// A slot's script.
pub fn encode(body: &EntryBody) -> String {
    let mut script = String::new();
    for line in body.encode().lines() {
        writeln!(script, "# {line}").expect("writing to a string cannot fail");
    }
    let options: Vec<String> = body.options().split_whitespace().map(quoted).collect();
    let (linux, initrd) = (quoted(&body.linux), quoted(&body.initrd));
    script
        + &format!("linux {linux} {} $evenkeel_counted_{}\ninitrd {initrd}\n", options.join(" "), body.slot)
}

/// The reverse; `None` for scripts that are not ours.
pub fn parse(script: &str) -> Option<EntryBody> {
    let lines: Vec<&str> = script.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    EntryBody::parse(&lines.join("\n"))
}

/// A word that GRUB's shell takes as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "=._:/,+@%-".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_entry;

    #[test]
    fn a_script_is_read_again_and_takes_no_word_for_more_than_a_word() {
        let kernel_options = "dyndbg=\"file a.c +p;b\" quiet $prefix it's".into();
        let body = EntryBody { kernel_options, ..boot_entry::tests::body("a", 7) };
        let script = encode(&body);
        assert_eq!(parse(&script), Some(body));
        for word in [" '+p;b\"' ", " '$prefix' ", r" 'it'\''s' ", " $evenkeel_counted_a\n"] {
            assert!(script.contains(word), "{word} is not in {script}");
        }
    }
}
