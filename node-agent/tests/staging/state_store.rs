//! Slots as a store of systems: more than two, pins, the way back by name, and whether the bytes are still there.

use std::{fs::File, os::unix::fs::FileExt as _};

use evenkeel_node_agent::disk::Disk;
use serde_json::Value;

use crate::{
    image::{Recipe, tar},
    registry::Registry,
    shell::Shell,
};

/// A disk with three slots, an image in each, and `a` the one that boots.
async fn three_slots() -> (Shell, Registry) {
    let (shell, registry) = (Shell::new(), Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:a").await;
    let (code, _, err) = shell.install(&image, &["--slots", "3"]);
    assert_eq!(code, 0, "{err}");
    for slot in ["b", "c"] {
        assert_eq!(stage(&shell, &registry, &format!("os:{slot}"), &[]).await, Ok(slot.into()));
    }
    (shell, registry)
}

/// Stages an image of its own, and tells which slot got it, or what was said.
async fn stage(shell: &Shell, registry: &Registry, tag: &str, more: &[&str]) -> Result<String, String> {
    let image = Recipe::with(tar(&[("etc/tag", tag.as_bytes())])).build();
    let image = registry.push(&image, tag).await;
    let (code, out, err) =
        shell.agent(&[&["stage", &image, "--plain-http", "--output", "json"], more].concat());
    match code {
        0 => Ok(serde_json::from_str::<Value>(&out).unwrap()["slot"].as_str().unwrap().to_owned()),
        3 => Err(err),
        _ => panic!("exit code {code}: {err}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_slot_is_written_and_a_pinned_one_never() {
    let (shell, registry) = three_slots().await;
    assert_eq!(shell.agent(&["pin", "b"]).0, 0);
    assert_eq!(shell.agent(&["pin", "b"]).0, 0);
    assert_eq!(shell.slot("b")["pinned"], true);
    // b is the oldest that is not in use.
    assert_eq!(stage(&shell, &registry, "os:d", &[]).await, Ok("c".into()));
    let said = stage(&shell, &registry, "os:e", &["--slot", "b"]).await.unwrap_err();
    assert!(said.contains("slot b is pinned") && said.contains("unpin b"), "{said}");
    assert_eq!(shell.agent(&["pin", "c"]).0, 0);
    let said = stage(&shell, &registry, "os:e", &[]).await.unwrap_err();
    assert!(said.contains("pinned (b, c)") && said.contains("unpin NAME"), "{said}");
    assert_eq!(
        (&shell.slot("b")["image"], &shell.slot("b")["state"]),
        (&registry.reference("os:b").into(), &"complete".into())
    );
    assert_eq!(shell.agent(&["unpin", "b"]).0, 0);
    assert_eq!(stage(&shell, &registry, "os:e", &[]).await, Ok("b".into()));
    let (code, _, err) = shell.agent(&["pin", "recovery"]);
    assert!(code == 3 && err.contains("a, b, c"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_leads_to_any_slot_by_name() {
    let (shell, _registry) = three_slots().await;
    for slot in ["c", "b", "a"] {
        let (code, _, err) = shell.agent(&["rollback", "--to", slot]);
        assert_eq!(code, 0, "{err}");
        assert_eq!(shell.slot(slot)["default"], true);
    }
    // Without a name it is what was kept before.
    assert_eq!(shell.agent(&["rollback"]).0, 0);
    assert_eq!(shell.slot("b")["default"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_changed_is_found_and_remembered() {
    let (shell, _registry) = three_slots().await;
    let state = shell.folder.path().join("state");
    let remember = ["--state-dir", state.to_str().unwrap()];
    let verify = |slot: &str| shell.agent(&[&["verify", "--slot", slot][..], &remember].concat());
    let seen = || {
        let (_, out, _) = shell.agent(&[&["slots", "--output", "json"][..], &remember].concat());
        serde_json::from_str::<Vec<Value>>(&out).unwrap().swap_remove(1)
    };
    assert_eq!(shell.agent(&[&["verify"][..], &remember].concat()).0, 0);
    let before = seen();
    assert!(before["verifiedAt"].as_str() > before["writtenAt"].as_str(), "{before}");
    let file = File::options().read(true).write(true).open(&shell.disk).unwrap();
    let offset = before["offset"].as_u64().unwrap();
    // The superblock, data, metadata, and both ends of the hash tree behind them.
    let (_, out, _) = shell.agent(&["slots", "--output", "json"]);
    assert!(out.contains("\"labels\""), "{out}");
    let blocks = blocks_of(&file, offset);
    for block in [1, blocks / 2, blocks - 1, blocks, blocks + blocks.div_ceil(128)] {
        let at = offset + block * 4096 + 7;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
        let (code, _, err) = verify("b");
        assert!(
            code == 6 && err.contains(&format!("byte {} of the slot", block * 4096)),
            "{block}: {code} {err}"
        );
        let damaged = seen();
        assert_eq!((&damaged["state"], &damaged["damagedAt"]), (&"damaged".into(), &(block * 4096).into()));
        assert_eq!(damaged["verifiedAt"], Value::Null);
        file.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(verify("b").0, 0);
    assert_eq!(seen()["state"], "complete");
    assert_eq!(verify("recovery").0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slot_boots_by_is_compared_with_the_slot() {
    let (shell, _registry) = three_slots().await;
    let esp = evenkeel_node_agent::esp::open(&Disk::open(&shell.disk).unwrap()).unwrap();
    let files = esp.list("evenkeel").unwrap();
    let kernel = files.iter().find(|file| file.name.starts_with("vmlinuz-")).unwrap();
    let path = format!("evenkeel/{}", kernel.name);
    for bytes in [&b""[..], b"another kernel"] {
        esp.write(&path, &mut &*bytes).unwrap();
        for args in [&["verify"][..], &["verify", "--slot", "a"]] {
            let (code, _, err) = shell.agent(args);
            assert!(code == 6 && err.matches(&path).count() == 1, "{args:?}: {code} {err}");
            assert!(err.contains("`evenkeel-agent disk mend`"), "{err}");
        }
        // The other slots boot by nothing yet, and none is damaged itself.
        assert_eq!(shell.agent(&["verify", "--slot", "b"]).0, 0);
        assert_eq!(shell.slot("a")["state"], "complete");
        assert_eq!(shell.agent(&["disk", "mend"]).0, 0);
        let (code, _, err) = shell.agent(&["verify"]);
        assert_eq!(code, 0, "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_hash_tree_changed_is_written_again() {
    let (shell, registry) = three_slots().await;
    let file = File::options().read(true).write(true).open(&shell.disk).unwrap();
    let offset = shell.slot("c")["offset"].as_u64().unwrap();
    file.write_all_at(b"?", offset + blocks_of(&file, offset) * 4096).unwrap();
    assert_eq!(shell.agent(&["verify", "--slot", "c"]).0, 6);
    assert_eq!(stage(&shell, &registry, "os:c", &["--slot", "c"]).await, Ok("c".into()));
    assert_eq!(shell.agent(&["verify", "--slot", "c"]).0, 0);
}

/// Blocks of the file system at a place, as its superblock says.
fn blocks_of(file: &File, offset: u64) -> u64 {
    let mut blocks = [0; 4];
    file.read_exact_at(&mut blocks, offset + 1024 + 36).unwrap();
    u32::from_le_bytes(blocks).into()
}
