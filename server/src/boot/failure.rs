//! Why a broker does not start: one table of causes, each with its exit code and what to do about it.

use std::{fmt, path::PathBuf};

use forebay_tune::check::Finding;

/// A start that failed. Displayed, it is the whole message for the operator: cause, then remedy.
#[derive(Debug)]
pub enum StartFailure {
    Config(Vec<String>),
    /// A check of the host that is fatal.
    Host(Finding),
    DataDir {
        path: PathBuf,
        error: std::io::Error,
    },
    ForeignDataDir {
        path: PathBuf,
        found: String,
    },
    OtherNode {
        path: PathBuf,
        found: String,
        wanted: i32,
    },
    InUse {
        path: PathBuf,
    },
    Listen {
        address: String,
        error: std::io::Error,
    },
    Executors(std::io::Error),
    /// The log could not be opened, recovered or made durable.
    Storage(String),
    Metadata(String),
}

/// A second signal while stopping.
pub const EXIT_ON_SECOND_SIGNAL: i32 = 130;

impl StartFailure {
    /// Distinct for each kind of cause, so that a supervisor can tell them apart. 1 and 2 belong to the command line.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartFailure::Config(_) => 3,
            StartFailure::DataDir { .. } => 4,
            StartFailure::ForeignDataDir { .. } => 5,
            StartFailure::OtherNode { .. } => 6,
            StartFailure::InUse { .. } => 7,
            StartFailure::Listen { .. } => 8,
            StartFailure::Storage(_) => 9,
            StartFailure::Metadata(_) => 10,
            StartFailure::Executors(_) => 11,
            StartFailure::Host(finding) => match finding.id {
                "uring.available" => 12,
                "rlimit.memlock" => 13,
                "fs.direct_io" => 14,
                _ => 15,
            },
        }
    }

    fn remedy(&self) -> &str {
        match self {
            StartFailure::Config(_) => {
                "correct the settings named above; they have Kafka's names and ranges"
            }
            StartFailure::Host(finding) => &finding.remedy,
            StartFailure::DataDir { .. } => {
                "create the directory and make it writable for this user, or choose another with --data-dir"
            }
            StartFailure::ForeignDataDir { .. } => {
                "choose an empty directory with --data-dir; Forebay never writes into what is not its own"
            }
            StartFailure::OtherNode { .. } => {
                "set node.id to the number this directory belongs to, or choose another directory"
            }
            StartFailure::InUse { .. } => {
                "stop the other broker first, or choose another directory with --data-dir"
            }
            StartFailure::Listen { .. } => {
                "stop what listens there, or choose another address with --listen HOST:PORT"
            }
            StartFailure::Executors(_) => "run `forebay-tune check` to see what the host lacks",
            StartFailure::Storage(_) => {
                "look at the disk (dmesg, smartctl); nothing was overwritten"
            }
            StartFailure::Metadata(_) => {
                "start with the configuration this directory was made with"
            }
        }
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartFailure::Config(errors) => {
                f.write_str("the configuration is not valid:")?;
                for error in errors {
                    write!(f, "\n  {error}")?;
                }
            }
            StartFailure::Host(Finding {
                id, current, why, ..
            }) => write!(f, "{id}: {current} ({why})")?,
            StartFailure::DataDir { path, error } => {
                write!(f, "data directory {}: {error}", path.display())?;
            }
            StartFailure::ForeignDataDir { path, found } => write!(
                f,
                "data directory {} belongs to something else: {found}",
                path.display()
            )?,
            StartFailure::OtherNode {
                path,
                found,
                wanted,
            } => write!(
                f,
                "data directory {} belongs to node {found}, this is node {wanted}",
                path.display()
            )?,
            StartFailure::InUse { path } => write!(
                f,
                "data directory {} is in use by another broker",
                path.display()
            )?,
            StartFailure::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {error}")?;
            }
            StartFailure::Executors(error) => write!(f, "shards cannot start: {error}")?,
            StartFailure::Storage(what) => write!(f, "storage: {what}")?,
            StartFailure::Metadata(what) => write!(f, "metadata: {what}")?,
        }
        write!(f, "\n  remedy: {}", self.remedy())
    }
}

impl std::error::Error for StartFailure {}
