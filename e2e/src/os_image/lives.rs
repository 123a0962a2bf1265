//! Images for machines that are told what to do: a shell of the superuser on the second serial line.

use super::version::{Entry, Version};

/// What all have above the trials' layers.
pub const SHELL: Version = Version {
    tag: "shell",
    entries: &[
        Entry::File {
            path: "usr/lib/systemd/system/evenkeel-shell.service",
            content: "[Unit]\nDescription=A shell on the second serial line\n\
                      [Service]\nRestart=always\n\
                      ExecStart=/bin/bash -c 'stty -F /dev/ttyS1 raw -echo; exec bash < /dev/ttyS1 > /dev/ttyS1 2>&1'\n",
        },
        Entry::Link {
            path: "etc/systemd/system/multi-user.target.wants/evenkeel-shell.service",
            target: "/usr/lib/systemd/system/evenkeel-shell.service",
        },
        // As in the Dockerfile of docs/install.md.
        Entry::Link { path: "usr/bin/evenkeel-agent", target: "/usr/lib/evenkeel/evenkeel-agent" },
    ],
};

/// All of them, above [`SHELL`].
pub const LIVES: &[Version] = &[Version { tag: "1", entries: &[] }, Version { tag: "2", entries: &[] }];
