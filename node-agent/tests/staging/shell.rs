//! The command line on a disk file.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a disk file in it.
pub struct Shell {
    pub folder: TempDir,
    pub disk: PathBuf,
}

impl Shell {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { disk: folder.path().join("disk.img"), folder }
    }

    /// Runs a command on the disk; gives its exit code and both of its outputs.
    pub fn agent(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"));
        let Output { status, stdout, stderr } =
            command.args(args).arg("--disk").arg(&self.disk).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    pub fn install(&self, image: &str, more: &[&str]) -> (i32, String, String) {
        let sizes = ["--plain-http", "--size", "1000MiB", "--slot-size", "32MiB"];
        self.agent(&[&["install", image][..], &sizes, more].concat())
    }

    pub fn slot(&self, name: &str) -> Value {
        let (code, out, err) = self.agent(&["slots", "--output", "json"]);
        assert_eq!(code, 0, "{err}");
        let slots: Vec<Value> = serde_json::from_str(&out).unwrap();
        slots.into_iter().find(|slot| slot["name"] == name).unwrap()
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}
