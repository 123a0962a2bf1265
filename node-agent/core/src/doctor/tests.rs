use jiff::Timestamp;

use super::{
    BootFileFact, DiskFacts, EspFacts, Facts, HostFacts, Init, LoaderFacts, Program, StateFacts, Verdict,
    Watchdog, examine, overall,
};
use crate::{
    bios_boot::BiosState,
    efi_program::Unsigned,
    layout::RECOVERY_SLOT,
    live_config::{Kept, LiveConfig, Setting},
    machine::{EntryFact, SlotContent, SlotFact},
    reset::Reset,
};

fn slot(name: &str, entry: EntryFact) -> SlotFact {
    let content = SlotContent {
        image: "os:1".into(),
        digest: "sha256:01".into(),
        version: "1".into(),
        written_at: Timestamp::from_second(1_000).unwrap(),
    };
    SlotFact { content: Some(content), entry, generation: 1, ..SlotFact::empty(name) }
}

fn healthy() -> Facts {
    let unsigned = Ok(Unsigned::default());
    let loader = LoaderFacts { name: "GRUB", counts: Ok(()), part_uuid: "e5".into(), unsigned };
    let esp = EspFacts { writes: Ok(()), room: 400 << 20, largest: Some(60 << 20), loader: Some(loader) };
    let disk = DiskFacts {
        name: "/dev/vda".into(),
        missing: Vec::new(),
        lost_of_table: Vec::new(),
        unused: 0,
        slots: Ok(vec![slot("a", EntryFact::Permanent), SlotFact::empty("b")]),
        damaged: Vec::new(),
        boot_files: Ok(Vec::new()),
        reset: None,
        target_writes: Ok(()),
        esp: Ok(esp),
        bios: Ok(BiosState::Absent),
        state_filesystem: Ok(()),
    };
    let state =
        StateFacts { path: "/var/lib/evenkeel".into(), on_state_partition: Some(true), free: 1 << 30 };
    let host = HostFacts {
        root: true,
        running: Some("a".into()),
        init: Init::Systemd,
        guard: Some(true),
        state: Ok(state),
        live: Vec::new(),
        watchdog: Watchdog::Hardware("iTCO_wdt".into()),
        missing_programs: Vec::new(),
        missing_in_kernel: Vec::new(),
        booted_by: Some("E5".into()),
        secure_boot: Some(true),
    };
    Facts { disk: Ok(disk), host: Some(host), now: Timestamp::from_second(2_000).unwrap() }
}

/// The checks that are not well, and how ill they are, after a change for the worse.
fn after(
    change: impl FnOnce(&mut Facts, fn(&mut Facts) -> &mut HostFacts, fn(&mut Facts) -> &mut DiskFacts),
) -> Vec<(&'static str, Verdict)> {
    let mut facts = healthy();
    change(&mut facts, |facts| facts.host.as_mut().unwrap(), |facts| facts.disk.as_mut().unwrap());
    let findings = examine(&facts);
    for finding in &findings {
        assert_eq!(finding.advice.is_none(), finding.verdict == Verdict::Ok, "{finding:?}");
    }
    let ill = findings.iter().filter(|finding| finding.verdict != Verdict::Ok);
    ill.map(|finding| (finding.check, finding.verdict)).collect()
}

#[test]
fn a_healthy_machine_has_nothing_to_tell() {
    assert_eq!(after(|_, _, _| {}), []);
    assert_eq!(overall(&examine(&healthy())), Verdict::Ok);
    // A disk that is not this machine's is judged alone.
    assert_eq!(after(|facts, _, _| facts.host = None), []);
}

#[test]
fn what_ails_the_machine_is_found() {
    use Verdict::{Fail, Warn};
    assert_eq!(after(|facts, host, _| host(facts).root = false), [("root", Fail)]);
    assert_eq!(after(|facts, host, _| host(facts).init = Init::Other("runit".into())), [("init", Fail)]);
    assert_eq!(after(|facts, host, _| host(facts).guard = Some(false)), [("guard", Fail)]);
    assert_eq!(after(|facts, host, _| host(facts).guard = None), []);
    assert_eq!(after(|facts, host, _| host(facts).state = Err("read-only".into())), [("state", Fail)]);
    for (on_state_partition, free, expected) in
        [(false, 1 << 30, true), (true, 5, true), (true, 1 << 20, false)]
    {
        let state = StateFacts { path: "/x".into(), on_state_partition: Some(on_state_partition), free };
        let found = after(|facts, host, _| host(facts).state = Ok(state));
        assert_eq!(found == [("state", Fail)], expected, "{found:?}");
    }
    for watchdog in [Watchdog::Software, Watchdog::Absent] {
        assert_eq!(after(|facts, host, _| host(facts).watchdog = watchdog), [("watchdog", Warn)]);
    }
    let program = Program { name: "mke2fs", package: "e2fsprogs", needed_for: "a new disk needs it" };
    assert_eq!(after(|facts, host, _| host(facts).missing_programs = vec![program]), [("programs", Warn)]);
    assert_eq!(after(|facts, host, _| host(facts).missing_in_kernel = vec!["erofs"]), [("kernel", Warn)]);
    assert_eq!(after(|facts, host, _| host(facts).booted_by = Some("f6".into())), [("firmware", Fail)]);
    assert_eq!(after(|facts, host, _| host(facts).booted_by = None), []);
    assert_eq!(after(|facts, _, _| facts.now = Timestamp::UNIX_EPOCH), [("clock", Warn)]);
}

