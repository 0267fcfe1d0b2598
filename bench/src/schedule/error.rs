//! Why a schedule was refused, in words for the person who wrote it.

use std::{fmt, path::PathBuf};

use super::spec::FORMS;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    /// Nothing before the colon that we know.
    Kind(String),
    /// The kind is known, what follows it has another form.
    Form {
        kind: &'static str,
    },
    /// Not a count of operations in flight.
    InFlight(String),
    Rate {
        text: String,
        error: NumberError,
    },
    Duration {
        text: String,
        error: NumberError,
    },
    /// Each part is right by itself, and together they are not.
    Together(&'static str),
    Trace {
        path: PathBuf,
        error: TraceError,
    },
}

/// What is wrong with one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    NotANumber,
    TooLarge,
    Zero,
    NoUnit,
    RateBounds,
    DurationBounds,
}

/// What is wrong with the file of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceError {
    Read(String),
    Line {
        number: usize,
        fault: LineFault,
    },
    /// No row at all.
    Empty,
    /// Rows, and each with a rate of zero.
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineFault {
    Columns,
    Seconds(NumberError),
    Rate(NumberError),
    /// The first row is not at 0 seconds.
    Start,
    /// Not later than the row before.
    NotLater,
    TooLate,
    TooMany,
    TooLong,
    NotText,
}

impl ScheduleError {
    pub(super) fn rate(text: &str, error: NumberError) -> ScheduleError {
        let text = text.to_owned();
        ScheduleError::Rate { text, error }
    }

    pub(super) fn duration(text: &str, error: NumberError) -> ScheduleError {
        let text = text.to_owned();
        ScheduleError::Duration { text, error }
    }
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScheduleError::Kind(text) => {
                let kinds: Vec<&str> = FORMS.iter().map(|form| form.kind).collect();
                let kinds = kinds.join(", ");
                write!(f, "`{text}` is no schedule: one begins with {kinds}")
            }
            ScheduleError::Form { kind } => {
                let form = FORMS.iter().find(|form| form.kind == *kind);
                let form = form.expect("a kind that was found in the table");
                let (shape, example) = (form.shape, form.example);
                write!(f, "expected `{shape}`, as in `{example}`")
            }
            ScheduleError::InFlight(text) => write!(
                f,
                "`{text}` is no number of operations in flight: 1 to 1000000"
            ),
            ScheduleError::Rate { text, error } => write!(f, "rate `{text}`: {error}"),
            ScheduleError::Duration { text, error } => write!(f, "duration `{text}`: {error}"),
            ScheduleError::Together(why) => f.write_str(why),
            ScheduleError::Trace { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NumberError::NotANumber => "not a number",
            NumberError::TooLarge => "too large",
            NumberError::Zero => "must be more than zero",
            NumberError::NoUnit => "needs a unit: ms, s, m or h",
            NumberError::RateBounds => "must be between 0.001 and 100M operations per second",
            NumberError::DurationBounds => "must be between 1 ms and 1000 h",
        })
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceError::Read(error) => write!(f, "cannot be read: {error}"),
            TraceError::Line { number, fault } => write!(f, "line {number}: {fault}"),
            TraceError::Empty => f.write_str("has no rows of `seconds,rate`"),
            TraceError::Silent => f.write_str("has no rate above zero"),
        }
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineFault::Columns => f.write_str("expected two columns, `seconds,rate`"),
            LineFault::Seconds(error) => write!(f, "seconds: {error}"),
            LineFault::Rate(error) => write!(f, "rate: {error}"),
            LineFault::Start => f.write_str("the first row must be at 0 seconds"),
            LineFault::NotLater => f.write_str("not later than the row before"),
            LineFault::TooLate => f.write_str("later than 1000 h"),
            LineFault::TooMany => f.write_str("more than 1000000 lines"),
            LineFault::TooLong => f.write_str("longer than 1000 bytes"),
            LineFault::NotText => f.write_str("not UTF-8 text"),
        }
    }
}

impl std::error::Error for ScheduleError {}
