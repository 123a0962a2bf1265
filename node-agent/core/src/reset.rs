//! What the initrd is asked to do before it mounts what outlives updates: a few lines on the boot partition, which a
//! shell reads too (`evenkeel_reset` in the initrd's library).
//!
//! A request speaks of one image in one slot, and is done in the first boot of that; every other boot leaves it alone.

/// The request, on the boot partition.
pub const REQUEST: &str = "evenkeel/reset";
/// The request that was done, until the guard has seen it.
pub const DONE: &str = "evenkeel/reset-done";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The slot that is booted.
    pub slot: String,
    /// Digest of its image.
    pub digest: String,
    /// Whether the state partition is made anew.
    pub wipe_state: bool,
    /// Whether the oem partition is made anew.
    pub wipe_oem: bool,
    /// Who asked, if it was the cluster and not a person on the machine.
    pub asked: Option<Asked>,
}

/// An order of the cluster's. The initrd leaves these lines as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The order's.
    pub id: String,
    /// The kernel's boot ID of the boot that asked.
    pub boot_id: String,
}

impl Reset {
    /// One `key=value` to a line.
    pub fn encode(&self) -> String {
        let word = |wipe| if wipe { "wipe" } else { "keep" };
        let Self { slot, digest, wipe_state, wipe_oem, asked } = self;
        let asked = asked
            .as_ref()
            .map_or_else(String::new, |Asked { id, boot_id }| format!("id={id}\nboot={boot_id}\n"));
        let (state, oem) = (word(*wipe_state), word(*wipe_oem));
        format!("{asked}slot={slot}\ndigest={digest}\nstate={state}\noem={oem}\n")
    }

    /// The reverse; `None` for what is not whole.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let wipe = |key: &str| match value(key)? {
            "wipe" => Some(true),
            "keep" => Some(false),
            _ => None,
        };
        Some(Self {
            slot: value("slot")?.to_owned(),
            digest: value("digest")?.to_owned(),
            wipe_state: wipe("state")?,
            wipe_oem: wipe("oem")?,
            asked: value("id")
                .zip(value("boot"))
                .map(|(id, boot_id)| Asked { id: id.to_owned(), boot_id: boot_id.to_owned() }),
        })
    }

    /// What is lost by it and what stays, in words.
    pub fn losses(&self) -> String {
        let word = |wipe| if wipe { "is lost then" } else { "stays" };
        format!("state {}, the machine's own cloud-config {}", word(self.wipe_state), word(self.wipe_oem))
    }

    /// Whether it speaks of what runs.
    pub fn is_of(&self, slot: &str, digest: &str) -> bool {
        self.slot == slot && self.digest == digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_and_half_of_one_does_not() {
        let by_the_cluster = || Some(Asked { id: "2026-01-01T00:00:00Z".into(), boot_id: "b-1".into() });
        for (wipe_state, wipe_oem, asked) in [(true, false, None), (false, true, by_the_cluster())] {
            let reset = Reset { slot: "b".into(), digest: "sha256:0f".into(), wipe_state, wipe_oem, asked };
            let text = reset.encode();
            assert_eq!(Reset::parse(&text), Some(reset));
            assert_eq!(Reset::parse(&text[..text.len() - 4]), None);
        }
        assert_eq!(Reset::parse("slot=b\ndigest=x\nstate=perhaps\noem=keep\n"), None);
    }
}
