//! Loopback ports that are free now and stay ours.

use std::{
    fs::{self, File},
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};

use crate::cache;

/// Below the range (from 32768) out of which Linux takes ports for outgoing connections: a server that is started
/// anew finds its port still free.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port. No other process that asks here gets it while this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a port of 127.0.0.1 that nobody listens on.
    pub fn free() -> Result<Self> {
        let folder = cache::root()?.join("ports");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        // Processes begin at different places, so that they seldom meet.
        let begin = process::id().wrapping_mul(97);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = u16::try_from(FIRST + begin.wrapping_add(step) % COUNT)
                .context("the range of ports lies below 65536")?;
            let path = folder.join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("create {}", path.display()))?;
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no port of 127.0.0.1 from {FIRST} to {} is free", FIRST + COUNT - 1)
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
