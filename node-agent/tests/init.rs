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
    for program in ["e2fsck", "mke2fs"] {
        let expected = format!("no {program}: install the package e2fsprogs");
        assert!(said(false).contains(&expected), "{}", said(false));
        touch(root, &format!("usr/sbin/{program}"), "");
    }
    for initrd in [false, true] {
        let words = said(initrd);
        assert!(words.contains("no kernel: install the package linux-image-amd64"), "{words}");
    }
    touch(root, "boot/vmlinuz-6.1.0-9", "MZ");
    init::init(root, false).unwrap();
    assert!(said(true).contains("the package dracut"));
    touch(root, "usr/bin/dracut", "");
    touch(root, "usr/lib/modules/6.1.0-9/modules.dep", "kernel/drivers/md/dm-crypt.ko:\n");
    assert!(said(true).contains("kernel 6.1.0-9") && said(true).contains("dm-verity"), "{}", said(true));
}

#[test]
fn a_grub_that_is_signed_wants_shim_where_there_is_no_other_loader() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let said = || init::init(root, false).unwrap_err().to_string();
    touch(root, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "MZ");
    assert!(said().contains("the package shim-signed"), "{}", said());
    touch(root, "usr/lib/shim/shimx64.efi.signed", "MZ");
    assert!(said().contains("the package dmsetup"), "{}", said());
    fs::remove_dir_all(root.join("usr/lib/shim")).unwrap();
    touch(root, "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", "MZ");
    assert!(said().contains("the package dmsetup"), "{}", said());
}

#[test]
fn the_hooks_are_shell_that_a_small_shell_takes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    touch(root, "usr/lib/systemd/boot/efi/systemd-bootx64.efi", "MZ");
    touch(root, "usr/sbin/dmsetup", "");
    for path in ["usr/bin/wdctl", "usr/sbin/e2fsck", "usr/sbin/mke2fs", "boot/vmlinuz-6.1.0-9"] {
        touch(root, path, "");
    }
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

/// What `init` wants beside a boot loader.
const BROUGHT: [&str; 5] =
    ["usr/sbin/dmsetup", "usr/bin/wdctl", "usr/sbin/e2fsck", "usr/sbin/mke2fs", "boot/vmlinuz-6.1.0-9"];

/// A program with its libraries, into an image.
fn copy_program(program: &str, root: &Path, place: &str) {
    let needed = Command::new("ldd").arg(program).output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    let libraries = needed.split_whitespace().filter(|word| word.starts_with('/'));
    for (file, place) in libraries.map(|path| (path, path)).chain([(program, place)]) {
        let copy = root.join(place.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
}

/// As in a build that mounts nothing. Needs root, for chroot.
#[test]
fn an_image_without_proc_is_prepared_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    touch(root, "usr/lib/systemd/boot/efi/systemd-bootx64.efi", "MZ");
    for program in BROUGHT {
        touch(root, program, "");
    }
    copy_program(env!("CARGO_BIN_EXE_evenkeel-agent"), root, "usr/local/bin/evenkeel-agent");
    for start in ["evenkeel-agent", "/usr/local/bin/evenkeel-agent"] {
        let mut init = Command::new("chroot");
        init.arg(root).args([start, "init", "--no-initrd"]).env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin");
        let output = init.output().unwrap();
        assert!(output.status.success(), "{start}: {output:?}");
        let copy = root.join("usr/lib/evenkeel/evenkeel-agent");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o755);
        fs::remove_file(copy).unwrap();
    }
    // What the disk says is not always a matter of rights.
    let error = init::init(&root.join("boot/vmlinuz-6.1.0-9"), false).unwrap_err();
    assert!(!error.to_string().contains("as root"), "{error}");
}

/// Needs root, for chroot.
#[test]
fn the_callers_temporary_folder_is_none_of_the_images() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    touch(root, "usr/lib/systemd/boot/efi/systemd-bootx64.efi", "MZ");
    for program in BROUGHT {
        touch(root, program, "");
    }
    touch(root, "usr/lib/modules/6.1.0-9/modules.dep", "kernel/drivers/md/dm-verity.ko:\n");
    touch(root, "usr/bin/dracut", "#!/bin/dash\necho \"in the image: ${TMPDIR-none}\"\n");
    copy_program("/bin/dash", root, "bin/dash");
    let mut init = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    init.args(["init", "--root"]).arg(root).env("TMPDIR", "/not/in/the/image");
    let output = init.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("in the image: none"), "{said}");
}

/// The image of docs/install.md installs what `init` asks for.
#[test]
fn the_documented_image_has_what_is_wanted() {
    let page = include_str!("../../docs/install.md");
    let dockerfile = page.split("```").find(|block| block.contains("FROM debian:12\n\n")).unwrap();
    let (_, packages) = dockerfile.split_once("--no-install-recommends \\\n").unwrap();
    let packages: Vec<&str> =
        packages.split("&&").next().unwrap().split_whitespace().filter(|word| *word != "\\").collect();
    let essential = ["util-linux"];
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let steps = ["usr/lib/systemd/boot/efi/systemd-bootx64.efi"].into_iter().chain(BROUGHT);
    let mut wanted = 0;
    for path in steps.chain(["usr/bin/dracut"]) {
        // What it says before it gets what it asks for.
        if let Err(init::InitError::Missing { package, .. }) = init::init(root, true) {
            let name = package.split_whitespace().next().unwrap();
            let is_there = |known: &&str| *known == name || known.strip_suffix("-core") == Some(name);
            assert!(packages.iter().chain(&essential).any(is_there), "{name}: {packages:?}");
            wanted += 1;
        }
        touch(root, path, "");
    }
    assert_eq!(wanted, 7);
}
