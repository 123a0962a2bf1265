//! The planner against a fleet that misbehaves: random fleets, policies and faults, the checker after every look.
//!
//! The planner and the update machine of the nodes are the real ones. What the operator sees is older than what is true, and
//! its writes conflict then. A failing case prints its seed; `EVENKEEL_SIM_FIRST` and `EVENKEEL_SIM_CASES` say which run.

mod agent;
mod checks;
mod dice;
mod disturb;
mod ends;
mod leader;
mod look;
mod operators;
mod seen;
mod wanted;
mod world;
mod written;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use seen::Seen;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Runs the seeds that were asked for, on every processor.
fn for_seeds(what: &str, to_the_end: bool, run: fn(u64) -> Seen) {
    let first = number("EVENKEEL_SIM_FIRST").unwrap_or(0);
    let cases = number("EVENKEEL_SIM_CASES").unwrap_or(60);
    let all = Mutex::new(Seen::default());
    let (next, begun) = (AtomicU64::new(first), Instant::now());
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + cases {
                return;
            }
            let Ok(came_up) = std::panic::catch_unwind(|| run(seed)) else {
                panic!("seed {seed} failed; run it alone with `make sim FIRST={seed} SEEDS=1`");
            };
            all.lock().unwrap().merge(came_up);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(worker))));
    let seconds = begun.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = cases as f64 / seconds;
    println!("{cases} schedules {what} held, {rate:.0} in a second");
    all.into_inner().unwrap().show(cases, to_the_end);
}

#[test]
fn every_rule_holds_and_every_rollout_ends() {
    for_seeds("to their end", true, ends::of_faults);
}

#[test]
fn every_rule_holds_and_every_deletion_ends() {
    for_seeds("to a deletion", false, ends::of_the_image);
}
