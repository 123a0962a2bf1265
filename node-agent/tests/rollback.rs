//! `evenkeel-agent rollback`: what a person asks for is no failure of the image, and is not undone.

mod machine_on_disk;

use std::{fs, path::PathBuf, process::Command};

use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_node_agent::{
    boot::{self, Loader},
    esp, install, slots,
    state_dir::StateDir,
};
use evenkeel_node_agent_core::{
    journal::{Attempt, Journal, Step},
    machine::{EntryFact, Facts, RunningSlot, SlotFact, resume},
    slot_check::{SlotCheck, SlotChecks},
};
use jiff::Timestamp;
use machine_on_disk::{Content, Machine};

const PROGRAMS: [(Loader, &str); 2] = [
    (Loader::SystemdBoot, "usr/lib/systemd/boot/efi/systemd-bootx64.efi"),
    (Loader::Grub, "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"),
];

/// A machine that keeps slot a, and its state folder.
struct Node {
    machine: Machine,
    loader: Loader,
    program: &'static str,
}

impl Node {
    fn new((loader, program): (Loader, &'static str)) -> Self {
        let it = Self { machine: Machine::new(), loader, program };
        it.keep("a");
        it
    }

    fn content(&self) -> Content<'static> {
        Content { loader: (self.program, b"MZ"), kernel: b"kernel", initrd: b"initrd", kernel_options: "" }
    }

    fn keep(&self, slot: &str) {
        let (region, record) = self.machine.fill_with(slot, &self.content());
        install::make_bootable_with(&self.machine.disk, &region, &record, self.loader).unwrap();
    }

    /// Slot b on trial; gives the digest of its image.
    fn trial(&self, tries: u32) -> String {
        let (b, record) = self.machine.fill_with("b", &self.content());
        boot::open(&self.machine.disk).unwrap().arm_trial(&b, &record, tries).unwrap();
        record.digest
    }

    fn state(&self) -> PathBuf {
        self.machine.folder.path().join("state")
    }

