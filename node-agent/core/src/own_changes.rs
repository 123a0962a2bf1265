//! The machine's own changes to folders that the image brings, which lie over the image's files: whose version counts.
//!
//! The rule is that the machine's counts, until somebody removes it. A *conflict* is a path that the new image has otherwise than
//! the one before, and the machine otherwise than both: what the new image says there is not seen.

use crate::erofs_read::Entry;

/// Folders with the machine's own changes over the image's files.
pub const FOLDERS: [&str; 4] = ["etc", "opt", "root", "srv"];

/// Whether a path is in conflict; `None` is that nothing is there, which for the machine means that it removed it.
#[must_use]
pub fn is_conflict(machine: Option<&Entry>, before: Option<&Entry>, after: Option<&Entry>) -> bool {
    before != after && machine != after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_changed_in_different_ways_is_a_conflict() {
        let file = |content: &str| Some(Entry::File(content.into()));
        let [own, old, new] = [file("own"), file("old"), file("new")];
        let cases = [
            (&own, &old, &new, true),
            (&own, &old, &old, false),
            (&new, &old, &new, false),
            // The machine removed it, the image changes it.
            (&None, &old, &new, true),
            (&None, &old, &None, false),
            // Both added it.
            (&own, &None, &new, true),
            // The image removes what the machine changed.
            (&own, &old, &None, true),
            (&Some(Entry::Folder), &Some(Entry::Folder), &new, true),
        ];
        for (machine, before, after, expected) in cases {
            let found = is_conflict(machine.as_ref(), before.as_ref(), after.as_ref());
            assert_eq!(found, expected, "{machine:?} {before:?} {after:?}");
        }
    }
}
