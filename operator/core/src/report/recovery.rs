//! How far recovery slots are.

use std::fmt;

/// Nodes whose recovery slot does not hold what it should, by what they do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoverySlots {
    /// Nodes that were not told yet.
    pub waiting: usize,
    /// Nodes that write it.
    pub writing: usize,
    /// Nodes that cannot.
    pub failed: usize,
    /// The first of those, and why.
    pub first: Option<(String, String)>,
}

impl fmt::Display for RecoverySlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.waiting + self.writing > 0 {
            parts.push(format!("{} to be written, {} now", self.waiting + self.writing, self.writing));
        }
        if let Some((name, why)) = &self.first {
            parts.push(format!("{} cannot be ({name}: {})", self.failed, why.trim_end_matches('.')));
        }
        if parts.is_empty() { Ok(()) } else { write!(f, "recovery slots: {}", parts.join(", ")) }
    }
}
