//! How a command ends when it does not end well.

use std::{fmt, io};

use super::client::ClientError;

#[derive(Debug)]
pub enum CliError {
    /// The cluster, or the way to it.
    Client(ClientError),
    /// stdout; a closed pipe is how `| head` says thanks.
    Output(io::Error),
    /// Anything else, in full sentences.
    Failed(String),
}

impl CliError {
    pub fn failed(message: impl Into<String>) -> CliError {
        CliError::Failed(message.into())
    }

    /// Puts the words in front that Kafka's tool uses.
    pub fn prefixed(self, prefix: &str) -> CliError {
        match self {
            CliError::Output(error) => CliError::Output(error),
            other => CliError::Failed(format!("{prefix}{other}")),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Client(error) => error.fmt(f),
            CliError::Output(error) => write!(f, "cannot write the output: {error}"),
            CliError::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for CliError {}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        CliError::Client(error)
    }
}

/// Only writing to stdout uses `?` on `io::Error`; errors of files get their path by hand.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        CliError::Output(error)
    }
}
