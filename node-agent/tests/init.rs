//! What `evenkeel-agent init` wants of an image.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

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
        let checked = Command::new(shell).arg("-n").arg(&path).output().unwrap();
        assert!(checked.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&checked.stderr));
        scripts += 1;
    }
    assert_eq!(scripts, 8);
}

/// Needs root, for chroot.
#[test]
fn the_callers_temporary_folder_is_none_of_the_images() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    touch(root, "usr/lib/systemd/boot/efi/systemd-bootx64.efi", "MZ");
    for program in ["usr/sbin/dmsetup", "usr/bin/wdctl", "usr/sbin/mke2fs"] {
        touch(root, program, "");
    }
    touch(root, "usr/lib/modules/6.1.0-9/modules.dep", "kernel/drivers/md/dm-verity.ko:\n");
    touch(root, "usr/bin/dracut", "#!/bin/dash\necho \"in the image: ${TMPDIR-none}\"\n");
    let needed = Command::new("ldd").arg("/bin/dash").output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    for file in needed.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/dash"]) {
        let copy = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
    let mut init = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    init.args(["init", "--root"]).arg(root).env("TMPDIR", "/not/in/the/image");
    let output = init.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("in the image: none"), "{said}");
}
