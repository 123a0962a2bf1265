//! What the initrd's own shell makes of a state partition that the kernel does not mount, with the real e2fsck on a
//! file. Needs root, for mounts that nobody else sees.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

const LIBRARY: &str = include_str!("../src/init/files/dracut/evenkeel-lib.sh");
/// What the library asks of dracut, the kernel and the machine; the mark is what the machine had.
const AROUND: &str = r#"
evenkeel_partition() { echo "$file"; }
evenkeel_counted() { [ "$counted" = yes ]; }
evenkeel_say() { echo "$*"; }
mount -t tmpfs tmpfs /run
mkdir /run/state
evenkeel_mount_state "$file" /run/state || exit 1
if [ -e /run/state/mark ]; then echo marked; else echo unmarked; fi
"#;
const LENGTH: u64 = 300 << 20;

struct State {
    folder: tempfile::TempDir,
}

impl State {
    /// A file system as an installation makes it, with a mark.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let content = folder.path().join("content");
        fs::create_dir(&content).unwrap();
        fs::write(content.join("mark"), "mine").unwrap();
        let state = Self { folder };
        File::create(state.file()).unwrap().set_len(LENGTH).unwrap();
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"]).arg(&content).arg(state.file());
        assert!(mke2fs.status().unwrap().success());
        state
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn lose(&self, at: u64, length: u64) {
        let nothing = vec![0; usize::try_from(length).unwrap()];
        File::options().write(true).open(self.file()).unwrap().write_all_at(&nothing, at).unwrap();
    }
}

/// Whether the boot goes on, and what it says.
fn boot(file: &Path, counted: &str, before: &str) -> (bool, String) {
    let library = LIBRARY.replace(". /lib/dracut-lib.sh", ":");
    let script = format!("file='{}' counted={counted}\n{library}{before}{AROUND}", file.display());
    let output = Command::new("unshare").args(["--mount", "dash", "-c", &script]).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_damaged_one_is_mended_and_a_lost_one_is_left_alone() {
    let state = State::new();
    let (on, said) = boot(&state.file(), "no", "");
    assert!(on && said.contains("marked") && !said.contains("mended"), "{said}");

    // The superblock, of which there are copies.
    state.lose(0, 64 << 10);
    assert!(!boot(&state.file(), "yes", "").0, "on trial nothing is mended");
    let (on, said) = boot(&state.file(), "no", "");
    assert!(on && said.contains("e2fsck mended it") && said.ends_with("\nmarked\n"), "{said}");
    let (on, said) = boot(&state.file(), "no", "");
    assert!(on && said.contains("marked") && !said.contains("mended"), "{said}");

    state.lose(0, LENGTH);
    let (on, said) = boot(&state.file(), "no", "");
    assert!(!on, "{said}");
    assert!(fs::read(state.file()).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn what_the_kernel_does_not_mount_is_not_lost_for_that() {
    let state = State::new();
    // A file system that is whole, and a kernel that cannot.
    let (on, said) = boot(&state.file(), "no", "mount() { [ $2 = tmpfs ] && command mount \"$@\"; }\n");
    assert!(!on, "{said}");
}
