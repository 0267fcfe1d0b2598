//! What can go wrong between the command line and a broker, in words for the person at the terminal.

use std::{fmt, io};

use kafka_protocol::ResponseError;

#[derive(Debug)]
pub enum ClientError {
    BadAddress(String),
    UnsupportedSecurity(String),
    Connect {
        address: String,
        error: io::Error,
    },
    Io {
        address: String,
        error: io::Error,
    },
    Disconnected(String),
    TimedOut {
        address: String,
        api: &'static str,
    },
    /// Ctrl-C.
    Interrupted,
    /// The broker does not offer the API, or no version that we know.
    Unsupported {
        address: String,
        api: &'static str,
    },
    /// Bytes that are no answer to what was asked.
    Malformed(String),
    /// An error code, and what it was about.
    Broker {
        error: ResponseError,
        what: String,
        message: Option<String>,
    },
}

impl ClientError {
    /// `Ok` for code 0.
    pub fn check(code: i16, what: impl FnOnce() -> String) -> Result<(), ClientError> {
        ClientError::check_with(code, None, what)
    }

    /// As [`ClientError::check`], with the text that the broker sent along.
    pub fn check_with(
        code: i16,
        message: Option<&str>,
        what: impl FnOnce() -> String,
    ) -> Result<(), ClientError> {
        match ResponseError::try_from_code(code) {
            None => Ok(()),
            Some(error) => Err(ClientError::Broker {
                error,
                what: what(),
                message: message.filter(|text| !text.is_empty()).map(str::to_string),
            }),
        }
    }

    /// The error code of the broker, if it was one.
    pub fn code(&self) -> Option<ResponseError> {
        match self {
            ClientError::Broker { error, .. } => Some(*error),
            _ => None,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Broker { error, .. } => {
                error.is_retriable() || *error == ResponseError::BrokerNotAvailable
            }
            ClientError::Connect { .. }
            | ClientError::Io { .. }
            | ClientError::Disconnected(_)
            | ClientError::TimedOut { .. } => true,
            _ => false,
        }
    }

    /// Whether the connection it happened on is of no more use: replies no longer match requests.
    pub(super) fn breaks_connection(&self) -> bool {
        !matches!(
            self,
            ClientError::Broker { .. } | ClientError::Unsupported { .. }
        )
    }
}

/// Kafka's name of an error, as its tools print it: `UNKNOWN_TOPIC_OR_PARTITION`.
pub fn kafka_name(error: ResponseError) -> String {
    let mut name = String::new();
    for letter in error.to_string().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::BadAddress(text) => {
                write!(f, "'{text}' is no broker address; write host:port")
            }
            ClientError::UnsupportedSecurity(protocol) => {
                write!(
                    f,
                    "security protocol {protocol} is not supported, only PLAINTEXT"
                )
            }
            ClientError::Connect { address, error } => {
                write!(f, "cannot connect to {address}: {error}")
            }
            ClientError::Io { address, error } => write!(f, "connection to {address}: {error}"),
            ClientError::Disconnected(address) => {
                write!(f, "{address} closed the connection")
            }
            ClientError::TimedOut { address, api } => {
                write!(f, "{address} did not answer {api} in time")
            }
            ClientError::Interrupted => f.write_str("interrupted"),
            ClientError::Unsupported { address, api } => {
                write!(
                    f,
                    "{address} does not support {api} in a version known here"
                )
            }
            ClientError::Malformed(what) => write!(f, "malformed reply: {what}"),
            ClientError::Broker {
                message: Some(message),
                ..
            } => f.write_str(message),
            ClientError::Broker { error, what, .. } => write!(f, "{what}: {}", kafka_name(*error)),
        }
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_kafkas_names() {
        assert_eq!(
            kafka_name(ResponseError::UnknownTopicOrPartition),
            "UNKNOWN_TOPIC_OR_PARTITION"
        );
        assert_eq!(
            kafka_name(ResponseError::GroupIdNotFound),
            "GROUP_ID_NOT_FOUND"
        );
    }
}
