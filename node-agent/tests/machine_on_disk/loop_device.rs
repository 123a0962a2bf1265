//! A file as a device. Needs root.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::machine_on_disk::run;

pub struct Loop(pub PathBuf);

impl Loop {
    /// With blocks of `sector` bytes.
    pub fn new(file: &Path, sector: &str) -> Self {
        let said = run("losetup", &["--find", "--show", "--sector-size", sector, file.to_str().unwrap()]);
        Self(said.trim().into())
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Partitions that were added one by one stay with the device's number otherwise.
        let _ = Command::new("partx").args(["--delete", self.path()]).output();
        let _ = Command::new("losetup").args(["--detach", self.path()]).output();
    }
}
