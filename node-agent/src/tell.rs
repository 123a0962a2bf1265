//! What a command says: its answer on standard output, all else on standard error. Who listens may leave before the end
//! (`… | head`, a log that is gone): what a command does is not ended by that, as the standard library's macros would.

use std::{
    fmt::Arguments,
    io::{self, Write as _},
};

/// The answer of a command could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write the answer to standard output: is there room where it goes?")]
pub struct AnswerError(#[from] io::Error);

/// Says a line beside the answer, to whoever listens.
pub fn tell_line(line: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Gives a line of the answer. That nobody wants more of it is no failure.
pub fn answer_line(line: Arguments<'_>) -> Result<(), AnswerError> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// [`tell_line`] with a format.
macro_rules! tell {
    ($($words:tt)*) => { $crate::tell::tell_line(format_args!($($words)*)) };
}

/// [`answer_line`] with a format.
macro_rules! answer {
    ($($words:tt)*) => { $crate::tell::answer_line(format_args!($($words)*)) };
}

pub(crate) use {answer, tell};
