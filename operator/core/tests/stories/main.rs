//! Rollouts that read like stories: a script of what happens to a fleet, and beneath each line what the planner makes of it.
//!
//! Lines that begin with `>` are the script ([`script`] has its words), indented lines are what came of it, all else is for
//! the reader. `UPDATE=1` writes anew what came of it; what changed is then seen in the diff.

#[path = "../simulation/agent.rs"]
#[expect(dead_code, reason = "the simulation uses all of it")]
mod agent;
mod cluster;
mod said;
mod script;
#[path = "../simulation/written.rs"]
mod written;

use std::{env, fs, path::PathBuf};

/// What came of a line is indented by so much.
const INDENT: &str = "  ";

fn told(name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stories").join(format!("{name}.txt"));
    let before = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    let after = play(&before);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, after).unwrap();
        return;
    }
    let differs = before.lines().zip(after.lines()).position(|(before, after)| before != after);
    let line = differs.unwrap_or_else(|| before.lines().count().min(after.lines().count()));
    let (was, is) = (before.lines().nth(line).unwrap_or(""), after.lines().nth(line).unwrap_or(""));
    assert!(
        before == after,
        "{name}.txt goes another way from line {} on:\n was: {was}\n  is: {is}\n`UPDATE=1 cargo test -p \
         evenkeel-operator-core --test stories` writes it anew",
        line + 1
    );
}

/// The story with what came of each of its lines.
fn play(text: &str) -> String {
    let mut cluster = cluster::Cluster::new();
    let mut told = String::new();
    for line in text.lines().filter(|line| !line.starts_with(INDENT)) {
        told.extend([line, "\n"]);
        if let Some(words) = line.strip_prefix('>') {
            script::play(&mut cluster, words.trim()).unwrap_or_else(|why| panic!("{line}: {why}"));
            for line in cluster.told() {
                told.extend([INDENT, &line, "\n"]);
            }
        }
    }
    told
}

macro_rules! stories {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            told(stringify!($name));
        })*

        #[test]
        fn every_story_is_told() {
            let told = [$(concat!(stringify!($name), ".txt")),*];
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
            for entry in fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(!name.ends_with(".txt") || told.contains(&name.as_str()), "{name} is not told");
            }
        }
    };
}

stories! {
    a_bad_image
    a_drain_that_is_blocked
    a_good_night
    a_lost_machine
    a_preview
    canaries_and_a_word
    minds_that_change
    taken_back
    the_only_window
    zones
}
