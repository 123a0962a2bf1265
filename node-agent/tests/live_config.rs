//! A cloud-config that is applied to a system while it runs: what the host's unit does with the agent's order.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_node_agent::{
    args::HostArgs,
    cloud_config::live::{LiveArgs, follow},
    state_dir::StateDir,
};
use evenkeel_node_agent_core::live_config::{Kept, Order, Said, Setting, Stand};
use tempfile::TempDir;

const RELEASE: &str = "sha256:1";

struct Host {
    folder: TempDir,
    state: StateDir,
}

fn setting(word: &str, more: &str) -> Setting {
    let stages = format!(r#"{{"boot":[{{"files":[{{"path":"/etc/motd","content":"{word}"}}]}}]{more}}}"#);
    let document = format!("#cloud-config\n{{\"stages\":{stages}}}\n");
    Setting { release: format!("{RELEASE}+{word}"), document: Some(document) }
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["proc/sys/kernel/random", "health", "root/etc"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let host = Self { folder, state };
        host.put("proc/cmdline", &format!("evenkeel.slot=a evenkeel.digest={RELEASE}"));
        host.put("proc/sys/kernel/random/boot_id", "one");
        host.put("proc/uptime", "100.00 0.00");
        host
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let new = self.at(name).with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.at(name)).unwrap();
    }

    fn order(&self, wanted: Setting) -> Order {
        let order = Order {
            id: "p".into(),
            boot_id: "one".into(),
            wanted,
            before: setting("before", ""),
            deadline_seconds: 60,
            api_server: None,
            withdrawn: false,
        };
        self.state.write_live_order(&order).unwrap();
        order
    }

    /// Runs the unit to its end.
    fn unit(&self) {
        follow(&LiveArgs {
            host: HostArgs {
                state_dir: self.at("state"),
                health_dir: self.at("health"),
                proc: self.at("proc"),
            },
            root: self.at("root"),
            program: Some(env!("CARGO_BIN_EXE_evenkeel-agent").into()),
            apply: None,
        })
        .unwrap();
    }

    /// Runs the unit until it has applied something, then does what `then` says, and waits for the unit's end.
    fn once_applied(&self, then: impl FnOnce()) {
        thread::scope(|scope| {
            let unit = scope.spawn(|| self.unit());
            let end = Instant::now() + Duration::from_secs(30);
            while !matches!(self.stand(), Some(Stand::Applied { .. })) {
                assert!(Instant::now() < end && !unit.is_finished(), "{:?}", self.stand());
                thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(self.motd(), "after");
            then();
            unit.join().unwrap();
        });
    }

    fn stand(&self) -> Option<Stand> {
        self.state.live_config("a").unwrap().said.map(|said| said.stand)
    }

    fn given_up(&self) -> (RollbackCause, String) {
        match self.stand() {
            Some(Stand::GivenUp { cause, message }) => (cause, message),
            stand => panic!("{stand:?}"),
        }
    }

    fn motd(&self) -> String {
        fs::read_to_string(self.at("root/etc/motd")).unwrap_or_default()
    }
}

#[test]
fn what_is_kept_stays() {
    let host = Host::new();
    let order = host.order(setting("after", ""));
    host.once_applied(|| {
        let kept =
            Kept { slot: "a".into(), under: RELEASE.into(), setting: order.wanted, before: order.before };
        host.state.write_live_kept(&kept).unwrap();
    });
    assert_eq!((host.motd(), host.stand()), ("after".to_owned(), Some(Stand::Applied { at: 100 })));
    // A unit that is started again has nothing to do.
    host.unit();
    assert_eq!(host.motd(), "after");
}

#[test]
fn what_nobody_keeps_in_time_is_taken_back() {
    let host = Host::new();
    host.order(setting("after", ""));
    host.once_applied(|| host.put("proc/uptime", "161.00 0.00"));
    assert_eq!(host.given_up().0, RollbackCause::Deadline);
    assert_eq!(host.motd(), "before");
    host.unit();
    assert_eq!(host.motd(), "before", "that is its last word");
}

#[test]
fn the_agent_takes_it_back() {
    let host = Host::new();
    let order = host.order(setting("after", ""));
    let withdrawn = Order { withdrawn: true, ..order };
    host.once_applied(|| host.state.write_live_order(&withdrawn).unwrap());
    assert_eq!((host.motd(), host.stand()), ("before".to_owned(), Some(Stand::Withdrawn)));
}

#[test]
fn a_step_that_fails_and_a_check_that_fails_are_named() {
    let host = Host::new();
    host.order(setting("after", r#","network":[{"name":"impossible","commands":["false"]}]"#));
    host.unit();
    let (cause, message) = host.given_up();
    assert_eq!((cause, host.motd()), (RollbackCause::HostCheck, "before".to_owned()));
    assert!(message.contains("impossible") && message.contains("false"), "{message}");

    let host = Host::new();
    let check = host.at("health/50-check");
    fs::write(&check, "#!/bin/sh\necho it is not well; exit 1\n").unwrap();
    fs::set_permissions(&check, fs::Permissions::from_mode(0o755)).unwrap();
    // Its time is over before a check is asked again, ten seconds later.
    let order = host.order(setting("after", ""));
    host.state.write_live_order(&Order { deadline_seconds: 9, ..order }).unwrap();
    host.unit();
    let (cause, message) = host.given_up();
    assert_eq!((cause, host.motd()), (RollbackCause::HostCheck, "before".to_owned()));
    assert!(message.contains("50-check"), "{message}");
}

#[test]
fn another_boot_is_none_of_its_business() {
    let host = Host::new();
    host.order(setting("after", ""));
    host.put("proc/sys/kernel/random/boot_id", "two");
    host.unit();
    assert_eq!((host.motd(), host.stand()), (String::new(), None));
}

/// A command that does not end does not keep the machine from going back, in time or when the agent says so.
#[test]
fn a_command_that_hangs_is_ended() {
    let host = Host::new();
    let hangs = setting("after", r#","network":[{"commands":["sleep 600"]}]"#);
    let order = host.order(hangs.clone());
    host.state.write_live_order(&Order { deadline_seconds: 2, ..order }).unwrap();
    host.unit();
    let (cause, message) = host.given_up();
    assert!(cause == RollbackCause::HostCheck && message.contains("does not end"), "{message}");
    assert_eq!(host.motd(), "before");

    let host = Host::new();
    let order = host.order(hangs);
    thread::scope(|scope| {
        let unit = scope.spawn(|| host.unit());
        while host.motd() != "after" {
            assert!(!unit.is_finished());
            thread::sleep(Duration::from_millis(20));
        }
        host.state.write_live_order(&Order { withdrawn: true, ..order }).unwrap();
        unit.join().unwrap();
    });
    assert_eq!(host.motd(), "before");
}

#[test]
fn a_unit_that_was_cut_off_while_it_applied_goes_back() {
    let host = Host::new();
    let order = host.order(setting("after", ""));
    let said = Said { id: order.id, boot_id: order.boot_id, stand: Stand::Applying };
    host.state.write_live_said(&said).unwrap();
    host.unit();
    assert!(host.given_up().1.contains("cut off"));
    assert_eq!(host.motd(), "before");
}

/// Kept in the moment in which it would be given up, it stays; once it is being given up, nobody keeps it.
#[test]
fn one_of_both_decides() {
    let host = Host::new();
    let order = host.order(setting("after", ""));
    let kept = |order: &Order| Kept {
        slot: "a".into(),
        under: RELEASE.into(),
        setting: order.wanted.clone(),
        before: order.before.clone(),
    };
    host.once_applied(|| {
        let _lock = host.state.lock_live().unwrap();
        host.put("proc/uptime", "161.00 0.00");
        thread::sleep(Duration::from_secs(7));
        host.state.write_live_kept(&kept(&order)).unwrap();
    });
    assert_eq!((host.motd(), host.stand()), ("after".to_owned(), Some(Stand::Applied { at: 100 })));
}

/// On the way back a step that fails keeps no other from being done.
#[test]
fn all_that_can_be_taken_back_is() {
    let host = Host::new();
    let before = r#"{"stages":{"initramfs":[{"name":"never","commands":["false"]}],
        "boot":[{"files":[{"path":"/etc/motd","content":"before"}]}]}}"#;
    let order = host.order(setting("after", r#","network":[{"commands":["false"]}]"#));
    let before = Setting { document: Some(format!("#cloud-config\n{before}\n")), ..order.before.clone() };
    host.state.write_live_order(&Order { before, ..order }).unwrap();
    host.unit();
    assert_eq!((host.given_up().0, host.motd()), (RollbackCause::HostCheck, "before".to_owned()));
}

/// What cannot be written down is not applied; and what was applied before that is taken back once, however long it lasts.
#[test]
fn a_state_partition_that_takes_nothing_is_waited_for() {
    let host = Host::new();
    // Where the word is written before it gets its name.
    let full = host.at("state/live-said.json.new");
    fs::create_dir(&full).unwrap();
    host.order(setting("after", ""));
    thread::scope(|scope| {
        let unit = scope.spawn(|| host.unit());
        thread::sleep(Duration::from_secs(1));
        assert!(host.motd().is_empty() && !unit.is_finished());
        fs::remove_dir(&full).unwrap();
        while !matches!(host.stand(), Some(Stand::Applied { .. })) {
            thread::sleep(Duration::from_millis(20));
        }
        host.put("proc/uptime", "161.00 0.00");
        unit.join().unwrap();
    });
    assert_eq!((host.given_up().0, host.motd()), (RollbackCause::Deadline, "before".to_owned()));

    let host = Host::new();
    let (full, count) = (host.at("state/live-said.json.new"), host.at("count"));
    let fills = format!(r#","network":[{{"commands":["mkdir {}"]}}]"#, full.display());
    let counts = format!(r#","network":[{{"commands":["echo once >> {}"]}}]"#, count.display());
    let order = host.order(setting("after", &fills));
    let before = setting("before", &counts);
    host.state.write_live_order(&Order { before, ..order }).unwrap();
    thread::scope(|scope| {
        let unit = scope.spawn(|| host.unit());
        while !count.exists() {
            assert!(!unit.is_finished());
            thread::sleep(Duration::from_millis(20));
        }
        // It is tried in vain meanwhile.
        thread::sleep(Duration::from_secs(7));
        assert!(!unit.is_finished() && host.stand().is_none(), "nobody keeps it");
        fs::remove_dir(&full).unwrap();
        unit.join().unwrap();
    });
    let (cause, message) = host.given_up();
    assert!(cause == RollbackCause::HostCheck && message.contains("state partition"), "{message}");
    assert_eq!((host.motd(), fs::read_to_string(count).unwrap()), ("before".to_owned(), "once\n".to_owned()));
}
