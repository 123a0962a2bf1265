//! The clock of an emulated machine, which its kernel must not find out by itself.
//!
//! The emulator passes the host's time-stamp counter through. The kernel measures its rate against a timer chip, and on a
//! busy host, where the emulator stands still in the middle, it comes to a tenth of the rate and to a system whose time
//! runs ten times too fast.

use std::{
    thread,
    time::{Duration, Instant},
};

/// What is added for every emulated machine: its clocks agree, nobody else's code runs beside it, and the kernel's tests of
/// its ciphers, in which emulated processors were seen to hang, say nothing of a real one.
const OPTIONS: &str = "tsc=reliable mitigations=off cryptomgr.notests";
/// Long enough that what passes between the two looks at the clocks, a microsecond, is nothing.
const MEASURE: Duration = Duration::from_millis(50);
/// The middle one of these is right even if the host was interrupted between two looks.
const MEASUREMENTS: usize = 5;

/// The kernel options of an image for machines on this host, as `/usr/lib/kernel/cmdline` has them.
pub fn kernel_options() -> String {
    match counter_mhz() {
        Some(mhz) => format!("{OPTIONS} tsc_early_khz={}\n", mhz * 1000),
        None => format!("{OPTIONS}\n"),
    }
}

/// The rate of the host's time-stamp counter. Whole megahertz: the same host gives the same image each time, and the
/// kernel finds the rest when it is up.
fn counter_mhz() -> Option<u64> {
    let mut rates = Vec::new();
    for _ in 0..MEASUREMENTS {
        let (begin, from) = (Instant::now(), counter()?);
        thread::sleep(MEASURE);
        let (ticks, time) = (counter()? - from, begin.elapsed());
        let nanoseconds = u64::try_from(time.as_nanos()).ok()?;
        rates.push((ticks * 1000 + nanoseconds / 2) / nanoseconds);
    }
    rates.sort_unstable();
    Some(rates[MEASUREMENTS / 2])
}

#[cfg(target_arch = "x86_64")]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there is none")]
fn counter() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction; it reads a register and nothing else.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_same_each_time() {
        let (one, other) = (counter_mhz(), counter_mhz());
        if let (Some(one), Some(other)) = (one, other) {
            assert!(one.abs_diff(other) <= one / 100, "{one} and {other} MHz");
        }
    }

    #[test]
    fn the_options_are_one_line() {
        assert_eq!(kernel_options().lines().count(), 1);
    }
}
