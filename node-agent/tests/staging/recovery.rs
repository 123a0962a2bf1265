//! The recovery slot, and a reset to another image: what boots next, and what boots when nothing else does.

use std::fs;

use serde_json::Value;

use crate::{
    image::{LOADER, Recipe, tar},
    registry::Registry,
    shell::Shell,
};

const GRUB: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";

fn boots(slot: &Value) -> (bool, bool) {
    (slot["bootable"].as_bool().unwrap(), slot["default"].as_bool().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recovery_slot_boots_last_or_by_choice() {
    let registry = Registry::start();
    let both = tar(&[(GRUB, b"MZ"), (LOADER, b"MZ")]);
    let image = registry.push(&Recipe::with(both.clone()).build(), "os:1").await;
    let newer = Recipe {
        layers: [Recipe::with(both).layers, vec![tar(&[("etc/2", b"2")])]].concat(),
        ..Recipe::default()
    };
    let newer = registry.push(&newer.build(), "os:2").await;
    for loader in ["systemd-boot", "grub"] {
        let shell = Shell::new();
        let (code, _, err) = shell.install(&image, &["--recovery-image", &image, "--bootloader", loader]);
        assert_eq!(code, 0, "{loader}: {err}");
        assert_eq!(boots(&shell.slot("recovery")), (true, false), "{loader}");
        assert_eq!(boots(&shell.slot("a")), (true, true), "{loader}");

        // Written anew, while no trial is under way.
        let newer = ["recovery", &newer, "--plain-http"];
        assert_eq!(shell.agent(&["stage", &image, "--plain-http", "--slot", "b"]).0, 0);
        assert_eq!(shell.agent(&["activate", "--slot", "b"]).0, 0);
        let (code, _, err) = shell.agent(&newer);
        assert!(code == 3 && err.contains("a trial is under way"), "{loader}: {code} {err}");
        assert_eq!(shell.agent(&["rollback"]).0, 0);
        let (code, _, err) = shell.agent(&newer);
        assert_eq!(code, 0, "{loader}: {err}");
        assert_eq!(shell.slot("recovery")["image"], newer[1]);
        assert_eq!(boots(&shell.slot("a")), (true, true), "{loader}");

        // By choice, and back again.
        assert_eq!(shell.agent(&["rollback", "--to", "recovery"]).0, 0);
        assert_eq!(boots(&shell.slot("recovery")), (true, true), "{loader}");
        assert_eq!(shell.agent(&["rollback", "--to", "a"]).0, 0);
        assert_eq!((boots(&shell.slot("recovery")), boots(&shell.slot("a"))), ((true, false), (true, true)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_to_another_image_is_a_trial_and_costs_nothing_before() {
    let (shell, registry) = (Shell::new(), Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    assert_eq!(shell.install(&image, &[]).0, 0);
    let before = fs::read(&shell.disk).unwrap();
    let (code, _, err) = shell.agent(&["reset", &registry.reference("os:none"), "--plain-http"]);
    assert!(code == 4 && err.contains("os:none"), "{code} {err}");
    assert!(fs::read(&shell.disk).unwrap() == before);

    let newer = Recipe::with(tar(&[("etc/top", b"newer")])).build();
    let newer = registry.push(&newer, "os:2").await;
    let (code, _, err) = shell.agent(&["reset", &newer, "--plain-http"]);
    assert!(code == 0 && err.contains("begins anew"), "{code} {err}");
    assert_eq!((boots(&shell.slot("b")), &shell.slot("b")["triesLeft"]), ((true, true), &3.into()));
    assert_eq!(boots(&shell.slot("a")), (true, false));
    // Taken back: the old system boots, and keeps what it has.
    assert_eq!(shell.agent(&["rollback"]).0, 0);
    assert_eq!((boots(&shell.slot("b")), boots(&shell.slot("a"))), ((false, false), (true, true)));
}
