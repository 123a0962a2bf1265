//! One line per step with the time since the start, so that a person sees what goes on and where the time goes.

use std::{
    future::Future,
    io::{self, Write as _},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval_at};

/// A step that says nothing for this long would look dead.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

static START: OnceLock<Instant> = OnceLock::new();

/// Writes one line: `[  12.3 s] build kube-apiserver`.
pub fn step(message: &str) {
    let elapsed = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    // Not `eprintln!`: a test's captured output is seen when it is too late. A closed stderr is no reason to stop.
    let _ = writeln!(io::stderr(), "[{elapsed:7.1} s] {message}");
}

/// Announces a step, and while it goes on says so from time to time.
pub async fn long<T>(message: &str, work: impl Future<Output = T>) -> T {
    long_with(message, String::new, work).await
}

/// As [`long`], with `detail` for the signs of life: what the step is at.
pub async fn long_with<T>(message: &str, detail: impl Fn() -> String, work: impl Future<Output = T>) -> T {
    step(message);
    let start = tokio::time::Instant::now();
    let mut ticks = interval_at(start + SIGN_OF_LIFE, SIGN_OF_LIFE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let seconds = start.elapsed().as_secs();
                let detail = detail();
                let separator = if detail.is_empty() { "" } else { ": " };
                step(&format!("  … {message}, {seconds} s so far{separator}{detail}"));
            }
        }
    }
}
