//! Documents from the firmware and from another disk, in files that mkfs.vfat and mtools made.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use evenkeel_node_agent::{cloud_config::sources::read_with, disk::other_devices};
use evenkeel_node_agent_core::cloud_config::{CloudConfig, Stage, parse};

/// Runs a program that must succeed.
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Around(tempfile::TempDir);

impl Around {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A FAT file system with files.
    fn fat(&self, name: &str, options: &[&str], files: &[(&str, &str)]) -> PathBuf {
        let image = self.put(name, b"");
        File::options().write(true).open(&image).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.vfat", &[options, &[path(&image)]].concat());
        for (name, content) in files {
            let file = self.put(&format!("content/{name}"), content.as_bytes());
            run("mcopy", &["-i", path(&image), path(&file), &format!("::{name}")]);
        }
        image
    }

    fn read(&self, own: &str, devices: &[&PathBuf]) -> CloudConfig {
        let own = parse(&format!("#cloud-config\n{own}\n")).unwrap().config;
        read_with(own, self.0.path(), || devices.iter().copied().cloned().collect())
    }
}

/// A structure of SMBIOS with one string.
fn oem_string(text: &str) -> Vec<u8> {
    [&[11, 5, 0, 1, 1], text.as_bytes(), &[0, 0]].concat()
}

fn runs(line: &str) -> String {
    format!("#cloud-config\nbootcmd: [{line}]\n")
}

fn commands(config: &CloudConfig) -> Vec<&str> {
    config.steps(Stage::Initramfs).iter().flat_map(|step| &step.commands).map(String::as_str).collect()
}

fn host_names(config: &CloudConfig) -> Vec<&str> {
    config.steps(Stage::Initramfs).iter().filter_map(|step| step.hostname.as_deref()).collect()
}

#[test]
fn the_firmware_comes_first_and_the_machines_own_disk_has_the_last_word() {
    let around = Around::new();
    let text = |line: &str| oem_string(&format!("evenkeel.cloud-config={}", runs(line)));
    around.put("entries/11-10/raw", &text("third"));
    around.put("entries/11-2/raw", &text("second"));
    around.put("entries/11-0/raw", &text("first"));
    around.put("entries/11-3/raw", &oem_string("evenkeel.cloud-config=stages: ["));
    around.put("entries/11-4/raw", &vec![b'x'; 3 << 20]);
    around.put("entries/1-0/raw", &text("never"));
    fs::create_dir(around.0.path().join("entries/11-5")).unwrap();
    let seed = around.fat("seed", &["-n", "cidata"], &[("user-data", &runs("fourth"))]);
    let config = around.read("bootcmd: [last]", &[&seed]);
    assert_eq!(commands(&config), ["first", "second", "third", "fourth", "last"]);
    // Without the kernel's module there is only the table; and a machine may have neither.
    fs::remove_dir_all(around.0.path().join("entries")).unwrap();
    around.put(
        "tables/DMI",
        &[text("one"), oem_string("evenkeel.cloud-config.b64=I2Nsb3VkLWNvbmZpZwpib290Y21kOiBbdHdvXQo=")]
            .concat(),
    );
    assert_eq!(commands(&around.read("", &[])), ["one", "two"]);
    fs::remove_dir_all(around.0.path().join("tables")).unwrap();
    assert_eq!(commands(&around.read("", &[])), Vec::<&str>::new());
}

#[test]
fn another_disk_says_what_the_machine_is_called_and_what_is_on_it() {
    let around = Around::new();
    let files =
        [("user-data", runs("theirs")), ("meta-data", "instance-id: i-1\nlocal-hostname: node-1\n".into())];
    let files = files.each_ref().map(|(name, content)| (*name, content.as_str()));
    for (name, options) in [
        ("12", &["-F", "12", "-s", "64", "-n", "CIDATA"][..]),
        ("16", &["-F", "16", "-n", "cidata"]),
        ("32", &["-F", "32", "-n", "CIDATA"]),
        ("4096", &["-S", "4096", "-n", "CIDATA"]),
    ] {
        let seed = around.fat(name, options, &files);
        let config = around.read("bootcmd: [own]", &[&seed]);
        assert_eq!(
            (commands(&config), host_names(&config)),
            (vec!["theirs", "own"], vec!["node-1"]),
            "{name}"
        );
    }
    let seed = around.0.path().join("16");
    assert_eq!(host_names(&around.read("hostname: own", &[&seed])), ["own"]);
    // A label that was given later is in the folder alone, as some systems write it from the beginning.
    let other = around.fat("other", &["-n", "OTHER"], &files);
    assert_eq!(commands(&around.read("", &[&other])), Vec::<&str>::new());
    let mut root_label = fs::read(&other).unwrap();
    let places: Vec<usize> = root_label[..1 << 20]
        .windows(11)
        .enumerate()
        .filter(|(_, at)| *at == b"OTHER      ")
        .map(|(at, _)| at)
        .collect();
    assert_eq!(places.len(), 2);
    root_label[places[1]..][..11].copy_from_slice(b"CIDATA     ");
    fs::write(&other, root_label).unwrap();
    assert_eq!(commands(&around.read("", &[&other])), ["theirs"]);
}

