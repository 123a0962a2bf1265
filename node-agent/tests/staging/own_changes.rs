//! What a machine changed itself, and a new image changes too.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

use evenkeel_node_agent::own_changes::conflicts;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::{
    image::{Recipe, tar},
    machine::Machine,
    registry::Registry,
};

/// What overlayfs keeps where a file was removed.
fn whiteout(path: &Path) {
    mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_changed_is_named_before_the_reboot() {
    let (machine, registry) = (Machine::empty(), Registry::start());
    let image = |files: &[(&str, &[u8])]| Recipe::with(tar(files)).build();
    let before = image(&[
        ("etc/both", b"old"),
        ("etc/image-alone", b"old"),
        ("etc/machine-alone", b"old"),
        ("etc/removed-here", b"old"),
        ("etc/same", b"old"),
        ("etc/deep/er/both", b"old"),
        ("opt/gone", b"old"),
    ]);
    let after = image(&[
        ("etc/both", b"new"),
        ("etc/image-alone", b"new"),
        ("etc/machine-alone", b"old"),
        ("etc/removed-here", b"new"),
        ("etc/same", b"new"),
        ("etc/deep/er/both", b"new"),
        ("srv/new", b"new"),
    ]);
    for (slot, image) in [("a", before), ("b", after)] {
        let name = registry.push(&image, &format!("os:{slot}")).await;
        machine.stage_into(&name, slot, &Arc::default()).await.unwrap();
    }
    let overlays = tempfile::tempdir().unwrap();
    let upper = |name: &str| {
        let path = overlays.path().join(name.replacen('/', "/upper/", 1));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let look = || {
        let slot = |name: &str| machine.disk.slot(name).unwrap();
        let found = conflicts(overlays.path(), &slot("a"), &slot("b")).unwrap();
        found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(look(), [""; 0], "a machine without changes of its own");
    for (name, content) in [
        ("etc/both", "own"),
        ("etc/machine-alone", "own"),
        ("etc/same", "new"),
        ("etc/deep/er/both", "own"),
        ("etc/only-here", "own"),
        ("opt/gone", "own"),
    ] {
        fs::write(upper(name), content).unwrap();
    }
    whiteout(&upper("etc/removed-here"));
    symlink("/elsewhere", upper("srv/new")).unwrap();
    assert_eq!(look(), ["/etc/both", "/etc/deep/er/both", "/etc/removed-here", "/opt/gone", "/srv/new"]);
}
