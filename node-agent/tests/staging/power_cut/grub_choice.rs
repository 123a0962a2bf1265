//! What GRUB takes from the configuration and the scripts that the agent wrote.

use evenkeel_node_agent::{boot, boot::Loader, disk::Window, esp};
use evenkeel_node_agent_core::layout::Role;

use super::{
    World,
    firmware::{Fat, Files},
    grub::{ENV, start},
};

/// The boot partition of a machine that keeps slot a and has slot b on trial, or keeps both.
async fn files(trial: bool) -> Files {
    let world = World::new(Loader::Grub).await;
    let disk = &world.machine.disk;
    let staged = world.machine.stage(&world.references[1]).await.unwrap();
    let (loader, slot) = (boot::open(disk).unwrap(), disk.slot("b").unwrap());
    loader.arm_trial(&slot, &staged.record, 2).unwrap();
    if !trial {
        loader.commit("b").unwrap();
    }
    assert!(esp::open(disk).unwrap().read(ENV, &mut Vec::new()).unwrap());
    let partition = disk.partition(Role::Esp).unwrap();
    let window: Window = partition.open(evenkeel_node_agent::disk::Access::Read).unwrap();
    Fat::of(&window).files().unwrap()
}

/// A start of GRUB, which writes its block; the slot, and whether the try is counted.
fn starts(files: &mut Files, can_write: bool) -> (String, bool) {
    let started = start(files, can_write).unwrap();
    if let Some(block) = started.written.last() {
        files.insert(ENV.into(), block.clone());
    }
    (started.slot, started.counted)
}

fn set(files: &mut Files, from: &str, to: &str) {
    let text = String::from_utf8(files[ENV].clone()).unwrap();
    assert!(text.contains(from), "{text}");
    let mut text = text.replace(from, to);
    text.truncate(text.rfind('\n').unwrap() + 1);
    text.push_str(&"#".repeat(1024 - text.len()));
    files.insert(ENV.into(), text.into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_is_booted_as_often_as_it_may_and_only_when_that_was_counted() {
    let mut files = files(true).await;
    assert_eq!(starts(&mut files.clone(), false), ("a".into(), false), "a loader that cannot write");
    assert_eq!(starts(&mut files, true), ("b".into(), true));
    assert!(String::from_utf8_lossy(&files[ENV]).contains("evenkeel_loader=writes"));
    assert_eq!(starts(&mut files, true), ("b".into(), true));
    for _ in 0..2 {
        assert_eq!(starts(&mut files, true), ("a".into(), false), "the tries are used up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_choice_is_for_one_boot() {
    let mut files = files(false).await;
    assert_eq!(starts(&mut files, true), ("b".into(), false));
    set(&mut files, "next_entry=\n", "next_entry=evenkeel-a\n");
    assert_eq!(starts(&mut files, true), ("a".into(), false));
    assert_eq!(starts(&mut files, true), ("b".into(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_slot_that_was_given_up_gives_way() {
    let mut files = files(false).await;
    let script = files.remove("evenkeel/grub/b.cfg").unwrap();
    files.insert("evenkeel/grub/b.given-up".into(), script);
    assert_eq!(starts(&mut files, true), ("a".into(), false));
    // Nor does a trial that was used up take its place, in whatever order they stand.
    let mut files = self::files(true).await;
    set(&mut files, "evenkeel_tries=2", "evenkeel_tries=0");
    let script = files.remove("evenkeel/grub/a.cfg").unwrap();
    files.insert("evenkeel/grub/c.cfg".into(), script);
    let (slot, _) = starts(&mut files, true);
    assert_eq!(slot, "a", "its script, under another name");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recovery_slot_boots_when_no_other_does() {
    let mut files = files(false).await;
    let script = |files: &Files, slot: &str| files[&format!("evenkeel/grub/{slot}.cfg")].clone();
    let recovery =
        String::from_utf8(script(&files, "a")).unwrap().replace("evenkeel.slot=a", "evenkeel.slot=recovery");
    files.insert("evenkeel/grub/recovery.cfg".into(), recovery.into_bytes());
    assert_eq!(starts(&mut files.clone(), true).0, "b", "the saved one");
    files.remove("evenkeel/grub/b.cfg").unwrap();
    assert_eq!(starts(&mut files.clone(), true).0, "a", "another kept one");
    files.remove("evenkeel/grub/a.cfg").unwrap();
    assert_eq!(starts(&mut files, true).0, "recovery");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_kernel_or_initrd_is_gone_gives_way_to_the_kept_one() {
    for part in ["\nlinux ", "\ninitrd "] {
        for (trial, broken) in [(true, "b"), (false, "b")] {
            let mut files = files(trial).await;
            let script = format!("evenkeel/grub/{broken}.cfg");
            let text = String::from_utf8(files[&script].clone()).unwrap();
            files.insert(script, text.replace(part, &format!("{part}/nothing-")).into_bytes());
            assert_eq!(starts(&mut files, true), ("a".into(), false), "{part:?} on trial: {trial}");
        }
    }
}
