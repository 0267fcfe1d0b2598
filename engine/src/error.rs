//! Three kinds of failure, three ways: an outcome the caller must answer is a typed `Err` per verb; a fault of
//! the disk or of bytes on it is a [`Fault`] and poisons what it was for; a bug is an assertion and stops the process.

use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::types::{Offset, ProducerEpoch};

/// A disk that failed or bytes that cannot be what we wrote. Whatever it struck stays offline until reopened:
/// a failed sync is never retried, since the second one can succeed with the data gone.
#[derive(Clone, Debug)]
pub enum Fault {
    Io {
        what: &'static str,
        path: PathBuf,
        error: Arc<io::Error>,
    },
    Corrupt {
        what: String,
        path: PathBuf,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io { what, path, error } => write!(f, "{what} {}: {error}", path.display()),
            Fault::Corrupt { what, path } => write!(f, "{}: corrupt: {what}", path.display()),
        }
    }
}

impl std::error::Error for Fault {}

impl Fault {
    pub fn io(what: &'static str, path: impl Into<PathBuf>, error: io::Error) -> Fault {
        Fault::Io {
            what,
            path: path.into(),
            error: Arc::new(error),
        }
    }

    pub fn corrupt(what: impl Into<String>, path: impl Into<PathBuf>) -> Fault {
        Fault::Corrupt {
            what: what.into(),
            path: path.into(),
        }
    }
}

/// Why an append was not taken. Nothing was written.
#[derive(Clone, Debug)]
pub enum AppendError {
    /// The sequence does not follow the last one of this producer.
    OutOfOrderSequence { expected: i32, got: i32 },
    /// Older than the five batches we remember: it was written before, but its offset is gone.
    DuplicateSequence,
    /// A newer instance of this producer has written.
    ProducerFenced { current: ProducerEpoch },
    /// The batch does not fit into a segment.
    BatchTooLarge { bytes: u64, segment_bytes: u64 },
    /// Too much is waiting for the disk: the caller slows its producer down and tries again.
    Busy,
    /// The disk is low on space; what is left is for what was accepted before.
    DiskLow,
    /// The log is offline.
    Fault(Fault),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::OutOfOrderSequence { expected, got } => {
                write!(f, "sequence {got} does not follow, expected {expected}")
            }
            AppendError::DuplicateSequence => f.write_str("sequence was written long ago"),
            AppendError::ProducerFenced { current } => {
                write!(f, "producer epoch is older than {current}")
            }
            AppendError::BatchTooLarge {
                bytes,
                segment_bytes,
            } => {
                write!(
                    f,
                    "batch of {bytes} bytes does not fit a segment of {segment_bytes}"
                )
            }
            AppendError::Busy => f.write_str("too many bytes wait for the disk"),
            AppendError::DiskLow => f.write_str("the disk is low on space"),
            AppendError::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for AppendError {}

#[derive(Clone, Debug)]
pub enum ReadError {
    /// Below the log start or above the log end.
    OutOfRange {
        log_start: Offset,
        log_end: Offset,
    },
    /// The batch at the offset is damaged on disk. What lies before and behind it can be read.
    Corrupt(Fault),
    Fault(Fault),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::OutOfRange { log_start, log_end } => {
                write!(f, "offset outside of {log_start} to {log_end}")
            }
            ReadError::Corrupt(fault) | ReadError::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a data directory or a log could not be opened.
#[derive(Clone, Debug)]
pub enum OpenError {
    /// The directory holds a log of another identity.
    WrongIdentity {
        path: PathBuf,
        found: String,
    },
    Fault(Fault),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::WrongIdentity { path, found } => {
                write!(f, "{} belongs to topic id {found}", path.display())
            }
            OpenError::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> OpenError {
        OpenError::Fault(fault)
    }
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> ReadError {
        match fault {
            Fault::Corrupt { .. } => ReadError::Corrupt(fault),
            Fault::Io { .. } => ReadError::Fault(fault),
        }
    }
}
