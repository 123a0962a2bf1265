//! How the kernel weighs this process's reads against those of others.

use std::io;

use nix::libc;

/// `IOPRIO_WHO_PROCESS`, for the calling thread and those that it starts (`linux/ioprio.h`).
const THIS_THREAD: (libc::c_int, libc::c_int) = (1, 0);
/// `IOPRIO_CLASS_IDLE` in the class's place, above 13 bits of data.
const IDLE: libc::c_int = 3 << 13;

/// From here on this thread reads and writes only when nobody else does, where the disk's scheduler knows classes.
pub fn idle() -> io::Result<()> {
    let (which, who) = THIS_THREAD;
    // SAFETY: ioprio_set takes three integers and touches no memory of this process.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, which, who, IDLE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
