//! An error with all that is below it.

/// The error's words and those of its causes, in one line. What has been said is not said again: several libraries, and
/// errors of ours that need the cause in mid-sentence, name theirs themselves.
pub fn with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}: look at the disk")]
    struct InMidSentence(#[source] io::Error);

    #[test]
    fn nothing_is_said_twice_and_nothing_is_left_out() {
        let error = anyhow::Error::from(InMidSentence(io::Error::other("no such file")));
        assert_eq!(with_causes(&error), "no such file: look at the disk");
        let error = error.context("read the slot");
        assert_eq!(with_causes(&error), "read the slot: no such file: look at the disk");
    }
}
