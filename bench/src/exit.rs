//! What the process says to a shell. Clap has 2 for options that make no sense.

use std::process::ExitCode;

/// How a command ended that could do its work. One that could not is an error with a message, and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// The generator could not keep to its plan: the figures do not mean what they say.
    Invalid,
    /// Records were lost, duplicated, reordered or damaged.
    Unsafe,
    /// A comparison found something worse.
    Regression,
    /// Two runs that do not compare.
    Refused,
    /// A signal ended the run; its result is partial.
    Interrupted,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Invalid => 3,
            Exit::Unsafe => 4,
            Exit::Regression => 6,
            Exit::Refused => 7,
            // As a shell reports SIGINT.
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
