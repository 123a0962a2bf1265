//! Does nothing until it is told to end: the sandbox of every pod, and the demo's workload.

use nix::sys::signal::{SigSet, Signal};

fn main() -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    // As process 1 of a pod's sandbox it inherits the pod's orphans.
    while signals.wait()? == Signal::SIGCHLD {
        while matches!(nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)), Ok(status)
            if status != nix::sys::wait::WaitStatus::StillAlive)
        {}
    }
    Ok(())
}