    fn rollback(&self, more: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
        command.arg("rollback").args(more).arg("--disk").arg(self.machine.disk.path());
        let output = command.arg("--state-dir").arg(self.state()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn commit(&self, more: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
        let output = command.arg("commit").args(more).arg("--disk").arg(self.machine.disk.path()).output();
        let output = output.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn slots(&self) -> Vec<SlotFact> {
        let entries = boot::open(&self.machine.disk).unwrap().entries().unwrap();
        slots::facts(&self.machine.disk, &entries, &SlotChecks::default()).unwrap()
    }

    /// What the agent makes of it after the next boot, which led to slot a.
    fn after_the_boot(&self, digest: &str, step: Step) -> Journal {
        let attempt = Attempt {
            plan_id: "p1".into(),
            image: format!("os@{digest}"),
            digest: digest.to_owned(),
            slot: "b".into(),
            step,
            live: None,
            staging: None,
            error: None,
            failures: 0,
            retry_at: 0,
            rearms: 0,
        };
        let journal = Journal { attempt: Some(attempt), ..Journal::default() };
        let slots = self.slots();
        let digest_a = slots[0].digest().unwrap().to_owned();
        let facts = Facts {
            recovery: None,
            running: Some(RunningSlot { name: "a".into(), digest: digest_a, boot_id: "next".into() }),
            slots,
            reset_requested: None,
            reset_done: None,
            live: evenkeel_node_agent_core::live_config::LiveConfig::default(),
            verdict: StateDir::open(&self.state()).unwrap().verdict().unwrap(),
            host_checks_passed: false,
            now: Timestamp::now(),
        };
        resume(&journal, None, &facts)
    }
}

fn cause(journal: &Journal) -> RollbackCause {
    match &journal.attempt.as_ref().unwrap().step {
        Step::RolledBack { rolled_back } => rolled_back.cause,
        step => panic!("it is at {step:?}"),
    }
}

#[test]
fn a_trial_that_a_person_gives_up_is_no_failure_of_its_image() {
    for program in PROGRAMS {
        for more in [&[][..], &["--to", "a"]] {
            let node = Node::new(program);
            let digest = node.trial(3);
            let (code, said) = node.rollback(more);
            assert_eq!(code, 0, "{said}");
            for step in [Step::Trial, Step::Rebooting { boot_id_before: "before".into() }] {
                let journal = node.after_the_boot(&digest, step);
                let given_up = (cause(&journal), journal.is_bad(&digest));
                assert_eq!(given_up, (RollbackCause::User, false), "{program:?} {more:?}");
            }
        }
    }
}

#[test]
fn what_was_given_up_or_never_tried_is_no_way_back_unless_it_is_named() {
    for program in PROGRAMS {
        for tries in [0, 3] {
            let node = Node::new(program);
            node.trial(tries);
            assert_eq!(node.rollback(&[]).0, 0);
            let before = node.slots();
            let (code, said) = node.rollback(&[]);
            assert!(
                code == 3 && said.contains("nothing to go back to"),
                "{program:?} {tries}: {code} {said}"
            );
            assert_eq!(node.slots(), before);
            assert_eq!(node.rollback(&["--to", "b"]).0, 0);
        }
    }
    let node = Node::new(PROGRAMS[0]);
    node.machine.fill_with("b", &node.content());
    assert_eq!(node.rollback(&[]).0, 3);
}

#[test]
fn a_trial_that_used_its_tries_up_stays_a_failure() {
    let node = Node::new(PROGRAMS[0]);
    let digest = node.trial(0);
    assert_eq!(node.rollback(&[]).0, 0);
    let journal = node.after_the_boot(&digest, Step::Trial);
    assert_eq!((cause(&journal), journal.is_bad(&digest)), (RollbackCause::Bootloader, true));
}

#[test]
fn nothing_is_given_up_for_a_slot_that_is_not_there_or_is_the_trial_itself() {
    let node = Node::new(PROGRAMS[0]);
    node.trial(3);
    let before = node.slots();
    assert_ne!(node.rollback(&["--to", "x"]).0, 0);
    assert_eq!((node.slots(), node.state().join("verdict.json").exists()), (before, false));
    assert_eq!(node.rollback(&["--to", "b"]).0, 0);
    assert!(!node.state().join("verdict.json").exists());
}

#[test]
fn the_way_back_never_leads_to_a_slot_that_is_known_to_be_damaged_unless_it_is_named() {
    let node = Node::new(PROGRAMS[0]);
    node.keep("b");
    let a = node.slots().remove(0);
    let check = SlotCheck {
        digest: a.digest().unwrap().into(),
        at: a.content.unwrap().written_at,
        damaged_at: Some(4096),
    };
    let state = StateDir::open(&node.state()).unwrap();
    state.write_slot_checks(&[("a".to_owned(), check)].into()).unwrap();
    let before = node.slots();
    let (code, said) = node.rollback(&[]);
    assert!(code == 3 && said.contains("known to be damaged"), "{code} {said}");
    assert_eq!(node.slots(), before);
    assert_eq!(node.rollback(&["--to", "a"]).0, 0);
}

#[test]
fn a_person_goes_back_also_where_nothing_can_be_remembered() {
    let node = Node::new(PROGRAMS[0]);
    node.trial(3);
    fs::write(node.state(), "no folder").unwrap();
    let (code, said) = node.rollback(&[]);
    assert!(code == 0 && said.contains("cannot be told") && said.contains("state"), "{code} {said}");
}

/// One that the loader has counted may have come up, for all that its disk tells.
#[test]
fn a_trial_that_was_never_booted_is_not_kept() {
    for program in PROGRAMS {
        let node = Node::new(program);
        node.trial(3);
        let before = node.slots();
        for more in [&[][..], &["--slot", "b"]] {
            let (code, said) = node.commit(more);
            assert!(code == 3 && said.contains("was never booted"), "{program:?}: {code} {said}");
            assert_eq!(node.slots(), before);
        }
        assert_eq!(node.commit(&["--slot", "a"]).0, 0);
    }
    let node = Node::new(PROGRAMS[0]);
    node.trial(3);
    let (armed, counted) = ("loader/entries/evenkeel-b+3.conf", "loader/entries/evenkeel-b+2-1.conf");
    esp::open(&node.machine.disk).unwrap().rename(armed, counted).unwrap();
    assert_eq!(node.commit(&[]).0, 0);
    assert_eq!(node.slots()[1].entry, EntryFact::Permanent);
}

#[test]
fn a_slot_that_there_is_none_of_is_wrong_usage_and_changes_nothing() {
    let node = Node::new(PROGRAMS[0]);
    node.trial(3);
    let before = format!("{:?}", node.slots());
    for args in [
        &["activate", "--slot", "z"][..],
        &["commit", "--slot", "z"],
        &["rollback", "--to", "z"],
        // A partition of that name is there.
        &["rollback", "--to", "state"],
        &["verify", "--slot", "z"],
        &["stage", "registry.example/os:1", "--slot", "z"],
        &["pin", "z"],
        &["unpin", "z"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
        let output = command.args(args).arg("--disk").arg(node.machine.disk.path()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let names_them = said.contains("its slots are a, b, recovery");
        assert!(output.status.code() == Some(2) && names_them, "{args:?}: {said}");
    }
    assert_eq!(format!("{:?}", node.slots()), before);
}