#[test]
fn what_is_as_it_must_be_in_the_recovery_slot_fails_nothing() {
    use Verdict::Warn;
    let in_memory = |facts: &mut Facts| {
        let host = facts.host.as_mut().unwrap();
        host.running = Some(RECOVERY_SLOT.into());
        host.state.as_mut().unwrap().on_state_partition = Some(false);
    };
    assert_eq!(after(|facts, _, _| in_memory(facts)), []);
    // It runs because no other slot boots, and a trial comes back to it.
    for slots in [
        vec![slot("a", EntryFact::Trial { left: 0 }), SlotFact::empty("b")],
        vec![SlotFact { content: None, ..slot("a", EntryFact::Permanent) }, SlotFact::empty("b")],
        vec![SlotFact::empty("a"), SlotFact::empty("b")],
    ] {
        let found = after(|facts, _, disk| {
            in_memory(facts);
            disk(facts).slots = Ok(slots);
        });
        assert_eq!(found, [("way-back", Warn)]);
    }
}

#[test]
fn a_machine_without_the_layout_gets_a_clear_word() {
    let found = after(|facts, host, _| {
        host(facts).running = None;
        host(facts).guard = Some(false);
        facts.disk = Err("this machine does not run from an Evenkeel slot".into());
    });
    assert_eq!(found, [("running", Verdict::Fail), ("layout", Verdict::Fail)]);
    let found = after(|facts, _, disk| disk(facts).missing = vec!["evenkeel-oem"]);
    assert_eq!(found, [("layout", Verdict::Fail)]);
}

#[test]
fn what_ails_the_disk_is_found() {
    use Verdict::{Fail, Warn};
    let esp = |facts: &mut Facts, change: fn(&mut EspFacts)| {
        change(facts.disk.as_mut().unwrap().esp.as_mut().unwrap());
    };
    assert_eq!(after(|facts, _, _| esp(facts, |esp| esp.writes = Err("full".into()))), [("esp", Fail)]);
    assert_eq!(after(|facts, _, _| esp(facts, |esp| esp.room = 1 << 20)), [("esp-room", Fail)]);
    assert_eq!(after(|facts, _, _| esp(facts, |esp| esp.loader = None)), [("loader", Fail)]);
    let cannot = |esp: &mut EspFacts| esp.loader.as_mut().unwrap().counts = Err("GRUB cannot write".into());
    assert_eq!(after(|facts, _, _| esp(facts, cannot)), [("loader", Fail)]);
    assert_eq!(after(|facts, _, disk| disk(facts).esp = Err("no FAT".into())), [("esp", Fail)]);
    assert_eq!(after(|facts, _, disk| disk(facts).lost_of_table = vec!["a copy"]), [("layout", Warn)]);
    assert_eq!(after(|facts, _, disk| disk(facts).unused = 1 << 30), [("layout", Warn)]);
    assert_eq!(after(|facts, _, disk| disk(facts).damaged = vec!["b".into()]), [("slots", Warn)]);
    assert_eq!(after(|facts, _, disk| disk(facts).target_writes = Err("busy".into())), [("slots", Fail)]);
    for (state, expected) in [
        (Ok(BiosState::Whole), vec![]),
        (Ok(BiosState::NoCore), vec![("bios", Warn)]),
        (Ok(BiosState::NoBootSector), vec![("bios", Warn)]),
        (Err("unreadable".into()), vec![("bios", Warn)]),
    ] {
        assert_eq!(after(|facts, _, disk| disk(facts).bios = state), expected);
    }
    assert_eq!(
        after(|facts, _, disk| disk(facts).state_filesystem = Err("x".into())),
        [("state-filesystem", Fail)]
    );
    let digest = "sha256:01".to_owned();
    let reset = Reset { slot: "a".into(), digest, wipe_state: true, wipe_oem: false, asked: None };
    assert_eq!(after(|facts, _, disk| disk(facts).reset = Some(reset)), [("reset", Warn)]);
    let file = |slot: &str| BootFileFact { slot: slot.into(), message: "the kernel is lost".into() };
    for (slot, expected) in [("a", Fail), ("b", Warn), ("recovery", Warn)] {
        let found = after(|facts, _, disk| disk(facts).boot_files = Ok(vec![file(slot)]));
        assert_eq!(found, [("boot-files", expected)]);
    }
    let trial = SlotFact { generation: 2, ..slot("b", EntryFact::Trial { left: 1 }) };
    let found = after(|facts, _, disk| {
        disk(facts).slots = Ok(vec![slot("a", EntryFact::Permanent), trial]);
        disk(facts).boot_files = Ok(vec![file("b")]);
    });
    assert_eq!(found.last(), Some(&("boot-files", Fail)));
    let slots = |slots: Vec<SlotFact>| after(|facts, _, disk| disk(facts).slots = Ok(slots));
    let kept = || slot("a", EntryFact::Permanent);
    assert_eq!(slots(vec![kept()]), [("slots", Fail)]);
    assert_eq!(
        slots(vec![kept(), SlotFact { pinned: true, ..slot("b", EntryFact::Permanent) }]),
        [("slots", Fail)]
    );
    assert_eq!(slots(vec![SlotFact { content: None, ..kept() }, SlotFact::empty("b")]), [("way-back", Fail)]);
    let trial = EntryFact::Trial { left: 1 };
    assert_eq!(slots(vec![slot("a", trial), slot("b", EntryFact::Permanent)]), [("slots", Warn)]);
    let none = vec![SlotFact::empty("a"), SlotFact::empty("b")];
    assert_eq!(slots(none), [("way-back", Fail), ("entries", Fail)]);
}

