//! What `evenkeel-agent init` wants of an image.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use evenkeel_node_agent::init;

fn touch(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_an_image_lacks_is_named_with_its_package() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let said = |initrd| init::init(root, initrd).unwrap_err().to_string();
    assert!(said(false).contains("systemd-boot-efi"));
    touch(root, "usr/lib/systemd/boot/efi/systemd-bootx64.efi", "MZ");
    assert!(said(false).contains("the package dmsetup"), "{}", said(false));
    touch(root, "usr/sbin/dmsetup", "");
    assert!(said(false).contains("the package util-linux"), "{}", said(false));
    touch(root, "usr/bin/wdctl", "");
    assert!(said(false).contains("the package e2fsprogs"), "{}", said(false));
    touch(root, "usr/sbin/mke2fs", "");
    init::init(root, false).unwrap();
    assert!(said(true).contains("the package dracut"));
    touch(root, "usr/bin/dracut", "");
    touch(root, "usr/lib/modules/6.1.0-9/modules.dep", "kernel/drivers/md/dm-crypt.ko:\n");
    assert!(said(true).contains("kernel 6.1.0-9") && said(true).contains("dm-verity"), "{}", said(true));
}

#[test]
fn the_hooks_are_shell_that_a_small_shell_takes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    touch(root, "usr/lib/systemd/boot/efi/systemd-bootx64.efi", "MZ");
    touch(root, "usr/sbin/dmsetup", "");
    touch(root, "usr/bin/wdctl", "");
    touch(root, "usr/sbin/mke2fs", "");
    init::init(root, false).unwrap();
    let module = root.join("usr/lib/dracut/modules.d/90evenkeel");
    let mut scripts = 0;
    for entry in fs::read_dir(&module).unwrap() {
        let path = entry.unwrap().path();
        let shell = if path.ends_with("module-setup.sh") { "bash" } else { "dash" };
        let checked = std::process::Command::new(shell).arg("-n").arg(&path).output().unwrap();
        assert!(checked.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&checked.stderr));
        scripts += 1;
    }
    assert_eq!(scripts, 6);
}
