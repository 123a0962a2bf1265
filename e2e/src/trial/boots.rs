//! What a machine's console says of its boots.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};

use super::case::Boot;

/// The kernel's first words on its command line.
const COMMAND_LINE: &str = "] Command line: ";
/// What the kernel says of a block whose hash is wrong.
const DAMAGE: &str = "is corrupted";
const UP: &str = "multi-user.target";

/// Reads a console's log; one that is not there yet has no boots.
pub(super) fn read(console: &Path) -> Result<Vec<Boot<String>>> {
    match fs::read(console) {
        Ok(bytes) => Ok(parse(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read the console {}", console.display())),
    }
}

/// Reads what a console said.
pub(super) fn parse(text: &str) -> Vec<Boot<String>> {
    let mut boots: Vec<Boot<String>> = Vec::new();
    for line in text.lines() {
        if let Some((_, words)) = line.split_once(COMMAND_LINE) {
            let slot = words.split_whitespace().find_map(|word| word.strip_prefix("evenkeel.slot="));
            let slot = slot.unwrap_or_default().to_owned();
            boots.push(Boot { slot, damage_found: false, up: false });
        } else if let Some(boot) = boots.last_mut() {
            boot.damage_found |= line.contains("device-mapper: verity") && line.contains(DAMAGE);
            boot.up |= line.contains("Reached target") && line.contains(UP);
        }
    }
    boots
}

/// Whether the boots that were seen are those that were expected.
pub(super) fn equal(seen: &[Boot<String>], expected: &[Boot]) -> bool {
    let same = |(seen, expected): (&Boot<String>, &Boot)| {
        (seen.slot.as_str(), seen.damage_found, seen.up)
            == (expected.slot, expected.damage_found, expected.up)
    };
    seen.len() == expected.len() && seen.iter().zip(expected).all(same)
}

#[cfg(test)]
mod tests {
    use super::{
        super::case::{damaged, up},
        *,
    };

    #[test]
    fn boots_are_told_apart() {
        let text = "[    0.000000] Command line: quiet evenkeel.slot=b evenkeel.digest=x\n\
             [    0.010000] Kernel command line: quiet evenkeel.slot=b\n\
             [    9.1] device-mapper: verity: 253:0: data block 7 is corrupted\n\
             [    0.000000] Command line: evenkeel.slot=a\n\
             [[0;32m  OK  [0m] Reached target [0;1;39mmulti-user.target[0m - Multi-User System.\n";
        let seen = parse(text);
        assert!(equal(&seen, &[damaged("b"), up("a")]), "{seen:?}");
        assert!(!equal(&seen, &[up("b"), up("a")]) && !equal(&seen, &[damaged("b")]));
    }
}
