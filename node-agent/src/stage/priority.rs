//! The disk is for others first, if they want it.

use nix::libc;

/// `ioprio_set(2)`: this process, which for the kernel is this thread.
const WHO_PROCESS: libc::c_int = 1;
/// Class in the upper three of 16 bits: no class of its own, and idle.
const NONE: libc::c_int = 0;
const IDLE: libc::c_int = 3 << 13;

/// Until it is dropped, this thread and those that it starts read and write only while the disk is idle.
pub(crate) struct Yielding;

/// Gives everybody else the disk first. What cannot be had is no reason to stop.
pub(crate) fn yield_the_disk() -> Yielding {
    if !set(IDLE) {
        tracing::warn!(error = %std::io::Error::last_os_error(), "cannot lower the priority of reading and writing");
    }
    Yielding
}

impl Drop for Yielding {
    fn drop(&mut self) {
        // The thread belongs to a pool.
        set(NONE);
    }
}

fn set(priority: libc::c_int) -> bool {
    // SAFETY: the call takes integers only.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) == 0 }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn class() -> libc::c_long {
        // SAFETY: the call takes integers only.
        unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) >> 13 }
    }

    #[test]
    fn threads_inherit_it_and_the_pool_gets_its_thread_back() {
        let before = class();
        let yielding = yield_the_disk();
        assert_eq!(thread::spawn(class).join().unwrap(), 3);
        drop(yielding);
        assert_eq!(class(), before);
    }
}
