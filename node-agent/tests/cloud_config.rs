//! A cloud-config applied to a root in a folder, with the system's own programs for users.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use evenkeel_node_agent::cloud_config::{Applied, Machine, read_folder};
use evenkeel_node_agent_core::cloud_config::{CloudConfig, Stage, parse};
use tempfile::TempDir;

struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        root.put("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
        root.put("etc/shadow", "root:*:19000:0:99999:7:::\n");
        root.put("etc/group", "root:x:0:\n");
        root.put("etc/gshadow", "root:*::\n");
        root.put("etc/os-release", "ID=debian\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n");
        root.put("etc/login.defs", "");
        root.put("proc/sys/net/ipv4/ip_forward", "0");
        fs::create_dir(root.0.path().join("root")).unwrap();
        root
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap_or_default()
    }

    fn apply(&self, config: &CloudConfig, stage: Stage, digest: &str) -> Applied {
        Machine { root: self.0.path().to_owned(), digest: digest.to_owned() }.apply(config, stage)
    }

    fn boot(&self, text: &str) -> Applied {
        self.apply(&parse(text).unwrap().config, Stage::Boot, "")
    }
}

fn failures(applied: &Applied) -> Vec<String> {
    applied.failed.iter().map(|(step, error)| format!("{step}: {error}")).collect()
}

const STATE: &str = r#"
stages:
  boot:
  - name: state
    hostname: node-7
    directories: [{ path: /srv/data, permissions: 0750, owner: 7 }]
    files: [{ path: /etc/a/b.conf, content: "one\n", permissions: 0600, owner: 7, group: 8 }]
    sysctl: { net.ipv4.ip_forward: 1 }
    timesyncd: { NTP: 0.pool.example }
    environment: { HTTP_PROXY: 'http://"p"' }
    users:
      core: { uid: 1234, groups: [wheel], homedir: /home/core, shell: /bin/sh, passwd: "$6$s$h", ssh_authorized_keys: [ssh-ed25519 A me] }
    authorized_keys: { root: [ssh-ed25519 B you] }
"#;