#[test]
fn what_a_slot_boots_with_that_did_not_come_with_it_is_told() {
    let setting = |release: &str, document: Option<&str>| Setting {
        release: release.into(),
        document: document.map(str::to_owned),
    };
    let told = |under: &str, kept: Setting| {
        let before = setting("sha256:01", None);
        let kept = Kept { slot: "a".into(), under: under.into(), setting: kept, before };
        let mut facts = healthy();
        facts.host.as_mut().unwrap().live = vec![LiveConfig { kept: Some(kept), ..LiveConfig::default() }];
        let findings = examine(&facts).into_iter().filter(|finding| finding.check == "cloud-config");
        findings.map(|finding| finding.message).collect::<Vec<_>>()
    };
    let empty = setting("sha256:01+e3b0c44298fc1c14", Some(""));
    let message = "slot a boots with cloud-config e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, \
                   applied without a reboot";
    assert_eq!(told("sha256:01", empty.clone()), [message]);
    assert_eq!(told("sha256:00", empty), [""; 0], "the slot was written anew");
    assert_eq!(told("sha256:01", setting("sha256:01", None)), [""; 0], "it was gone back from");
}

#[test]
fn what_a_machine_with_secure_boot_does_not_start_is_found() {
    use Verdict::{Fail, Warn};
    let loader = || Unsigned { loaders: vec!["EFI/BOOT/BOOTX64.EFI"], kernels: vec!["a".into()] };
    let kernels = |slots: &[&str]| Unsigned {
        loaders: Vec::new(),
        kernels: slots.iter().copied().map(str::to_owned).collect(),
    };
    let finding = |on: Option<Option<bool>>, unsigned: Unsigned| {
        let mut facts = healthy();
        let esp = facts.disk.as_mut().unwrap().esp.as_mut().unwrap();
        esp.loader.as_mut().unwrap().unsigned = Ok(unsigned);
        match on {
            Some(on) => facts.host.as_mut().unwrap().secure_boot = on,
            None => facts.host = None,
        }
        examine(&facts).into_iter().find(|finding| finding.check == "secure-boot")
    };
    let verdict = |on: Option<bool>, unsigned| finding(Some(on), unsigned).map(|finding| finding.verdict);
    assert_eq!(verdict(Some(true), loader()), Some(Fail));
    assert_eq!(verdict(Some(true), kernels(&["b", "a"])), Some(Fail));
    // It is not what the machine boots, nor what it comes back to.
    assert_eq!(verdict(Some(true), kernels(&["b"])), Some(Warn));
    assert_eq!(verdict(Some(true), kernels(&[])), Some(Verdict::Ok));
    for on in [Some(false), None] {
        let expected = on.map(|_| Verdict::Ok);
        assert_eq!(
            [loader(), kernels(&["a"]), kernels(&[])].map(|unsigned| verdict(on, unsigned)),
            [expected; 3]
        );
    }

    let message = |on, unsigned| finding(on, unsigned).unwrap().message;
    assert_eq!(
        message(Some(Some(true)), loader()),
        "Secure Boot is on: this disk does not boot, as EFI/BOOT/BOOTX64.EFI (GRUB) has no signature"
    );
    assert_eq!(
        message(Some(Some(false)), kernels(&["a", "b"])),
        "Secure Boot is off; with it on, GRUB does not start the kernel of slot a and of slot b, which has no signature"
    );
    // Of a disk alone it is told what a machine would make of it.
    assert!(message(None, loader()).starts_with("with Secure Boot on, this disk does not boot"));
    assert_eq!(
        message(None, kernels(&[])),
        "with Secure Boot on, what boots this disk bears the signatures that are asked for"
    );
}
