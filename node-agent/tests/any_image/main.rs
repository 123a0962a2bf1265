//! Any valid image, exactly: random stacks of layers, written by the agent and read by the kernel, against an oracle
//! that shares nothing with the agent. And what is not valid is refused by name. Needs root, for the mount.
//!
//! `PROPTEST_CASES` gives the number of stacks.

#[path = "../staging/power_cut/cuts.rs"]
#[expect(dead_code, reason = "shared with the tests of staging")]
mod cuts;
#[path = "../staging/image.rs"]
#[expect(dead_code, reason = "shared with the tests of staging")]
mod image;
mod kernel;
mod limits;
mod memory;
#[path = "../staging/odd_server.rs"]
#[expect(dead_code, reason = "shared with the tests of staging")]
mod odd_server;
mod oracle;
#[path = "../staging/recorder.rs"]
#[expect(dead_code, reason = "shared with the tests of staging")]
mod recorder;
mod refused;
#[path = "../staging/registry.rs"]
#[expect(dead_code, reason = "shared with the tests of staging")]
mod registry;
mod reused;
mod slot;
mod stacks;
mod tar_bytes;

use std::path::Path;

use proptest::prelude::*;

use kernel::{Mounted, fsck};
use oracle::{Invalid, Oracle};
use slot::Slot;
use stacks::{Form, Layer, stacks};

/// Stacks of one run: some seconds.
const STACKS: u32 = 48;

fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    // A failure is shrunk and printed; nothing is left in the tree.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 5000, ..ProptestConfig::default() }
}

fn oracle(layers: &[Layer]) -> Result<Oracle, Invalid> {
    let mut oracle = Oracle::default();
    for layer in layers {
        oracle.begin_layer();
        layer.items.iter().try_for_each(|item| oracle.apply(item))?;
    }
    Ok(oracle)
}

/// Writes the layers, and compares every path that the kernel shows with what the oracle says.
fn matches_the_oracle(layers: &[Layer]) -> Result<(), TestCaseError> {
    let oracle = oracle(layers).expect("only what the oracle takes is in a stack");
    let slot = Slot::new();
    slot.write(layers).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
    shows(&oracle, slot.path(), &slot.folder().join("at"))
}

/// What the kernel shows of a file system, mounted at `at`, is what the oracle says.
fn shows(oracle: &Oracle, path: &Path, at: &Path) -> Result<(), TestCaseError> {
    fsck(path);
    let mut actual = Mounted::new(path, at).entries();
    for (path, expected) in oracle.sum() {
        let seen = actual.remove(&path);
        prop_assert_eq!(seen.as_ref(), Some(&expected), "{}", path.escape_ascii());
    }
    let more: Vec<String> = actual.keys().map(|path| path.escape_ascii().to_string()).collect();
    prop_assert!(more.is_empty(), "the slot has more: {more:?}");
    Ok(())
}

proptest! {
    #![proptest_config(config(STACKS))]

    #[test]
    fn a_slot_is_what_its_layers_add_up_to(layers in stacks(true)) {
        matches_the_oracle(&layers)?;
    }

    /// The same tree, whatever the layers are compressed with and wherever their whiteouts stand.
    #[test]
    fn neither_form_nor_the_place_of_whiteouts_changes_a_byte(mut layers in stacks(false)) {
        let first = Slot::new().write(&layers).unwrap();
        for (form, whiteouts_last) in [(Form::Plain, false), (Form::ZstdFrames, true)] {
            for layer in &mut layers {
                layer.form = form;
                layer.items.sort_by_key(|item| item.is_whiteout() == whiteouts_last);
            }
            // Without its whiteout before it, a file may be in an entry's way.
            if oracle(&layers).is_err() {
                continue;
            }
            prop_assert_eq!(&Slot::new().write(&layers).unwrap(), &first);
        }
    }
}
