//! Images for single machines without a cluster: the demo's system without what only a cluster needs, and with what goes
//! wrong in one case each.

use super::version::{CHECK_FAILS, Entry, PANICS, Version};

/// A service of the image that runs a shell's words while the system starts.
macro_rules! trouble {
    ($words:literal) => {
        Entry::File {
            path: "usr/lib/systemd/system/trouble.service",
            content: concat!(
                "[Unit]\nDescription=What is wrong with this image\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\n\
                 ExecStart=/bin/sh -c '",
                $words,
                "'\n"
            ),
        }
    };
}

/// All of them, above [`LEAN`].
pub const TRIALS: &[Version] = &[
    Version { tag: "1", entries: &[] },
    Version {
        tag: "2",
        entries: &[Entry::File { path: "usr/share/evenkeel-demo/added", content: "This came with 2.\n" }],
    },
    Version { tag: "check-fails", entries: &[CHECK_FAILS] },
    Version {
        tag: "check-never-ends",
        entries: &[Entry::Program {
            path: "usr/lib/evenkeel/health.d/10-storage",
            content: "#!/bin/sh\nexec sleep infinity\n",
        }],
    },
    // Yes and no in turn, yes first.
    Version {
        tag: "check-flaps",
        entries: &[Entry::Program {
            path: "usr/lib/evenkeel/health.d/10-link",
            content: "#!/bin/sh\necho >> /run/trial-asked\n\
                      [ $(($(wc -l < /run/trial-asked) % 2)) -eq 1 ] || { echo 'the link is down' >&2; exit 1; }\n",
        }],
    },
    Version {
        tag: "no-network",
        entries: &[Entry::File { path: "usr/lib/systemd/network/.wh.80-dhcp.network", content: "" }],
    },
    Version { tag: "panic", entries: &[PANICS] },
    Version {
        tag: "no-root",
        entries: &[Entry::File {
            path: "usr/lib/kernel/cmdline",
            // The initrd waits three minutes for a disk where nobody says less.
            content: "tsc=reliable mitigations=off cryptomgr.notests module_blacklist=virtio_blk rd.retry=15\n",
        }],
    },
    Version { tag: "never-up", entries: &[trouble!("sleep infinity"), WANTED] },
    // Freezes the first process: it does not crash, and does nothing any more.
    Version {
        tag: "system-hangs",
        entries: &[trouble!("echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze; sleep infinity"), WANTED],
    },
    Version { tag: "system-crashes", entries: &[trouble!("kill -SEGV 1; sleep infinity"), WANTED] },
];

/// The system is not up before this has ended.
const WANTED: Entry = Entry::Link {
    path: "etc/systemd/system/multi-user.target.wants/trouble.service",
    target: "/usr/lib/systemd/system/trouble.service",
};

/// What all have above the node's layers. Whiteouts keep the container runtime and the kubelet from being started.
pub const LEAN: Version = Version {
    tag: "lean",
    entries: &[
        Entry::File {
            path: "etc/systemd/system/multi-user.target.wants/.wh.containerd.service",
            content: "",
        },
        Entry::File { path: "etc/systemd/system/multi-user.target.wants/.wh.kubelet.service", content: "" },
        Entry::File {
            path: "usr/lib/systemd/system/evenkeel-trial.service",
            content: "[Unit]\nDescription=What the test wants of this boot\n\
                      ConditionPathExists=/var/lib/evenkeel-trial/run\n\
                      After=network-online.target\n\
                      [Service]\nType=oneshot\nExecStart=/bin/sh /var/lib/evenkeel-trial/run\n\
                      StandardOutput=journal+console\nStandardError=journal+console\n",
        },
        Entry::Link {
            path: "etc/systemd/system/multi-user.target.wants/evenkeel-trial.service",
            target: "/usr/lib/systemd/system/evenkeel-trial.service",
        },
    ],
};
