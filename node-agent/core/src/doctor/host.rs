//! The machine: what would start an upgrade, and what would end a bad one.

use crate::layout::RECOVERY_SLOT;

use super::{Facts, Finding, HostFacts, Init, Watchdog};

/// The agent's documents are a few kilobytes, and each is written beside the old one.
const STATE_FREE_MIN: u64 = 1 << 20;

pub(super) fn examine(host: &HostFacts) -> Vec<Finding> {
    let mut findings = vec![root(host), running(host), init(host)];
    // They say nothing on a machine that is left alone.
    if host.running.is_some() {
        findings.extend(guard(host));
        findings.push(state(host));
    }
    findings.extend([watchdog(host), kernel(host)]);
    findings.extend(programs(host));
    findings
}

fn root(host: &HostFacts) -> Finding {
    if host.root {
        return Finding::ok("root", "runs as root");
    }
    Finding::fail("root", "does not run as root", "run this command as root")
}

fn running(host: &HostFacts) -> Finding {
    match &host.running {
        Some(slot) => Finding::ok("running", format!("slot {slot} runs")),
        None => Finding::fail(
            "running",
            "this machine was not booted from an Evenkeel slot, and is left alone",
            "install an image on a disk of it (`evenkeel-agent install`) and boot that, or name a disk with --disk",
        ),
    }
}

fn init(host: &HostFacts) -> Finding {
    match &host.init {
        Init::Systemd => Finding::ok("init", "systemd can be asked to reboot"),
        Init::Program(path) => Finding::ok("init", format!("{path} is run to reboot")),
        Init::Other(name) => Finding::fail(
            "init",
            format!("process 1 is {name}, which cannot be asked to reboot as systemd can"),
            "name a program that reboots this machine with --reboot-command (EVENKEEL_REBOOT_COMMAND)",
        ),
        Init::OutOfReach(why) => Finding::fail(
            "init",
            format!("process 1 of the host cannot be asked to reboot: {why}"),
            "run this as root in the host's process namespace (hostPID), with its /proc mounted",
        ),
    }
}

fn guard(host: &HostFacts) -> Option<Finding> {
    Some(if host.guard? {
        Finding::ok("guard", "the running image has the guard that ends a trial")
    } else {
        Finding::fail(
            "guard",
            "the running image has no guard, which ends a trial that is not kept",
            "build the image with `RUN evenkeel-agent init`",
        )
    })
}

fn state(host: &HostFacts) -> Finding {
    let state = match &host.state {
        Err(error) => {
            return Finding::fail("state", error, "mount the state partition writable, or check its disk");
        }
        Ok(state) => state,
    };
    let path = &state.path;
    let in_recovery = host.running.as_deref() == Some(RECOVERY_SLOT);
    if state.on_state_partition == Some(false) && !in_recovery {
        return Finding::fail(
            "state",
            format!("{path} does not lie on the disk's state partition, so that a reboot forgets an update"),
            "check that the initrd of the image was built with `evenkeel-agent init`, and what else is mounted there",
        );
    }
    if state.free < STATE_FREE_MIN {
        let message = format!("{path} has {} KiB free", state.free >> 10);
        return Finding::fail("state", message, "free at least 1 MiB on the state partition (/var)");
    }
    if in_recovery {
        return Finding::ok("state", format!("{path} is in memory, as it has to be in the recovery slot"));
    }
    Finding::ok("state", format!("{path} can be written, {} MiB free", state.free >> 20))
}

fn watchdog(host: &HostFacts) -> Finding {
    match &host.watchdog {
        Watchdog::Hardware(name) => {
            Finding::ok("watchdog", format!("{name} restarts this machine if it hangs"))
        }
        Watchdog::Software => Finding::warn(
            "watchdog",
            "only a timer of the kernel restarts this machine if it hangs, and not if the kernel itself hangs",
            "enable the machine's own watchdog in its firmware, or in its virtual hardware",
        ),
        Watchdog::Absent => Finding::warn(
            "watchdog",
            "no watchdog is active; a trial starts one (softdog where the machine has none)",
            "enable the machine's own watchdog in its firmware, or in its virtual hardware",
        ),
    }
}

fn kernel(host: &HostFacts) -> Finding {
    if host.missing_in_kernel.is_empty() {
        return Finding::ok("kernel", "the kernel has what slots need");
    }
    let message = format!("the kernel that runs has no {}", host.missing_in_kernel.join(", no "));
    let advice = "images that are booted from slots bring their own kernel: only what runs now is meant";
    Finding::warn("kernel", message, advice)
}

fn programs(host: &HostFacts) -> Vec<Finding> {
    if host.missing_programs.is_empty() {
        return vec![Finding::ok("programs", "the programs of others that are used are there")];
    }
    let missing = host.missing_programs.iter();
    missing
        .map(|program| {
            let message = format!("{} is not there: {}", program.name, program.needed_for);
            Finding::warn("programs", message, &format!("install the package {}", program.package))
        })
        .collect()
}

/// Certificates and approvals are judged by it.
pub(super) fn clock(facts: &Facts) -> Finding {
    let slots = facts.disk.iter().filter_map(|disk| disk.slots.as_ref().ok()).flatten();
    let written = slots.filter_map(|slot| Some(slot.content.as_ref()?.written_at)).max();
    match written {
        Some(written) if written > facts.now => Finding::warn(
            "clock",
            format!("the clock says {:.0}, and a slot was written at {written:.0}", facts.now),
            "set the clock, or let it be set over the network: certificates and approvals are judged by it",
        ),
        _ => Finding::ok("clock", format!("the clock says {:.0}", facts.now)),
    }
}
