//! The seeds of the fuzz targets, and whatever once broke one, through the same functions.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{fs, path::Path};

fn seeds() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

#[test]
fn no_seed_breaks_its_target() {
    for (name, target) in targets::TARGETS {
        let files: Vec<_> =
            fs::read_dir(seeds().join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() > 1, "{name} has only {} seeds", files.len());
        for file in files {
            let bytes = fs::read(&file).unwrap();
            // Whole, cut, and with a byte changed: cheap, and a sign of life where there is no fuzzer.
            target(&bytes);
            for part in 1..16 {
                target(&bytes[..bytes.len() * part / 16]);
                let mut changed = bytes.clone();
                if let Some(byte) = changed.get_mut(bytes.len() * part / 16) {
                    *byte ^= 0x41;
                }
                target(&changed);
            }
        }
    }
}

#[test]
fn every_target_is_built_and_every_folder_of_seeds_is_read() {
    let mut known: Vec<String> = targets::TARGETS.map(|(name, _)| name.to_owned()).into();
    known.sort();
    let listed = |folder: &Path, suffix: &str| {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap().replace(suffix, ""))
            .collect();
        names.sort();
        names
    };
    assert_eq!(listed(&seeds(), ""), known);
    assert_eq!(listed(&seeds().with_file_name("fuzz_targets"), ".rs"), known);
}
