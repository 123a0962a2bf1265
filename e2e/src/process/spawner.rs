//! One thread starts all programs. The kernel's promise to end a child with its parent is bound to the parent's
//! *thread*, and a test's thread ends long before the process does.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
    sync::{
        Mutex, OnceLock,
        mpsc::{self, Sender},
    },
    thread,
};

use nix::sys::{prctl, signal::Signal};

type Order = (Command, Sender<io::Result<Child>>);

static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();

/// Starts a program that gets SIGKILL when this process ends, however it ends.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    // SAFETY: between fork and exec only prctl is called, which takes integers and allocates nothing.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
    let gone = || io::Error::other("the thread that starts programs has ended");
    let (answer, child) = mpsc::channel();
    let spawner = SPAWNER.get_or_init(start).lock().map_err(|_| gone())?.clone();
    spawner.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

fn start() -> Mutex<Sender<Order>> {
    let (sender, orders) = mpsc::channel::<Order>();
    thread::spawn(move || {
        for (mut command, answer) in orders {
            // Who asked may have given up.
            let _ = answer.send(command.spawn());
        }
    });
    Mutex::new(sender)
}