#[test]
fn what_is_damaged_costs_itself_alone() {
    let around = Around::new();
    let large = "#".repeat((1 << 20) + 1);
    for (name, user_data, meta_data, expected) in [
        ("script", "#!/bin/sh\nreboot\n", "local-hostname: node-1", (0, 1)),
        ("large", large.as_str(), "local-hostname: node-1", (0, 1)),
        ("empty", "", "local-hostname: node-1", (0, 1)),
        ("meta", &runs("theirs"), "local-hostname: '../..'", (1, 0)),
        ("metas", &runs("theirs"), &large, (1, 0)),
    ] {
        let seed = around.fat(name, &["-n", "cidata"], &[("user-data", user_data), ("meta-data", meta_data)]);
        let config = around.read("bootcmd: [own]", &[&seed]);
        assert_eq!((commands(&config).len() - 1, host_names(&config).len()), expected, "{name}");
    }
    // No file at all, no file system, no device; the first that is one counts.
    let nothing = around.fat("nothing", &["-n", "cidata"], &[]);
    let blank = around.put("blank", &vec![0; 1 << 20]);
    let short = around.put("short", b"short");
    let seed = around.fat("seed", &["-n", "cidata"], &[("user-data", &runs("theirs"))]);
    let again = around.fat("again", &["-n", "cidata"], &[("user-data", &runs("again"))]);
    let nowhere = PathBuf::from("/nowhere");
    let config = around.read("", &[&nowhere, &short, &blank, &seed, &again]);
    assert_eq!(commands(&config), ["theirs"]);
    assert_eq!(commands(&around.read("", &[&nothing])), Vec::<&str>::new());
}

/// Whatever this machine has.
#[test]
fn a_machines_own_disk_is_none_of_the_others() {
    let around = Around::new();
    let all = other_devices(&around.put("disk.img", b"")).unwrap();
    for disk in &all {
        let others = other_devices(disk).unwrap();
        assert!(!others.contains(disk) && others.iter().all(|other| all.contains(other)), "{others:?}");
    }
}

/// The folder's clusters are a ring without an end.
#[test]
fn a_file_system_without_an_end_comes_to_one() {
    let around = Around::new();
    let seed = around.fat("ring", &["-F", "32", "-n", "cidata"], &[]);
    let boot = fs::read(&seed).unwrap()[..512].to_vec();
    let number = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let sectors_of_fat = u64::from(u32::from_le_bytes(boot[36..40].try_into().unwrap()));
    let (fat, copies, cluster) = (number(14) * 512, u64::from(boot[16]), usize::from(boot[13]) * 512);
    let file = File::options().write(true).open(&seed).unwrap();
    file.write_all_at(&2_u32.to_le_bytes(), fat + 8).unwrap();
    file.write_all_at(&vec![0xE5; cluster], fat + copies * sectors_of_fat * 512).unwrap();
    assert_eq!(commands(&around.read("bootcmd: [own]", &[&seed])), ["own"]);
}

#[test]
fn a_machines_own_document_says_who_is_asked() {
    let around = Around::new();
    around.put("entries/11-0/raw", &oem_string(&format!("evenkeel.cloud-config={}", runs("firmware"))));
    let seed = around.fat("seed", &["-n", "cidata"], &[("user-data", &runs("disk"))]);
    for (own, expected) in [
        ("hostname: a", vec!["firmware", "disk"]),
        ("datasource_list: [None]", vec![]),
        ("datasource_list: [NoCloud]", vec!["disk"]),
        ("datasource_list: [SMBIOS]", vec!["firmware"]),
    ] {
        assert_eq!(commands(&around.read(own, &[&seed])), expected, "{own}");
    }
    let own = parse("#cloud-config\ndatasource_list: [None]\n").unwrap().config;
    read_with(own, Path::new("/nowhere"), || panic!("devices are not even looked for"));
}