#[test]
fn a_machine_becomes_what_its_document_says_and_then_nothing_is_written() {
    let root = Root::new();
    root.put("etc/environment", "LANG=C\nHTTP_PROXY=old\n");
    let applied = root.boot(STATE);
    assert_eq!(failures(&applied), Vec::<String>::new());
    let meta = |path: &str| fs::metadata(root.0.path().join(path)).unwrap();
    let (directory, file) = (meta("srv/data"), meta("etc/a/b.conf"));
    assert_eq!((directory.permissions().mode() & 0o7777, directory.uid()), (0o750, 7));
    assert_eq!((file.permissions().mode() & 0o7777, file.uid(), file.gid()), (0o600, 7, 8));
    assert_eq!(root.text("etc/a/b.conf"), "one\n");
    assert_eq!(root.text("etc/hostname"), "node-7\n");
    assert_eq!(root.text("proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(
        root.text("etc/systemd/timesyncd.conf.d/90-cloud-config.conf"),
        "[Time]\nNTP=0.pool.example\n"
    );
    assert_eq!(root.text("etc/environment"), "LANG=C\nHTTP_PROXY=\"http://\\\"p\\\"\"\n");
    assert!(root.text("etc/passwd").contains("core:x:1234:"), "{}", root.text("etc/passwd"));
    assert!(root.text("etc/shadow").contains("core:$6$s$h:"), "{}", root.text("etc/shadow"));
    assert!(root.text("etc/group").lines().any(|line| line.starts_with("wheel:") && line.ends_with(":core")));
    let keys = meta("home/core/.ssh/authorized_keys");
    assert_eq!((keys.permissions().mode() & 0o777, keys.uid()), (0o600, 1234));
    assert_eq!(root.text("root/.ssh/authorized_keys"), "ssh-ed25519 B you\n");

    // Keys that somebody added stay.
    root.put("root/.ssh/authorized_keys", "ssh-ed25519 C else\nssh-ed25519 B you");
    fs::set_permissions(root.0.path().join("root/.ssh/authorized_keys"), fs::Permissions::from_mode(0o600))
        .unwrap();
    let (passwd, shadow) = (root.text("etc/passwd"), root.text("etc/shadow"));
    let again = root.boot(STATE);
    assert_eq!((failures(&again), again.written), (vec![], vec![]));
    assert_eq!((root.text("etc/passwd"), root.text("etc/shadow")), (passwd, shadow));
    root.put("etc/hostname", "other\n");
    assert_eq!(root.boot(STATE).written, [PathBuf::from("/etc/hostname")]);
}

/// Also without a password of its own; and cloud-init locks whom it is not told to leave open.
#[test]
fn a_user_of_the_image_is_locked_who_is_to_be() {
    let root = Root::new();
    for name in ["core", "admin", "open", "given"] {
        root.put(
            "etc/passwd",
            &format!("{}{name}:x:1001:0::/home/{name}:/bin/sh\n", root.text("etc/passwd")),
        );
        root.put("etc/shadow", &format!("{}{name}:$6$s$h:19000:0:99999:7:::\n", root.text("etc/shadow")));
    }
    let locked = |name: &str| {
        let shadow = root.text("etc/shadow");
        let line = shadow.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap().to_owned();
        line.split(':').nth(1).unwrap().to_owned()
    };
    let text = "stages: {boot: [{users: {core: {lock_passwd: true}, open: {}}}]}";
    assert_eq!(failures(&root.boot(text)), Vec::<String>::new());
    assert_eq!((locked("core"), locked("open")), ("!$6$s$h".into(), "$6$s$h".into()));
    let text = "#cloud-config\nusers: [{name: admin}, {name: given, lock_passwd: false, passwd: $6$s$n}]";
    let config = parse(text).unwrap().config;
    assert_eq!(failures(&root.apply(&config, Stage::Initramfs, "")), Vec::<String>::new());
    assert_eq!((locked("admin"), locked("given")), ("!$6$s$h".into(), "$6$s$n".into()));
    let shadow = root.text("etc/shadow");
    root.boot("stages: {boot: [{users: {core: {lock_passwd: true}, admin: {lock_passwd: true}}}]}");
    assert_eq!(root.text("etc/shadow"), shadow);
}

#[test]
fn a_step_that_fails_is_named_and_the_next_one_is_done() {
    let root = Root::new();
    let text = "stages: {boot: [{name: bad, commands: [exit 3, touch never]}, {commands: [touch done]}, {authorized_keys: \
                {nobody: [k]}}, {if: '[ -e done ]', only_os: Debian, commands: [touch only]}, {only_os: suse, commands: \
                [touch other]}]}";
    let failed = failures(&root.boot(text));
    assert!(failed[0].starts_with("bad: ") && failed[0].contains("exit 3"), "{failed:?}");
    assert!(failed[1].starts_with("step 3 of stage Boot") && failed[1].contains("nobody"), "{failed:?}");
    let there = |name: &str| root.0.path().join(name).exists();
    assert!(there("done") && there("only") && !there("never") && !there("other"));
}

#[test]
fn keys_are_not_written_through_a_link() {
    let root = Root::new();
    root.put("etc/passwd", "core:x:1234:1234::/home/core:/bin/sh\n");
    fs::create_dir_all(root.0.path().join("home/core")).unwrap();
    fs::create_dir_all(root.0.path().join("elsewhere")).unwrap();
    symlink(root.0.path().join("elsewhere"), root.0.path().join("home/core/.ssh")).unwrap();
    let failed = failures(&root.boot("stages: {boot: [{authorized_keys: {core: [k]}}]}"));
    assert!(failed[0].contains("is a link"), "{failed:?}");
    assert_eq!(fs::read_dir(root.0.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn what_is_for_once_is_done_once_also_after_it_was_cut_off() {
    let root = Root::new();
    let config = |text: &str| parse(text).unwrap().config;
    let lines = |name: &str| root.text(name).lines().count();
    let run = config("#cloud-config\nruncmd: ['echo >> ran; [ -e ready ]']\n");
    assert_eq!(failures(&root.apply(&run, Stage::Network, "")).len(), 1);
    root.put("ready", "");
    root.apply(&run, Stage::Network, "");
    root.apply(&run, Stage::Network, "");
    assert_eq!(lines("ran"), 2);

    let hooks = config(
        "stages: {after-install: [{commands: ['echo >> i']}], after-upgrade: [{commands: ['echo >> u']}]}",
    );
    for (digest, installs, upgrades) in
        [("one", 1, 0), ("one", 1, 0), ("two", 1, 1), ("two", 1, 1), ("one", 1, 2)]
    {
        root.apply(&hooks, Stage::AfterInstall, digest);
        root.apply(&hooks, Stage::AfterUpgrade, digest);
        assert_eq!((lines("i"), lines("u")), (installs, upgrades), "{digest}");
    }
}

#[test]
fn documents_follow_each_other_by_name_and_a_bad_one_costs_itself_alone() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    put("99-last.yaml", "stages: {boot: [{commands: [last]}]}");
    put("10-first.yml", "stages: {boot: [{commands: [first]}]}");
    put("50-bad.yaml", "stages: [");
    put("60-huge.yaml", &" ".repeat((1 << 20) + 1));
    put("70-notes.txt", "stages: {boot: [{commands: [notes]}]}");
    let config = read_folder(folder.path()).unwrap();
    let commands: Vec<&str> =
        config.steps(Stage::Boot).iter().map(|step| step.commands[0].as_str()).collect();
    assert_eq!(commands, ["first", "last"]);
    assert!(read_folder(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
}

/// In the log where a machine applies them, and before that by `check`.
#[test]
fn documents_that_are_too_many_are_told() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
        let output = command.args(["cloud-config", "check"]).arg(folder.path()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for number in 0..100 {
        fs::write(folder.path().join(format!("{number:03}.yaml")), "#cloud-config\nhostname: n\n").unwrap();
    }
    assert_eq!(check().0, 0, "{}", check().1);
    fs::write(folder.path().join("100.yaml"), "#cloud-config\nhostname: last\n").unwrap();
    let (code, said) = check();
    assert!(
        code == 3 && said.contains("1 more would be left out") && said.contains("100.yaml"),
        "{code} {said}"
    );
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || read_folder(folder.path()).unwrap());
    let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("left out") && said.contains("100.yaml") && !said.contains("099.yaml"), "{said}");
}

#[test]
fn what_is_wrong_with_a_document_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("config.yaml");
    fs::write(&document, "no: [list").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
    let output = command.args(["cloud-config", "check"]).arg(&document).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.matches("cannot be used").count()), (Some(3), 1), "{said}");
}
